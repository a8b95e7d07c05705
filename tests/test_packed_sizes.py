"""Batches are filled up to usual sizes, and the rows that fill them change nothing."""

import numpy as np
import pytest
import torch

from polyvec.model.packing import Packed, round_sizes, round_tokens
from polyvec.model.parts import attend
from polyvec.model.pooling import pool


def test_sizes_are_few_and_near() -> None:
    sizes = {round_tokens(tokens) for tokens in range(1, 4097)}
    assert len(sizes) < 200  # oneDNN keeps 1,024 pieces of code, a block has five products
    assert round_tokens(0) == 0
    for tokens in range(1, 4097):
        assert tokens <= round_tokens(tokens) < tokens + max(16, tokens / 16)
        assert round_tokens(round_tokens(tokens)) == round_tokens(tokens)


def test_a_long_calls_last_batch_has_one_of_a_few_sizes() -> None:
    full = [2_001, 2_016, 1_990, *[2_000] * 29]
    got = {round_sizes([*full, rest])[-1] for rest in range(1, 1_900)}
    assert len(got) < 8
    for rest in (1, 98, 819, 1_249):
        sizes = round_sizes([*full, rest])
        assert sizes[:-1] == [round_tokens(tokens) for tokens in full]
        assert rest <= sizes[-1] <= rest + (sum(full) + rest) // 64
        assert sizes[-1] <= max(sizes)


def test_a_short_calls_batches_are_not_rounded_further() -> None:
    assert round_sizes([]) == []
    assert round_sizes([17]) == [32]
    assert round_sizes([300, 40]) == [round_tokens(300), 48]
    assert round_sizes([0, 0]) == [0, 0]


@pytest.mark.parametrize("causal", [False, True])
def test_idle_rows_reach_no_text(causal: bool) -> None:
    ids = [[1, 2, 3], [4, 5, 6], [7], []]
    plain, filled = Packed.of(ids), Packed.of(ids, size=16)
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
    empty = Packed.of([[], []])
    assert empty.num_idle == 0
    nothing = torch.zeros(0, 2, 4)
    assert attend(nothing, nothing, nothing, empty, causal=False).shape == (0, 8)
