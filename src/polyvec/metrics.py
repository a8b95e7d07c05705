"""How good a ranking is, which vectors are nearest, and whether a difference is more than chance.

A ranking is a list of document ids, best first; a relevance is a mapping of document id to grade,
where a grade above 0 is relevant. Every measure is trec_eval's: a query's relevant documents count
whether they were retrieved or not, nDCG takes grades as they are (linear gain) and discounts by
log2(rank + 1), and a query without any relevant document scores 0.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from polyvec.errors import InputError

Floats = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float32]
Ranking = Sequence[str]
Relevance = Mapping[str, int]

CUTOFFS = (1, 3, 5, 10, 20, 100)

_QUERIES_A_BLOCK, _DOCUMENTS_A_BLOCK = 256, 8_192
"""A block's similarities take 8 MiB and their keys 16, whatever the size of the collection."""
_DRAWS_A_BLOCK = 2**20


def ndcg(ranking: Ranking, relevance: Relevance, k: int) -> float:
    """Return the normalized discounted cumulative gain of the first ``k``.

    Source: Järvelin & Kekäläinen 2002, with trec_eval's linear gain (its ``ndcg_cut``).
    """
    ideal = np.sort([grade for grade in relevance.values() if grade > 0])[::-1][:k]
    if not len(ideal):
        return 0.0
    return float(_discounted(_gains(ranking, relevance, k)) / _discounted(ideal.astype(float)))


def recall(ranking: Ranking, relevance: Relevance, k: int) -> float:
    """Return which share of the relevant documents is among the first ``k``."""
    return _ratio(int(np.count_nonzero(_gains(ranking, relevance, k))), _relevant(relevance))


def precision(ranking: Ranking, relevance: Relevance, k: int) -> float:
    """Return which share of ``k`` documents is relevant; missing ranks count as irrelevant."""
    return np.count_nonzero(_gains(ranking, relevance, k)) / k


def reciprocal_rank(ranking: Ranking, relevance: Relevance, k: int | None = None) -> float:
    """Return 1 / rank of the first relevant document, 0 if there is none in the first ``k``."""
    hits = np.flatnonzero(_gains(ranking, relevance, k))
    return 1.0 / (int(hits[0]) + 1) if len(hits) else 0.0


def average_precision(ranking: Ranking, relevance: Relevance, k: int | None = None) -> float:
    """Return the mean over relevant documents of the precision at their ranks (``map_cut_k``)."""
    hits = np.flatnonzero(_gains(ranking, relevance, k))
    return _ratio(float(np.sum(np.arange(1, len(hits) + 1) / (hits + 1))), _relevant(relevance))


def accuracy(ranking: Ranking, relevance: Relevance, k: int = 1) -> float:
    """Return 1 if a relevant document is among the first ``k``, else 0 (``success_k``)."""
    return float(np.any(_gains(ranking, relevance, k)))


_MEASURES: dict[str, Callable[[Ranking, Relevance, int], float]] = {
    "ndcg": ndcg,
    "recall": recall,
    "precision": precision,
    "mrr": reciprocal_rank,
    "map": average_precision,
    "accuracy": accuracy,
}
MEASURES = tuple(_MEASURES)


def query_metrics(
    ranking: Ranking, relevance: Relevance, names: Sequence[str] = ("ndcg@10",)
) -> dict[str, float]:
    """Return measures of one query by name: ``ndcg@10``, ``recall@100``, ``mrr@10``, ...

    Raises:
        InputError: A name is none of ``MEASURES`` with a cutoff, or an id is ranked twice.
    """
    if len(set(ranking)) != len(ranking):
        twice = next(x for n, x in enumerate(ranking) if x in ranking[:n])
        raise InputError(f"The document {twice!r} is ranked twice for one query.")
    scores = {}
    for name in names:
        measure, k = parse_metric(name)
        scores[name] = _MEASURES[measure](ranking, relevance, k)
    return scores


def run_metrics(
    rankings: Mapping[str, Ranking],
    qrels: Mapping[str, Relevance],
    names: Sequence[str] = ("ndcg@10",),
) -> dict[str, Floats]:
    """Return each measure of every query of ``qrels``, ``float64 [queries]``, in its order.

    A query that has no ranking scores 0: a search that finds nothing is no excuse.
    The mean over queries is ``values.mean()``.
    """
    scores = [query_metrics(rankings.get(query, ()), qrels[query], names) for query in qrels]
    return {name: np.array([score[name] for score in scores]) for name in names}


def parse_metric(name: str) -> tuple[str, int]:
    """Split ``ndcg@10`` into (``ndcg``, 10).

    Raises:
        InputError: It is no such name.
    """
    measure, _, cutoff = name.partition("@")
    if measure not in _MEASURES or not cutoff.isdecimal() or int(cutoff) < 1:
        raise InputError(
            f"{name!r} is no measure. Give one of {', '.join(MEASURES)} and the rank to cut at, "
            "e.g. ndcg@10."
        )
    return measure, int(cutoff)


