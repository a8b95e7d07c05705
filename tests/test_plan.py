from hypothesis import given
from hypothesis import strategies as st

from polyvec.engine.plan import plan_batches

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
