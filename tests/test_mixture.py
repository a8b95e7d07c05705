"""The order of training: every row, in the shares asked for, and the same after a resume."""

from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvec.errors import InputError
from polyvec.records.mixture import Draw, Order, Share, batches

SIZES = {"a": 7, "b": 3, "c": 12}


def flat(order: Order, steps: int) -> list[Draw]:
    return [draw for batch in islice(order.batches(), steps) for draw in batch]


def test_an_epoch_has_every_row_once() -> None:
    order = Order(SIZES, batch_size=11)
    assert order.steps_per_epoch == 2
    first, second = flat(order, 4)[:22], flat(order, 4)[22:]
    for visit, draws in enumerate((first, second)):
        assert sorted(draws) == [Draw(n, row, visit) for n in SIZES for row in range(SIZES[n])]
    assert [draw[:2] for draw in first] != [draw[:2] for draw in second]


@given(st.integers(1, 9), st.integers(0, 99), st.booleans(), st.integers(0, 40))
def test_a_resumed_order_is_the_uninterrupted_one(
    size: int, seed: int, same: bool, start: int
) -> None:
    def order() -> Order:
        return Order({"a": 9, "b": 10, "c": 21}, size, seed, same_source=same)

    whole = list(islice(order().batches(), start + 3))
    assert list(islice(order().batches(start), 3)) == whole[start:]


def test_another_seed_is_another_order() -> None:
    assert flat(Order(SIZES, 22, seed=1), 1) != flat(Order(SIZES, 22, seed=2), 1)
    assert flat(Order(SIZES, 22, seed=1), 1) == flat(Order(SIZES, 22, seed=1), 1)


def test_counts_repeat_or_shorten_a_source() -> None:
    shares = {"a": Share(count=14), "c": Share(count=4)}
    order = Order(SIZES, 21, shares=shares)
    epoch = flat(order, 1)
    assert Counter(draw.source for draw in epoch) == {"a": 14, "b": 3, "c": 4}
    assert Counter(draw.row for draw in epoch if draw.source == "a") == dict.fromkeys(range(7), 2)
    three = {draw.row for draw in flat(order, 3) if draw.source == "c"}
    assert three == set(range(12)), "the next epochs go on with the rows the first left out"


def test_weights_share_what_their_sources_have() -> None:
    order = Order(SIZES, 22, shares={"a": Share(weight=1), "c": Share(weight=3)})
    assert Counter(draw.source for draw in flat(order, 1)) == {"a": 5, "b": 3, "c": 14}


def test_same_source_batches() -> None:
    order = Order(SIZES, 3, same_source=True)
    assert order.steps_per_epoch == 2 + 1 + 4
    seven = list(islice(order.batches(), 7))
    sources = [{draw.source for draw in batch} for batch in seven]
    assert all(len(names) == 1 for names in sources)
    assert Counter(name for names in sources for name in names) == {"a": 2, "b": 1, "c": 4}
    assert sources != sorted(sources, key=min), "batches are shuffled"
    rows = [draw.row for draw in flat(order, 49) if draw.source == "a"]
    assert Counter(rows) == dict.fromkeys(range(7), 6), "the row left over comes in a later epoch"


def test_items_come_with_their_place() -> None:
    sources = {"x": ["p", "q"], "y": ["r"]}
    (first,) = islice(batches(sources, 3, seed=5), 1)
    assert sorted(item for item, _ in first) == ["p", "q", "r"]
    assert all(sources[draw.source][draw.row] == item for item, draw in first)
    assert list(islice(batches(sources, 3, seed=5, start=4), 1)) == [
        list(islice(batches(sources, 3, seed=5), 5))[4]
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "The seed is -1"),
        ({"sizes": {}}, "There are no records in the mixture"),
        ({"sizes": {"a": 2, "b": 0}}, "There are no records in b"),
        ({"shares": {"d": Share()}}, "stated for 'd'; the sources are a, b, c"),
        ({"batch_size": 4, "same_source": True}, "Source 'b' gives 3 rows an epoch, fewer than"),
    ],
)
def test_what_cannot_be_ordered(change: dict[str, object], words: str) -> None:
    arguments: dict[str, object] = {"sizes": SIZES, "batch_size": 2} | change
    with pytest.raises(InputError, match=words):
        Order(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"weight": 1.0, "count": 2}, "a weight and a count"),
        ({"weight": 0.0}, "above 0"),
        ({"weight": float("nan")}, "above 0"),
        ({"count": 0}, "at least 1"),
    ],
)
def test_a_share_is_above_nothing(facts: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Share(**facts)  # type: ignore[arg-type]
