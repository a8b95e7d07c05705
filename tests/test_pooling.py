import pytest
import torch

from polyvec.model.packing import Packed
from polyvec.model.pooling import normalize, pool
from polyvec.spec import Pooling

# Texts of 2, 0, 2 and 3 tokens; state t is (t, 10 t).
PACKED = Packed.of([[1, 1], [], [1, 1], [1, 1, 1]])
STATES = torch.stack((torch.arange(7.0), 10 * torch.arange(7.0)), dim=1)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("mean", [0.5, 0.0, 2.5, 5.0]),
        ("last", [1.0, 0.0, 3.0, 6.0]),
        ("cls", [0.0, 0.0, 2.0, 4.0]),
    ],
)
def test_each_text_is_pooled_on_its_own(pooling: Pooling, expected: list[float]) -> None:
    vectors = pool(STATES, PACKED, pooling)
    assert vectors[:, 0].tolist() == expected
    assert vectors[:, 1].tolist() == [10 * x for x in expected]


@pytest.mark.parametrize("pooling", ["mean", "last", "cls"])
def test_a_text_without_tokens_gives_zeros(pooling: Pooling) -> None:
    assert pool(STATES, PACKED, pooling)[1].tolist() == [0.0, 0.0]


def test_the_mean_of_bf16_states_is_summed_in_fp32() -> None:
    """256 + 1 is 256 in bf16, so a bf16 sum would lose every small state."""
    states = torch.full((257, 1), 1.0, dtype=torch.bfloat16)
    states[0] = 256.0
    (mean,) = pool(states, Packed.of([[1] * 257]), "mean")
    assert mean.dtype == torch.float32
    assert mean.item() == pytest.approx(512 / 257)


def test_normalized_rows_have_length_one() -> None:
    lengths = normalize(torch.tensor([[3.0, 4.0], [0.0, 2e-3]])).norm(dim=1)
    assert lengths.tolist() == pytest.approx([1.0, 1.0])


def test_a_row_of_zeros_stays_zeros() -> None:
    assert normalize(torch.zeros(1, 3)).tolist() == [[0.0, 0.0, 0.0]]
