"""Batches are filled up to usual sizes, and the rows that fill them change nothing."""

import numpy as np
import pytest
import torch

from polyvec.model.packing import Packed, round_tokens
from polyvec.model.parts import attend
from polyvec.model.pooling import pool


def test_sizes_are_few_and_near() -> None:
    sizes = {round_tokens(tokens) for tokens in range(1, 4097)}
    assert len(sizes) < 200  # oneDNN keeps 1,024 pieces of code, a block has five products
    assert round_tokens(0) == 0
    for tokens in range(1, 4097):
        assert tokens <= round_tokens(tokens) < tokens + max(16, tokens / 16)
        assert round_tokens(round_tokens(tokens)) == round_tokens(tokens)


@pytest.mark.parametrize("causal", [False, True])
def test_idle_rows_reach_no_text(causal: bool) -> None:
    ids = [[1, 2, 3], [4, 5, 6], [7], []]
    plain, filled = Packed.of(ids), Packed.of(ids, rounds=True)
    assert (plain.num_idle, filled.num_idle) == (0, 9)
    assert filled.positions_T.tolist() == [*plain.positions_T.tolist(), *[0] * 9]
    torch.manual_seed(0)
    q, k, v = (torch.randn(16, heads, 32) for heads in (4, 2, 2))
    expected = attend(q[:7], k[:7], v[:7], plain, causal)
    got = attend(q, k, v, filled, causal)
    assert got.shape == (16, 128)
    assert not got[7:].any()
    np.testing.assert_allclose(got[:7], expected)
    torch.testing.assert_close(pool(got, filled, "mean"), pool(expected, plain, "mean"))


def test_a_batch_of_nothing() -> None:
    empty = Packed.of([[], []], rounds=True)
    assert empty.num_idle == 0
    nothing = torch.zeros(0, 2, 4)
    assert attend(nothing, nothing, nothing, empty, causal=False).shape == (0, 8)
