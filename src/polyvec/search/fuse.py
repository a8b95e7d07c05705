"""Two rankings into one: reciprocal rank fusion."""

from collections.abc import Hashable, Sequence
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

    @property
    def shares(self) -> tuple[float, ...]:
        """What each ranking adds to the score."""
        return tuple(0.0 if rank is None else share(rank) for rank in self.ranks)

    @property
    def score(self) -> float:
        """The sum of shares: higher is better."""
        return sum(self.shares)


def share(rank: int) -> float:
    """Return what a place in one ranking is worth."""
    return 1.0 / (RANK_CONSTANT + rank)


def fuse(rankings: Sequence[Sequence[Key]]) -> list[Fused[Key]]:
    """Fuse rankings, best first; equal scores go by the first ranking's order, then the next's.

    Args:
        rankings: Keys, each at most once a ranking, best first.
    """
    places = [{key: rank for rank, key in enumerate(keys, 1)} for keys in rankings]
    every = dict.fromkeys(key for keys in rankings for key in keys)
    fused = [Fused(key, tuple(place.get(key) for place in places)) for key in every]
    return sorted(fused, key=lambda item: -item.score)
