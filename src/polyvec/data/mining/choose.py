"""Which of the documents that teachers found become negatives.

Shapes: Q queries, K documents a teacher found, C candidates of all teachers, T teachers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from polyvec.data.mining.search import Found, Ints
from polyvec.data.mining.vectors import Vectors, gather

Sampling = Literal["top", "random"]

_QUERIES_A_BLOCK = 128
"""So many queries' candidates are read from disk together."""


@dataclass(frozen=True)
class Opinion:
    """What one teacher says of a set of queries."""

    found: Found
    queries_QD: Vectors
    positive_scores_Q: Vectors
    thresholds_Q: Vectors
    shards: Sequence[Path]
    neighbours_checked: int = 0
    """Of approximate search: documents that exact search found for some queries,"""
    neighbours_found: int = 0
    """and how many of them were found."""


@dataclass(frozen=True)
class Choice:
    """The negatives of one query, and what other teachers forbade."""

    rows: Ints
    scores_TC: Vectors
    """Each teacher's cosine of each."""
    vetoed: int
    """Candidates that one teacher found under its threshold and another did not."""


def choose(
    opinions: Sequence[Opinion],
    count: int,
    skip: int,
    sampling: Sampling,
    generators: Sequence[np.random.Generator],
) -> list[Choice]:
    """Choose the negatives of each query.

    Candidates are the documents any teacher found, in turn: each one's nearest, then each one's
    second. One that is at or above the threshold of any teacher is dropped. Of the rest the
    ``skip`` nearest are passed over, and ``count`` are taken: the next, or random ones. There are
    fewer if not enough are left: none that was dropped is ever taken instead.
    """
    queries = len(opinions[0].queries_QD)
    choices: list[Choice] = []
    for start in range(0, queries, _QUERIES_A_BLOCK):
        block = range(start, min(start + _QUERIES_A_BLOCK, queries))
        candidates = [_in_turn([opinion.found.rows_QK[q] for opinion in opinions]) for q in block]
        scores = [_scores(opinion, block, candidates, len(opinions)) for opinion in opinions]
        for i, q in enumerate(block):
            scores_TC = np.stack([by_teacher[i] for by_teacher in scores])
            limits_T1 = np.array([[opinion.thresholds_Q[q]] for opinion in opinions], np.float32)
            fit = np.flatnonzero((scores_TC < limits_T1).all(axis=0))
            taken = _take(fit[skip:], count, sampling, generators[q])
            vetoed = len(candidates[i]) - len(fit)
            choices.append(Choice(candidates[i][taken], scores_TC[:, taken], vetoed))
    return choices


def _take(
    fit: npt.NDArray[np.intp], count: int, sampling: Sampling, generator: np.random.Generator
) -> npt.NDArray[np.intp]:
    if sampling == "top" or len(fit) <= count:
        return fit[:count]
    return np.sort(generator.choice(fit, count, replace=False))


def _in_turn(rankings: Sequence[Ints]) -> Ints:
    """Merge rankings by taking from each in turn, every row once."""
    turns = np.stack(rankings, axis=1).reshape(-1)
    turns = turns[turns >= 0]
    _, first = np.unique(turns, return_index=True)
    return turns[np.sort(first)]


def _scores(
    opinion: Opinion, block: range, candidates: Sequence[Ints], teachers: int
) -> list[Vectors]:
    """Return a teacher's cosines of each query's candidates."""
    if teachers == 1:  # it found them all itself
        return [
            opinion.found.scores_QK[q, : len(rows)]
            for q, rows in zip(block, candidates, strict=True)
        ]
    rows = np.unique(np.concatenate(candidates))
    vectors_RD = gather(opinion.shards, rows)
    places = [np.searchsorted(rows, own) for own in candidates]
    return [
        vectors_RD[place] @ opinion.queries_QD[q] for q, place in zip(block, places, strict=True)
    ]
