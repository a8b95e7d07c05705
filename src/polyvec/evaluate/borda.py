"""Ranks of models over tasks, as MMTEB's board has them.

In the Borda count every task is a voter. With n models, the k-th best of a task earns n - k points,
ties share the mean of their places, a task that a model has not run earns it nothing, and points
are added up. A model's points depend on who else is ranked: with other models in the field two
models may change places, though no score of theirs did.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from polyvec.errors import InputError

Scores = Mapping[str, Mapping[str, float]]
"""Model -> task -> score; the higher the better."""


@dataclass(frozen=True)
class Rank:
    """One model's place."""

    model: str
    place: int
    """From 1, by points; equal points share the better place."""
    points: float
    """Borda's."""
    mean_task: float | None
    """Mean over all tasks; None where one is missing."""
    mean_type: float | None
    """Mean over the means of each type; None where a task is missing."""
    by_type: Mapping[str, float]
    """Mean of the tasks it has run."""
    tasks: int


def rank(scores: Scores, types: Mapping[str, str]) -> list[Rank]:
    """Rank models, best first.

    Args:
        scores: Every model's scores. A task that no model has run does not count.
        types: Every task's type.

    Raises:
        InputError: There is nothing to rank, or a task without a type.
    """
    tasks = sorted({task for found in scores.values() for task in found})
    if not tasks:
        raise InputError("No model has a score, so there is nothing to rank.")
    if unknown := [task for task in tasks if task not in types]:
        raise InputError(f"The type of {', '.join(unknown[:5])} is not known.")
    models = list(scores)
    table_MT = np.array([[scores[m].get(t, np.nan) for t in tasks] for m in models])
    points = borda_points(table_MT)
    ranks = []
    for model, row, earned in zip(models, table_MT, points, strict=True):
        place = int((points > earned + 1e-9).sum()) + 1
        ranks.append(_rank(model, row, float(earned), place, [types[t] for t in tasks]))
    return sorted(ranks, key=lambda x: (x.place, -(x.mean_task or 0.0), x.model))


def _rank(
    model: str, row_T: npt.NDArray[np.float64], points: float, place: int, kinds: list[str]
) -> Rank:
    there = ~np.isnan(row_T)
    by_type = {}
    for kind in sorted(set(kinds)):
        chosen = row_T[there & (np.array(kinds) == kind)]
        if len(chosen):
            by_type[kind] = float(chosen.mean())
    is_whole = bool(there.all())
    mean_task = float(row_T.mean()) if is_whole else None
    mean_type = float(np.mean(list(by_type.values()))) if is_whole else None
    return Rank(model, place, points, mean_task, mean_type, by_type, int(there.sum()))


def borda_points(table_MT: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return each model's points; NaN is a task it has not run.

    Args:
        table_MT: ``[models, tasks]``.

    Returns:
        ``float64 [models]``.
    """
    num_models = len(table_MT)
    higher_MMT = table_MT[None, :, :] > table_MT[:, None, :]
    equal_MMT = table_MT[None, :, :] == table_MT[:, None, :]
    place_MT = higher_MMT.sum(axis=1) + (equal_MMT.sum(axis=1) + 1) / 2
    earned_MT = np.where(np.isnan(table_MT), 0.0, num_models - place_MT)
    points: npt.NDArray[np.float64] = earned_MT.sum(axis=1)
    return points
