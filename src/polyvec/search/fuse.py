"""Rankings into one: reciprocal rank fusion, in which a place may count for less than another."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

RANK_CONSTANT = 60
"""Of Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion" (SIGIR 2009): how little the first
places count more than those after them."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Fused(Generic[Key]):
    """One item of several rankings."""

    key: Key
    ranks: tuple[int | None, ...]
    """Its place in each ranking, from 1; None where it is not in one."""
    weights: tuple[float, ...]
    """What its place in each ranking counts."""

    @property
    def shares(self) -> tuple[float, ...]:
        """What each ranking adds to the score."""
        both = zip(self.ranks, self.weights, strict=True)
        return tuple(0.0 if rank is None else weight * share(rank) for rank, weight in both)

    @property
    def score(self) -> float:
        """The sum of shares: higher is better."""
        return sum(self.shares)


def share(rank: int) -> float:
    """Return what a place in one ranking is worth."""
    return 1.0 / (RANK_CONSTANT + rank)


def fuse(
    rankings: Sequence[Sequence[Key]], weights: Sequence[Mapping[Key, float]] = ()
) -> list[Fused[Key]]:
    """Fuse rankings, best first; equal scores go by the first ranking's order, then the next's.

    Args:
        rankings: Keys, each at most once a ranking, best first.
        weights: For each ranking what its keys' places count, 0 to 1; 1 where nothing is said.
    """
    said = weights or [{} for _ in rankings]
    places = [{key: rank for rank, key in enumerate(keys, 1)} for keys in rankings]
    every = dict.fromkeys(key for keys in rankings for key in keys)
    fused = [
        Fused(
            key,
            tuple(place.get(key) for place in places),
            tuple(weight.get(key, 1.0) for weight in said),
        )
        for key in every
    ]
    return sorted(fused, key=lambda item: -item.score)
