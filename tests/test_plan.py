import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from polyvec.engine.plan import even_share, even_tokens, plan_batches, windows
from polyvec.engine.workers import ahead, map_ahead, workers

LENGTHS = st.lists(st.integers(0, 60), max_size=40)
BUDGET = st.integers(1, 100)


@given(LENGTHS, BUDGET)
def test_every_text_is_in_one_batch(lengths: list[int], budget: int) -> None:
    planned = [index for batch in plan_batches(lengths, budget) for index in batch]
    assert sorted(planned) == list(range(len(lengths)))


@given(LENGTHS, BUDGET)
def test_a_batch_keeps_to_its_budget_unless_it_is_one_text(lengths: list[int], budget: int) -> None:
    for batch in plan_batches(lengths, budget):
        assert len(batch) == 1 or sum(lengths[index] for index in batch) <= budget


@given(LENGTHS, BUDGET)
def test_texts_come_longest_first(lengths: list[int], budget: int) -> None:
    planned = [lengths[index] for batch in plan_batches(lengths, budget) for index in batch]
    assert planned == sorted(lengths, reverse=True)


def test_a_batch_is_filled_to_its_budget() -> None:
    assert list(plan_batches([4, 6, 5, 5, 1], 10)) == [[1], [2, 3], [0, 4]]


def test_texts_of_equal_length_keep_their_order() -> None:
    assert list(plan_batches([3, 3, 3], 100)) == [[0, 1, 2]]


def test_no_texts_make_no_batch() -> None:
    assert list(plan_batches([], 10)) == []


@given(st.integers(1, 10**6), st.integers(1, 4096), st.integers(1, 16))
def test_even_batches_give_every_core_as_many(total: int, most: int, cores: int) -> None:
    tokens = even_tokens(total, 1, most, cores)
    assert 1 <= tokens <= most
    batches = math.ceil(total / most)
    assert math.ceil(total / tokens) <= math.ceil(batches / cores) * cores


def test_seven_batches_become_eight() -> None:
    assert even_tokens(7 * 100 - 10, 0, 100, 2) == 87
    assert even_tokens(150, 10, 2048, 2) == 160  # too short to be worth two batches
    assert even_tokens(1024, 0, 2048, 2) == 512


def test_super_batches_are_alike() -> None:
    assert even_share(16_500, 16_000, 100) == 8_350
    assert even_share(10_000, 16_000, 100) == 10_100
    assert even_share(0, 16_000, 100) == 16_000


@given(st.integers(0, 40_000))
def test_windows_cover_every_text_once(count: int) -> None:
    covered = [index for window in windows(count) for index in range(window.start, window.stop)]
    assert covered == list(range(count))


def test_a_worker_keeps_to_its_core() -> None:
    """Also after the calling thread's number was put back, and after operators ran."""
    pool = workers(2)
    before = torch.get_num_threads()

    def threads(_: int) -> int:
        torch.zeros(2**20).cos()
        return torch.get_num_threads()

    assert set(pool.map(threads, range(8))) == {1}
    assert torch.get_num_threads() == before


def test_results_come_in_order_and_no_more_is_begun_than_allowed() -> None:
    begun: list[int] = []

    def square(number: int) -> int:
        begun.append(number)
        return number * number

    results = map_ahead(workers(2), square, range(100), ahead=3)
    assert [next(results) for _ in range(4)] == [0, 1, 4, 9]
    assert len(begun) <= 7
    results.close()
    assert list(ahead(square, [1, 2, 3])) == [1, 4, 9]
