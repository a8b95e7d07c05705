"""Approximate search for the nearest documents: a graph of neighbours (HNSW), by usearch.

For many queries over a large corpus without a GPU. The graph is in memory (a float16 vector and
some 300 bytes a document) and kept beside the shards it was made of. Scores are exact, because they
are computed from the shards; what can be missed are documents, and the report says how many.

Shapes: Q queries, P (query, document) pairs, K documents kept, D numbers of a vector.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from polyvec.data.mining.search import REJECTED_KEPT, Found, Ints
from polyvec.data.mining.vectors import Vectors, gather, open_shard
from polyvec.disk import full_disk_is_an_error
from polyvec.errors import MissingExtraError

_CONNECTIVITY, _EXPANSION_ADD, _EXPANSION_SEARCH = 32, 128, 400
"""Neighbours of a document, and candidates while adding and searching."""
_FEW = 512
"""So few vectors of a shard are added by one core."""
_QUERIES_A_BLOCK = 128


def neighbour_index(shards: Sequence[Path], progress: Callable[[int], None]) -> Any:  # noqa: ANN401
    """Return the graph of shards' vectors, reading it if it was made before.

    Raises:
        MissingExtraError: usearch is not installed.
        DiskFullError: There is no room to keep it.
    """
    try:
        from usearch.index import Index
    except ImportError as error:
        raise MissingExtraError(
            "Approximate search needs usearch, which is not installed: pip install "
            "'polyvec[approximate]'. Exact search needs nothing: --search exact."
        ) from error
    names = hashlib.sha256("".join(path.name for path in shards).encode()).hexdigest()[:24]
    path = shards[0].with_name(f"{names}.usearch")
    if path.exists():
        return Index.restore(path)
    index = Index(
        ndim=open_shard(shards[0]).shape[1],
        metric="ip",
        dtype="f16",
        connectivity=_CONNECTIVITY,
        expansion_add=_EXPANSION_ADD,
        expansion_search=_EXPANSION_SEARCH,
    )
    for shard in shards:
        vectors = np.asarray(open_shard(shard), dtype=np.float16)
        threads = 1 if len(vectors) < _FEW else 0  # several at once build another graph each time
        index.add(np.arange(len(index), len(index) + len(vectors)), vectors, threads=threads)
        progress(len(vectors))
    _keep(index, path)
    return index


def _keep(index: Any, path: Path) -> None:  # noqa: ANN401 (usearch's)
    partial = path.with_name(f".{path.name}.writing")
    try:
        with full_disk_is_an_error(path, "Make room and run it again: vectors are kept."):
            index.save(partial)
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def search_index(
    queries_QD: Vectors,
    index: Any,  # noqa: ANN401 (usearch's)
    shards: Sequence[Path],
    positive_scores_Q: Vectors,
    thresholds_Q: Vectors,
    excluded: tuple[Ints, Ints],
    depth: int,
) -> Found:
    """Find documents near each query and under its threshold; see :func:`search.search`.

    Twice the documents wanted are asked for, and as many more as are excluded; where too many of
    them are at or above the threshold, four and sixteen times as many. The counts of
    :class:`Found` are of these.
    """
    barred: dict[int, set[int]] = {}
    for query, row in zip(*excluded, strict=True):
        barred.setdefault(int(query), set()).add(int(row))
    most = 2 * depth + max(map(len, barred.values()), default=0)
    graph = _Graph(index, shards, barred, depth)
    found: dict[int, Found] = {}
    for start in range(0, len(queries_QD), _QUERIES_A_BLOCK):
        pending = list(range(start, min(start + _QUERIES_A_BLOCK, len(queries_QD))))
        for count in (most, 4 * most, 16 * most):
            found |= graph.ask(queries_QD, pending, positive_scores_Q, thresholds_Q, count)
            pending = [q for q in pending if found[q].rows_QK[-1] < 0]
            if not pending or count >= len(index):
                break
    ordered = [found[q] for q in range(len(queries_QD))]
    return Found(*(np.stack([getattr(x, name) for x in ordered]) for name in Found.__annotations__))


@dataclass(frozen=True)
class _Graph:
    """A graph of neighbours, the vectors in it, and what queries must not get."""

    index: Any
    shards: Sequence[Path]
    barred: Mapping[int, set[int]]
    depth: int

    def ask(
        self,
        queries_QD: Vectors,
        queries: Sequence[int],
        positive_scores_Q: Vectors,
        thresholds_Q: Vectors,
        count: int,
    ) -> dict[int, Found]:
        """Return what some queries find among their ``count`` nearest, each without the axis Q."""
        rows = self._rows(queries_QD, queries, min(count, len(self.index)))
        wanted = np.unique(np.concatenate(list(rows.values())))
        vectors_RD = gather(self.shards, wanted)
        return {
            q: _sorted_out(
                own,
                vectors_RD[np.searchsorted(wanted, own)] @ queries_QD[q],
                float(positive_scores_Q[q]),
                float(thresholds_Q[q]),
                self.depth,
            )
            for q, own in rows.items()
        }

    def _rows(self, queries_QD: Vectors, queries: Sequence[int], count: int) -> dict[int, Ints]:
        near = self.index.search(queries_QD[list(queries)].astype(np.float16), count)
        # One query is answered in another shape than several.
        keys = np.atleast_2d(near.keys)
        counts = near.counts if len(queries) > 1 else [keys.shape[1]]
        return {
            q: np.array([k for k in own[:n] if int(k) not in self.barred.get(q, ())], np.int64)
            for q, own, n in zip(queries, keys, counts, strict=True)
        }


def _sorted_out(
    rows: Ints, scores: Vectors, positive: float, threshold: float, depth: int
) -> Found:
    """Return what one query found, as a :class:`Found` without the axis Q."""
    order = np.argsort(-scores, kind="stable")
    rows, scores = rows[order], scores[order]
    near = scores >= np.float32(threshold)
    kept = _padded(scores[~near], rows[~near], depth)
    rejected = _padded(scores[near], rows[near], REJECTED_KEPT)
    counts = np.array(near.sum()), np.array((scores > np.float32(positive)).sum())
    return Found(*kept, *rejected, *counts)


def _padded(scores: Vectors, rows: Ints, count: int) -> tuple[Vectors, Ints]:
    room = max(0, count - len(rows))
    return (
        np.pad(scores[:count].astype(np.float32), (0, room), constant_values=-np.inf),
        np.pad(rows[:count], (0, room), constant_values=-1),
    )