def nearest(
    queries_QD: Vectors, documents_ND: Vectors, k: int
) -> tuple[npt.NDArray[np.int64], Vectors]:
    """Find each query's ``k`` documents of highest inner product, exactly, in bounded memory.

    Ties are broken by the row of the document, lower first. For cosines give :func:`unit` vectors.
    ``documents_ND`` may be memory-mapped; it is read in blocks.

    Returns:
        (rows ``int64 [Q, min(k, N)]`` best first, similarities ``float32`` of the same shape).

    Raises:
        InputError: The sides have different widths, there is no document, or a similarity is no
            number.
    """
    _check_sides(queries_QD, documents_ND, k)
    k = min(k, len(documents_ND))
    blocks = [
        _nearest_keys(queries_QD[start : start + _QUERIES_A_BLOCK], documents_ND, k)
        for start in range(0, len(queries_QD), _QUERIES_A_BLOCK)
    ]
    keys_QK = np.concatenate(blocks) if blocks else np.empty((0, k), np.uint64)
    return _unpack(keys_QK)


def unit(vectors_ND: Vectors) -> Vectors:
    """Return vectors of length 1; zeros stay zeros."""
    norms = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    scaled: Vectors = vectors_ND / np.maximum(norms, np.float32(1e-12))
    return scaled


def cosine_similarities(a: npt.ArrayLike, b: npt.ArrayLike) -> Vectors:
    """Return cosine similarities ``float32 [len(a), len(b)]`` of two sets of vectors.

    Raises:
        InputError: The sets are not two matrices of the same width.
    """
    try:
        left, right = (np.asarray(x, dtype=np.float32) for x in (a, b))
    except ValueError as error:
        raise InputError(f"similarity takes two sets of vectors, [n, d]: {error}") from error
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[1]:
        raise InputError(
            f"similarity takes two sets of vectors of one length, [n, d] and [m, d]; given: "
            f"{list(left.shape)} and {list(right.shape)}."
        )
    return unit(left) @ unit(right).T


class Fidelity(NamedTuple):
    """How near vectors are to those of the same texts made another way."""

    mean: float
    """Cosine to the reference, mean over texts."""
    lowest: float
    """The lowest of them."""
    kept: float
    """Share of texts whose nearest neighbour among the others is the one it was."""


def fidelity(vectors_ND: Vectors, reference_ND: Vectors) -> Fidelity:
    """Compare vectors with a reference, row by row; norms do not matter.

    Takes memory for ``N x N`` similarities twice: for thousands of texts, not for millions.
    """
    ours, theirs = (_unit64(side) for side in (vectors_ND, reference_ND))
    cosines = (ours * theirs).sum(axis=1).clip(max=1)
    kept = float(np.mean(_neighbours(ours) == _neighbours(theirs)))
    return Fidelity(float(cosines.mean()), float(cosines.min()), kept)


def _unit64(vectors_ND: Vectors) -> Floats:
    wide = vectors_ND.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    scaled: Floats = wide / np.where(norms > 0, norms, 1)
    return scaled


def _neighbours(unit_ND: Floats) -> npt.NDArray[np.intp]:
    scores = unit_ND @ unit_ND.T
    np.fill_diagonal(scores, -np.inf)
    nearest_N: npt.NDArray[np.intp] = scores.argmax(axis=1)
    return nearest_N


class Interval(NamedTuple):
    """A mean and the interval that it probably lies in."""

    mean: float
    low: float
    high: float


