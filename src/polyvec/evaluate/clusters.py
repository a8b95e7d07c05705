"""Groups of texts that are alike, what they are about, and how well they match known labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from polyvec.errors import InputError
from polyvec.evaluate.learning import sklearn_module
from polyvec.metrics import unit

Vectors = npt.NDArray[np.float32]
Method = Literal["kmeans", "agglomerative", "hdbscan"]

NOISE = -1
_MAX_TRIED = 20
_MAX_JUDGED_TEXTS = 5_000
"""The silhouette compares all pairs; of more texts it is taken of so many, drawn at random."""
_MAX_PAIRED_TEXTS = 20_000
"""Agglomerative clustering keeps every distance in memory: 3 GB for so many."""


@dataclass(frozen=True)
class Clustering:
    """A cluster a text, and what the clusters are like."""

    clusters: list[int]
    """Numbered by size, the largest 0; -1 is a text that belongs to none (HDBSCAN)."""
    sizes: list[int]
    representatives: list[list[int]]
    """For each cluster the texts nearest to its centre, nearest first."""
    silhouette: float | None
    """From -1 to 1, how much nearer texts are to their own cluster; None for a single cluster."""
    agreement: dict[str, float]
    """With known labels: ``v_measure``, ``homogeneity``, ``completeness``, ``adjusted_rand``."""


def cluster_texts(
    vectors_ND: Vectors,
    method: Method = "kmeans",
    *,
    count: int | None = None,
    min_size: int = 5,
    labels: Sequence[str] | None = None,
    shown: int = 3,
    seed: int = 0,
) -> Clustering:
    """Group vectors by cosine.

    Args:
        vectors_ND: One a text.
        method: ``kmeans``; ``agglomerative`` (average linkage); ``hdbscan``, which finds how many
            there are and leaves out what belongs to none.
        count: How many clusters; None takes the number of highest silhouette, up to 20.
        min_size: HDBSCAN's smallest cluster.
        labels: Known labels, one a text, to compare with.
        shown: Representative texts a cluster.
        seed: Of k-means' beginnings and of what is drawn.

    Raises:
        InputError: There are too few texts, or the options contradict each other.
        MissingExtraError: scikit-learn is not installed.
    """
    _check(len(vectors_ND), method, count, min_size, labels)
    scaled = unit(vectors_ND)
    if method == "hdbscan":
        found = _hdbscan(scaled, min_size)
    elif count is not None:
        found = _divided(scaled, method, count, seed)
    else:
        found = _best_divided(scaled, method, seed)
    return _described(scaled, _by_size(found), labels, shown, seed)


def _check(
    texts: int, method: Method, count: int | None, min_size: int, labels: Sequence[str] | None
) -> None:
    if texts < 3:
        raise InputError(f"{texts} texts cannot be grouped; at least 3 are needed.")
    if method == "hdbscan" and count is not None:
        raise InputError("hdbscan finds the number of clusters itself: leave --clusters out.")
    if count is not None and not 2 <= count < texts:
        raise InputError(f"--clusters is {count}; with {texts} texts it is 2 to {texts - 1}.")
    if method == "hdbscan" and not 2 <= min_size <= texts:
        raise InputError(f"--min-size is {min_size}; with {texts} texts it is 2 to {texts}.")
    if method == "agglomerative" and texts > _MAX_PAIRED_TEXTS:
        raise InputError(
            f"agglomerative compares all pairs, at most {_MAX_PAIRED_TEXTS:,} texts; given: "
            f"{texts:,}. Take --method kmeans."
        )
    if labels is not None and len(labels) != texts:
        raise InputError(f"{texts} texts have {len(labels)} labels; one each is needed.")


def _divided(scaled: Vectors, method: Method, count: int, seed: int) -> npt.NDArray[np.int64]:
    kinds = sklearn_module("cluster")
    if method == "kmeans":
        model = kinds.KMeans(count, n_init=4, random_state=seed)
    else:
        model = kinds.AgglomerativeClustering(count, metric="cosine", linkage="average")
    return np.asarray(model.fit_predict(scaled), np.int64)


def _best_divided(scaled: Vectors, method: Method, seed: int) -> npt.NDArray[np.int64]:
    tried = [
        _divided(scaled, method, count, seed)
        for count in range(2, min(_MAX_TRIED, len(scaled) - 1) + 1)
    ]
    silhouettes = [_silhouette(scaled, found, seed) for found in tried]
    return tried[int(np.argmax([-1.0 if s is None else s for s in silhouettes]))]


def _hdbscan(scaled: Vectors, min_size: int) -> npt.NDArray[np.int64]:
    """Euclidean distance of unit vectors orders pairs as their cosine does."""
    model = sklearn_module("cluster").HDBSCAN(min_cluster_size=min_size, copy=True)
    return np.asarray(model.fit_predict(scaled), np.int64)


def _by_size(found: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    names, sizes = np.unique(found[found != NOISE], return_counts=True)
    order = names[np.argsort(-sizes, kind="stable")]
    numbers = {int(name): number for number, name in enumerate(order)} | {NOISE: NOISE}
    return np.array([numbers[int(cluster)] for cluster in found], np.int64)


def _described(
    scaled: Vectors,
    found: npt.NDArray[np.int64],
    labels: Sequence[str] | None,
    shown: int,
    seed: int,
) -> Clustering:
    clusters = range(found.max() + 1)
    members = [np.flatnonzero(found == cluster) for cluster in clusters]
    centres = [scaled[rows].mean(axis=0) for rows in members]
    nearest = [
        rows[np.argsort(-(scaled[rows] @ centre), kind="stable")[:shown]].tolist()
        for rows, centre in zip(members, centres, strict=True)
    ]
    return Clustering(
        found.tolist(),
        [len(rows) for rows in members],
        nearest,
        _silhouette(scaled, found, seed),
        {} if labels is None else _agreement(found, labels),
    )


def _silhouette(scaled: Vectors, found: npt.NDArray[np.int64], seed: int) -> float | None:
    kept = np.flatnonzero(found != NOISE)
    if len(kept) > _MAX_JUDGED_TEXTS:
        kept = np.random.default_rng(seed).choice(kept, _MAX_JUDGED_TEXTS, replace=False)
    if not 2 <= len(np.unique(found[kept])) < len(kept):
        return None
    metrics: Any = sklearn_module("metrics")
    return float(metrics.silhouette_score(scaled[kept], found[kept], metric="cosine"))


def _agreement(found: npt.NDArray[np.int64], labels: Sequence[str]) -> dict[str, float]:
    """Compare with labels; texts without a cluster count as one cluster more."""
    metrics: Any = sklearn_module("metrics")
    parts = metrics.homogeneity_completeness_v_measure(list(labels), found)
    names = ("homogeneity", "completeness", "v_measure")
    scores = {name: float(score) for name, score in zip(names, parts, strict=True)}
    return scores | {"adjusted_rand": float(metrics.adjusted_rand_score(list(labels), found))}
