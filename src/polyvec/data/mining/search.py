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
_REJECTED_KEPT = 8
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
        self.rejected = _Best(len(queries_QD), _REJECTED_KEPT, device)
        self.rejected_Q = torch.zeros(len(queries_QD), dtype=torch.int64, device=device)
        self.above_Q = torch.zeros_like(self.rejected_Q)

    def add(self, shard_RD: Tensor, first: int, queries: Ints, rows: Ints) -> None:
        """Score a shard; ``queries`` and ``rows`` are the pairs to pass over."""
        scores_QR = self.queries_QD @ shard_RD.T
        scores_QR[torch.from_numpy(queries), torch.from_numpy(rows)] = -torch.inf
        too_near_QR = scores_QR >= self.threshold_Q1
        near_Q = too_near_QR.sum(1)
        self.rejected_Q += near_Q
        self.above_Q += (scores_QR > self.positive_Q1).sum(1)
        some = torch.nonzero(near_Q)[:, 0]
        if len(some):
            near_QR = scores_QR[some].masked_fill(~too_near_QR[some], -torch.inf)
            self.rejected.add(near_QR, first, some)
            scores_QR.masked_fill_(too_near_QR, -torch.inf)
        self.kept.add(scores_QR, first)

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


class _Best:
    """The K highest scores of each query and the rows they are of."""

    def __init__(self, queries: int, depth: int, device: str) -> None:
        self.scores_QK = torch.full((queries, depth), -torch.inf, device=device)
        self.rows_QK = torch.full((queries, depth), -1, dtype=torch.int64, device=device)

    def add(self, scores_QR: Tensor, first: int, queries: Tensor | None = None) -> None:
        """Merge scores of all queries, or of those named; -inf is never taken."""
        chosen = slice(None) if queries is None else queries
        depth = self.scores_QK.shape[1]
        top = torch.topk(scores_QR, min(depth, scores_QR.shape[1]), dim=1)
        rows = torch.where(torch.isfinite(top.values), top.indices + first, -1)
        scores = torch.cat([self.scores_QK[chosen], top.values], 1)
        best = torch.topk(scores, depth, dim=1)
        self.rows_QK[chosen] = torch.cat([self.rows_QK[chosen], rows], 1).gather(1, best.indices)
        self.scores_QK[chosen] = best.values
