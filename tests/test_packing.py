import torch

from polyvec.model.packing import Packed, Run


def test_texts_lie_one_after_another() -> None:
    assert Packed.of([[5, 6], [7], [8, 9, 10]]).token_ids_T.tolist() == [5, 6, 7, 8, 9, 10]


def test_neighbours_of_equal_length_are_one_run() -> None:
    packed = Packed.of([[1, 2], [3, 4], [5], [6, 7]])
    assert packed.runs == (Run(0, 2, 2), Run(4, 1, 1), Run(5, 1, 2))


def test_a_run_ends_where_the_next_begins() -> None:
    packed = Packed.of([[1, 2], [3, 4], [], [5]])
    assert [(run.start, run.end) for run in packed.runs] == [(0, 4), (4, 4), (4, 5)]


def test_positions_start_again_with_each_text() -> None:
    """Attention would not tell: RoPE sees differences of positions only, until they grow large."""
    packed = Packed.of([[1, 2, 3], [4, 5, 6], [], [7]])
    assert packed.positions_T.tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_cumulative_lengths_count_empty_texts() -> None:
    cu_seqlens = Packed.of([[1, 2], [], [3]]).cu_seqlens
    assert cu_seqlens.dtype == torch.int32
    assert cu_seqlens.tolist() == [0, 2, 2, 3]


def test_no_texts_pack_to_nothing() -> None:
    packed = Packed.of([])
    assert packed.token_ids_T.dtype == torch.int64
    assert packed.token_ids_T.tolist() == packed.positions_T.tolist() == []
    assert packed.runs == ()
    assert packed.cu_seqlens.tolist() == [0]
