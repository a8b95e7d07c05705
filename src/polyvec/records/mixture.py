"""The order training reads its sources in: mixed by weight or count, and exact to resume.

Everything is a function of the seed and the step's number, so a run that goes on at step ``n``
gets the batches it would have got, without reading over those before it.

A source is an endless stream: its rows in a random order, then all of them again in another. An
epoch of the mixture takes a fixed number of rows of each stream and shuffles them together, or,
for same-source batches, shuffles whole batches. The next epoch goes on where the streams stopped.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from polyvec.errors import InputError

Item = TypeVar("Item", covariant=True)
_Order = npt.NDArray[np.unsignedinteger]


class Draw(NamedTuple):
    """One row of a batch."""

    source: str
    row: int
    visit: int
    """How often the row was drawn before: 0 the first time. For taking its positives in turn."""


@dataclass(frozen=True)
class Share:
    """How much of a mixture a source makes up; neither means each of its rows once an epoch."""

    weight: float | None = None
    """Its part of the mixture, relative to the other weights."""
    count: int | None = None
    """How many of its rows an epoch has; more than there are repeats them."""

    def __post_init__(self) -> None:
        if self.weight is not None and self.count is not None:
            raise InputError("A source has a weight and a count; give one of them.")
        if self.weight is not None and not 0 < self.weight < float("inf"):
            raise InputError(f"A source's weight is {self.weight}; it must be above 0.")
        if self.count is not None and self.count < 1:
            raise InputError(f"A source's count is {self.count}; it must be at least 1.")


class Order:
    """Which rows of which sources are in which batch."""

    def __init__(
        self,
        sizes: Mapping[str, int],
        batch_size: int,
        seed: int = 0,
        shares: Mapping[str, Share] | None = None,
        same_source: bool = False,
    ) -> None:
        """Plan an order.

        Args:
            sizes: Rows of each source.
            batch_size: Rows of a batch.
            seed: Another seed, another order.
            shares: How much of each source; sources with a weight share an epoch's rows, as many
                as they have together, by their weights.
            same_source: Whether a batch has rows of one source only.

        Raises:
            InputError: A source is empty or unknown, or a number is out of its range.
        """
        self.names, self.batch_size, self.seed = list(sizes), batch_size, seed
        self.sizes = [sizes[name] for name in self.names]
        self.same_source = same_source
        _check(sizes, batch_size, seed, shares or {})
        self.rows = _rows_an_epoch(sizes, shares or {})
        """Rows of each source in an epoch, before same-source batches are made of them."""
        batches = [rows // batch_size for rows in self.rows]
        if same_source and not all(batches):
            short = self.names[batches.index(0)]
            raise InputError(
                f"Source {short!r} gives {self.rows[self.names.index(short)]} rows an epoch, fewer "
                f"than a same-source batch of {batch_size} needs. Take a smaller batch, a higher "
                "count, or batches of mixed sources."
            )
        self._units = batches if same_source else self.rows
        """What an epoch shuffles: batches of each source, or rows."""
        self._ends = np.cumsum(self._units)
        self._kept: dict[int, dict[int, _Order]] = {}

    @property
    def steps_per_epoch(self) -> float:
        """Batches in an epoch; with mixed batches an epoch may end inside one."""
        total = int(self._ends[-1])
        return float(total) if self.same_source else total / self.batch_size

    def batch(self, step: int) -> list[Draw]:
        """Return the rows of one batch, from its number alone."""
        if self.same_source:
            source, number = self._unit(step)
            first = number * self.batch_size
            return [self._draw(source, first + i) for i in range(self.batch_size)]
        start = step * self.batch_size
        return [self._draw(*self._unit(start + i)) for i in range(self.batch_size)]

    def batches(self, start: int = 0) -> Iterator[list[Draw]]:
        """Give batches without end, from a step on."""
        step = start
        while True:
            yield self.batch(step)
            step += 1

    def _unit(self, position: int) -> tuple[int, int]:
        """Return the source of a place in the endless order, and its number in the source."""
        epoch, place = divmod(position, int(self._ends[-1]))
        mixed = int(self._shuffled(0, epoch, int(self._ends[-1]))[place])
        source = int(np.searchsorted(self._ends, mixed, side="right"))
        units = self._units[source]
        return source, epoch * units + mixed - int(self._ends[source]) + units

    def _draw(self, source: int, number: int) -> Draw:
        """Return the row that a source's stream has at a place."""
        size = self.sizes[source]
        visit, place = divmod(number, size)
        row = int(self._shuffled(source + 1, visit, size)[place])
        return Draw(self.names[source], row, visit)

    def _shuffled(self, stream: int, turn: int, size: int) -> _Order:
        """Return a stream's order in one of its turns; two turns of each are kept.

        Streams: 0 is the mixture, whose turns are epochs; the others are the sources.
        """
        kept = self._kept.setdefault(stream, {})
        if turn not in kept:
            while len(kept) > 1:
                del kept[next(iter(kept))]
            kept[turn] = _permutation(self.seed, stream, turn, size)
        return kept[turn]


class Mixture(Generic[Item]):
    """The items themselves, in the order that an :class:`Order` gives."""

    def __init__(self, sources: Mapping[str, Sequence[Item]], order: Order) -> None:
        self.sources, self.order = sources, order

    def batches(self, start: int = 0) -> Iterator[list[tuple[Item, Draw]]]:
        """Give batches of (item, where it is from) without end, from a step on."""
        for draws in self.order.batches(start):
            yield [(self.sources[draw.source][draw.row], draw) for draw in draws]


def batches(
    sources: Mapping[str, Sequence[Item]],
    batch_size: int,
    seed: int = 0,
    start: int = 0,
    shares: Mapping[str, Share] | None = None,
    same_source: bool = False,
) -> Iterator[list[tuple[Item, Draw]]]:
    """Give batches of sources without end; see :class:`Order`."""
    sizes = {name: len(items) for name, items in sources.items()}
    order = Order(sizes, batch_size, seed, shares, same_source)
    return Mixture(sources, order).batches(start)


def _check(
    sizes: Mapping[str, int], batch_size: int, seed: int, shares: Mapping[str, Share]
) -> None:
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1.")
    if seed < 0:
        raise InputError(f"The seed is {seed}; it must be 0 or above.")
    empty = [name for name, size in sizes.items() if size < 1]
    if not sizes or empty:
        raise InputError(f"There are no records in {', '.join(empty) or 'the mixture'}.")
    unknown = [name for name in shares if name not in sizes]
    if unknown:
        raise InputError(
            f"A share is stated for {unknown[0]!r}; the sources are {', '.join(sizes)}."
        )


def _rows_an_epoch(sizes: Mapping[str, int], shares: Mapping[str, Share]) -> list[int]:
    weights = {name: share.weight for name, share in shares.items() if share.weight is not None}
    shared = sum(sizes[name] for name in weights)
    total = sum(weights.values())
    counts = {name: share.count for name, share in shares.items() if share.count is not None}
    parts = {name: max(1, round(shared * weight / total)) for name, weight in weights.items()}
    return [counts.get(name) or parts.get(name) or size for name, size in sizes.items()]


def _permutation(seed: int, stream: int, turn: int, size: int) -> _Order:
    generator = np.random.Generator(np.random.PCG64([seed, stream, turn]))
    return generator.permutation(size).astype(np.uint32 if size <= 2**32 else np.uint64)
