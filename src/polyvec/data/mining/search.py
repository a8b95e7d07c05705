"""Exact search for the nearest documents under a threshold, a shard at a time.

Memory is that of a block of scores and of the best documents so far, whatever the corpus's size.

Shapes: Q queries, R rows of a shard, K documents kept, D numbers of a vector.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from polyvec.data.mining.vectors import Stored, Vectors

_QUERIES_A_BLOCK = 1_024
_FIRST_SLICE_ROWS = 512
REJECTED_KEPT = 8
"""Of what is too near the positive, so many nearest documents a query are kept to be shown."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Found:
    """What a teacher found for queries. Unused places have the row -1 and the score -inf."""

    scores_QK: Vectors
    """Of the nearest documents under the threshold, falling."""
    rows_QK: Ints
    rejected_scores_QK: Vectors
    """Of the nearest documents at or above the threshold, falling; at most 8 a query."""
    rejected_rows_QK: Ints
    rejected_Q: Ints
    """How many documents are at or above the threshold."""
    above_Q: Ints
    """How many documents are above the positive itself: its rank, from 0."""


def search(
    queries_QD: Vectors,
    shards: Iterable[tuple[int, Stored]],
    positive_scores_Q: Vectors,
    thresholds_Q: Vectors,
    excluded: tuple[Ints, Ints],
    depth: int,
    device: str = "cpu",
) -> Found:
    """Find the nearest documents under each query's threshold.

    Args:
        queries_QD: Unit vectors.
        shards: (first row, unit vectors) of the corpus's shards.
        positive_scores_Q: Cosine of each query and its positive.
        thresholds_Q: Only documents under it are taken.
        excluded: (query, row) pairs that are passed over altogether.
        depth: How many documents to keep for each query.
        device: Where scores are computed.
    """
    parts = [slice(i, i + _QUERIES_A_BLOCK) for i in range(0, len(queries_QD), _QUERIES_A_BLOCK)]
    blocks = [
        _Block(queries_QD[q], positive_scores_Q[q], thresholds_Q[q], depth, device) for q in parts
    ]
    order = np.argsort(excluded[1], kind="stable")
    excluded_queries, excluded_rows = excluded[0][order], excluded[1][order]
    for first, vectors in shards:
        shard_RD = torch.from_numpy(np.array(vectors)).to(device, torch.float32)
        near = slice(*np.searchsorted(excluded_rows, (first, first + len(vectors))))
        queries, rows = excluded_queries[near], excluded_rows[near] - first
        for part, block in zip(parts, blocks, strict=True):
            inside = (queries >= part.start) & (queries < part.stop)
            block.add(shard_RD, first, queries[inside] - part.start, rows[inside])
    found = [block.found() for block in blocks]
    return Found(
        *(np.concatenate([getattr(f, name) for f in found]) for name in Found.__annotations__)
    )


class _Block:
    """The best documents so far for a block of queries."""

    def __init__(
        self,
        queries_QD: Vectors,
        positive_Q: Vectors,
        threshold_Q: Vectors,
        depth: int,
        device: str,
    ) -> None:
        self.queries_QD = torch.from_numpy(queries_QD).to(device)
        self.positive_Q1 = torch.from_numpy(positive_Q).to(device)[:, None]
        self.threshold_Q1 = torch.from_numpy(threshold_Q).to(device)[:, None]
        self.kept = _Best(len(queries_QD), depth, device)
        self.rejected = _Best(len(queries_QD), REJECTED_KEPT, device)
        self.rejected_Q = torch.zeros(len(queries_QD), dtype=torch.int64, device=device)
        self.above_Q = torch.zeros_like(self.rejected_Q)

    def add(self, shard_RD: Tensor, first: int, queries: Ints, rows: Ints) -> None:
        """Score a shard; ``queries`` and ``rows`` are the pairs to pass over."""
        scores_QR = self.queries_QD @ shard_RD.T
        scores_QR[torch.from_numpy(queries), torch.from_numpy(rows)] = -torch.inf
        # A slice is large when few documents can still be among the best: those of the slices
        # before are, and comparing with the least of them leaves few pairs to look at.
        start, width = 0, _FIRST_SLICE_ROWS
        while start < scores_QR.shape[1]:
            self._add_slice(scores_QR[:, start : start + width], first + start)
            start, width = start + width, 2 * width

    def _add_slice(self, scores_QR: Tensor, first: int) -> None:
        # Everything kept is under the threshold, so what is over it is over the least kept, too.
        queries_P, places_P = _pairs(scores_QR > self.kept.least_Q1)
        scores_P, rows_P = scores_QR[queries_P, places_P], places_P + first
        near_P = scores_P >= self.threshold_Q1[queries_P, 0]
        above_P = scores_P > self.positive_Q1[queries_P, 0]
        self.rejected_Q += torch.bincount(queries_P[near_P], minlength=len(self.rejected_Q))
        self.above_Q += torch.bincount(queries_P[above_P], minlength=len(self.above_Q))
        self.rejected.add(queries_P[near_P], scores_P[near_P], rows_P[near_P])
        self.kept.add(queries_P[~near_P], scores_P[~near_P], rows_P[~near_P])

    def found(self) -> Found:
        """Return what was found, on the CPU."""
        tensors = (
            self.kept.scores_QK,
            self.kept.rows_QK,
            self.rejected.scores_QK,
            self.rejected.rows_QK,
            self.rejected_Q,
            self.above_Q,
        )
        return Found(*(tensor.cpu().numpy() for tensor in tensors))


def _pairs(chosen_QR: Tensor) -> tuple[Tensor, Tensor]:
    """Return the places of what is true, by query."""
    if chosen_QR.device.type != "cpu":
        queries_P, places_P = torch.nonzero(chosen_QR, as_tuple=True)
        return queries_P, places_P
    # numpy looks at 64 at once where few are true; torch's nonzero takes 15 times as long.
    flat = np.flatnonzero(chosen_QR.numpy())
    queries, places = np.divmod(flat, chosen_QR.shape[1])
    return torch.from_numpy(queries), torch.from_numpy(places)


class _Best:
    """The K highest scores of each query and the rows they are of."""

    def __init__(self, queries: int, depth: int, device: str) -> None:
        self.scores_QK = torch.full((queries, depth), -torch.inf, device=device)
        self.rows_QK = torch.full((queries, depth), -1, dtype=torch.int64, device=device)

    @property
    def least_Q1(self) -> Tensor:
        """The score a document must be above to be among them."""
        return self.scores_QK[:, -1:]

    def add(self, queries_P: Tensor, scores_P: Tensor, rows_P: Tensor) -> None:
        """Merge (query, score, row) pairs, sorted by query."""
        if not len(queries_P):
            return
        counts_Q = torch.bincount(queries_P, minlength=len(self.scores_QK))
        before_Q = torch.cumsum(counts_Q, 0) - counts_Q
        place_P = torch.arange(len(queries_P), device=queries_P.device) - before_Q[queries_P]
        shape = (len(self.scores_QK), int(counts_Q.max()))
        scores_QN = self.scores_QK.new_full(shape, -torch.inf)
        rows_QN = self.rows_QK.new_full(shape, -1)
        scores_QN[queries_P, place_P], rows_QN[queries_P, place_P] = scores_P, rows_P
        best = torch.topk(torch.cat([self.scores_QK, scores_QN], 1), self.scores_QK.shape[1], dim=1)
        self.rows_QK = torch.cat([self.rows_QK, rows_QN], 1).gather(1, best.indices)
        self.scores_QK = best.values
