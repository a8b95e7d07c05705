"""Is one model better than another, or is it chance?"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from polyvec.errors import InputError
from polyvec.evaluate.results import ModelResult
from polyvec.metrics import bootstrap_interval, holm, permutation_test


def compare(results: Sequence[ModelResult]) -> dict[str, dict[str, dict[str, Any]]]:
    """Compare every model with the first, query by query.

    Returns:
        For each measure and each further model: the mean ``difference``, the ends ``low`` and
        ``high`` of its paired bootstrap interval, ``p`` of a paired randomization test, and
        ``p_holm``, corrected for the number of models compared.

    Raises:
        InputError: They are not results of the same queries, documents and settings.
    """
    first, *others = results
    for other in others:
        _check_comparable(first, other)
    return {metric: _comparisons(metric, first, others) for metric in first.metrics}


def _comparisons(
    metric: str, first: ModelResult, others: Sequence[ModelResult]
) -> dict[str, dict[str, Any]]:
    seed, resamples = first.settings["seed"], first.settings["resamples"]
    base, rows = np.array(first.values(metric)), {}
    for other in others:
        values = np.array([other.values(metric)]).reshape(-1)
        interval = bootstrap_interval(values - base, resamples=resamples, seed=seed)
        rows[other.model] = {
            "difference": interval.mean,
            "low": interval.low,
            "high": interval.high,
            "p": permutation_test(base, values, resamples, seed),
        }
    corrected = holm([row["p"] for row in rows.values()])
    return {m: row | {"p_holm": p} for (m, row), p in zip(rows.items(), corrected, strict=True)}


def _check_comparable(first: ModelResult, other: ModelResult) -> None:
    if first.collection != other.collection or list(first.queries) != list(other.queries):
        raise InputError(
            f"{first.model} was judged on collection {first.collection} ({len(first.queries)} "
            f"queries) and {other.model} on {other.collection} ({len(other.queries)} queries): "
            "only results on the same texts and judgements can be compared."
        )
    if first.metrics != other.metrics:
        raise InputError(
            f"{first.model} was judged by {', '.join(first.metrics)} and {other.model} by "
            f"{', '.join(other.metrics)}. Evaluate them with the same --metric options."
        )