def bootstrap_interval(
    values: npt.ArrayLike, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Return the mean over queries and its percentile bootstrap interval (Efron 1979).

    Queries are drawn with replacement; the same seed gives the same interval. For the difference
    of two models give the differences per query: that is the paired bootstrap.

    Raises:
        InputError: There is no value.
    """
    scores = _values(values)
    draw, step = np.random.default_rng(seed), max(1, _DRAWS_A_BLOCK // len(scores))
    sizes = [min(step, resamples - done) for done in range(0, resamples, step)]
    drawn = (draw.integers(0, len(scores), (size, len(scores))) for size in sizes)
    means = np.concatenate([scores[rows].mean(axis=1) for rows in drawn])
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(scores.mean()), float(low), float(high))


def permutation_test(
    a: npt.ArrayLike, b: npt.ArrayLike, rounds: int = 10_000, seed: int = 0
) -> float:
    """Return the two-sided p-value of a paired randomization test: do the means differ?

    Signs of the differences are flipped at random (Fisher's test; Smucker, Allan & Carterette 2007
    recommend it for retrieval). Where there are no more than ``rounds`` ways to flip them, all are
    tried and p is exact; otherwise p is (1 + extreme rounds) / (1 + rounds).

    Raises:
        InputError: The two have different lengths, or no values.
    """
    left, right = _values(a), _values(b)
    if len(left) != len(right):
        raise InputError(f"A paired test takes pairs; given: {len(left)} and {len(right)} values.")
    differences = (right - left)[right != left]
    if not len(differences):
        return 1.0
    if len(differences) < 32 and 2 ** len(differences) <= rounds:
        return _extreme(differences, _every_sign(len(differences)))
    draw, step = np.random.default_rng(seed), max(1, _DRAWS_A_BLOCK // len(differences))
    sizes = [min(step, rounds - done) for done in range(0, rounds, step)]
    shares = [
        size * _extreme(differences, draw.choice([-1.0, 1.0], (size, len(differences))))
        for size in sizes
    ]
    return (1 + round(sum(shares))) / (1 + rounds)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for having made several comparisons (Holm 1979), in the order given."""
    order, corrected, highest = np.argsort(p_values, kind="stable"), [0.0] * len(p_values), 0.0
    for rank, position in enumerate(order):
        highest = max(highest, min(1.0, p_values[position] * (len(p_values) - rank)))
        corrected[position] = highest
    return corrected


def _gains(ranking: Ranking, relevance: Relevance, k: int | None) -> Floats:
    return np.array([max(0, relevance.get(document, 0)) for document in ranking[:k]], float)


def _discounted(gains: Floats) -> float:
    return float(np.sum(gains / np.log2(np.arange(2, len(gains) + 2))))


def _relevant(relevance: Relevance) -> int:
    return sum(grade > 0 for grade in relevance.values())


def _ratio(part: float, whole: int) -> float:
    return part / whole if whole else 0.0


def _check_sides(queries_QD: Vectors, documents_ND: Vectors, k: int) -> None:
    shapes = (queries_QD.shape, documents_ND.shape)
    if any(len(shape) != 2 for shape in shapes) or shapes[0][1] != shapes[1][1]:
        raise InputError(f"Queries [q, d] and documents [n, d] of one width are needed: {shapes}.")
    if not len(documents_ND):
        raise InputError("There is no document to find.")
    if k < 1:
        raise InputError(f"k is {k}; it must be at least 1.")


def _nearest_keys(queries_QD: Vectors, documents_ND: Vectors, k: int) -> npt.NDArray[np.uint64]:
    best_QK = np.empty((len(queries_QD), 0), np.uint64)
    for start in range(0, len(documents_ND), _DOCUMENTS_A_BLOCK):
        block_ND = np.asarray(documents_ND[start : start + _DOCUMENTS_A_BLOCK], np.float32)
        keys = _pack(queries_QD @ block_ND.T, start)
        keys = np.concatenate([best_QK, keys], axis=1)
        kept = keys.shape[1] - min(k, keys.shape[1])
        best_QK = np.partition(keys, kept, axis=1)[:, kept:]
    return np.sort(best_QK, axis=1)[:, ::-1]


def _pack(scores: Vectors, first_row: int) -> npt.NDArray[np.uint64]:
    """Make one integer of a similarity and a row: a larger one is nearer, or as near and earlier.

    A float32's bits sort like its value once the sign bit is flipped, or all bits of a negative.
    """
    if not np.isfinite(scores).all():
        raise InputError("A similarity is no number: a vector has NaN or infinity in it.")
    bits = (scores + np.float32(0)).view(np.uint32)  # adding 0 makes -0 a 0
    negative = bits >> np.uint32(31) != 0
    ordered = np.where(negative, ~bits, bits | np.uint32(2**31)).astype(np.uint64)
    rows = np.arange(first_row, first_row + scores.shape[1], dtype=np.uint64)
    return (ordered << np.uint64(32)) | (np.uint64(2**32 - 1) - rows)


def _unpack(keys: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.int64], Vectors]:
    rows = np.uint64(2**32 - 1) - (keys & np.uint64(2**32 - 1))
    ordered = (keys >> np.uint64(32)).astype(np.uint32)
    bits = np.where(ordered >> np.uint32(31) != 0, ordered & np.uint32(2**31 - 1), ~ordered)
    return rows.astype(np.int64), bits.view(np.float32)


def _values(values: npt.ArrayLike) -> Floats:
    scores = np.asarray(values, np.float64)
    if scores.ndim != 1 or not len(scores):
        raise InputError(f"A list of at least one value is needed; given: shape {scores.shape}.")
    return scores


def _extreme(differences: Floats, signs: Floats) -> float:
    """Return the share of flips whose sum is at least as far from 0 as the one observed."""
    observed = abs(differences.sum())
    slack = 1e-12 * np.abs(differences).sum()  # sums in another order round otherwise
    return float(np.mean(np.abs(signs @ differences) >= observed - slack))


def _every_sign(count: int) -> Floats:
    numbers = np.arange(2**count)[:, None] >> np.arange(count)
    signs: Floats = np.where(numbers & 1, 1.0, -1.0)
    return signs
