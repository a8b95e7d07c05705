"""What a report shows of each model, from results of every kind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from polyvec.evaluate.results import ModelResult
from polyvec.evaluate.task_results import TaskResults

COSTS = (
    ("parameters", "Size", "parameters"),
    ("size_bytes", "Bytes", "bytes of the weight files"),
    ("texts_per_s", "Speed", "texts embedded a second"),
)
"""Facts about models that quality is drawn against: name, title, words."""
PRECISIONS = ("fp32", "bf16", "int8")


@dataclass
class Row:
    """One model: its scores from 0 to 1 by what was asked, and what it costs."""

    model: str
    by_type: dict[str, float] = field(default_factory=dict)
    """Mean by task type; a person's own question is one too."""
    tasks: dict[str, int] = field(default_factory=dict)
    """Number of tasks in each mean."""
    by_language: dict[str, float] = field(default_factory=dict)
    by_dimension: dict[int, float] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def quality(self) -> float:
        """Return the mean over types."""
        return float(np.mean(list(self.by_type.values())))

    def number(self, name: str) -> float | None:
        """Return a fact as a positive number, or None where it is not known."""
        value = self.about.get(name)
        return float(value) if isinstance(value, int | float) and value > 0 else None


def rows_of(results: Sequence[ModelResult], tasks: Sequence[TaskResults] = ()) -> list[Row]:
    """Return a row a model, in the order given; results of one model name share a row."""
    rows: dict[str, Row] = {}
    names = question_names(results)
    for result in results:
        row = rows.setdefault(result.model, Row(result.model))
        _add_question(row, result, names[result.collection])
    for found in tasks:
        row = rows.setdefault(found.model, Row(found.model))
        _add_tasks(row, found)
    return list(rows.values())


def question_names(results: Sequence[ModelResult]) -> dict[str, str]:
    """Return what each collection is called: by its measure, and if there are several its hash."""
    collections = dict.fromkeys(result.collection for result in results)
    measures = {result.collection: result.metrics[0] for result in results}
    if len(collections) == 1:
        return {c: f"Your question ({measures[c]})" for c in collections}
    return {c: f"Collection {c[:6]} ({measures[c]})" for c in collections}


def _add_question(row: Row, result: ModelResult, name: str) -> None:
    metric = result.metrics[0]
    row.by_type[name], row.tasks[name] = result.scores[metric]["mean"], 1
    for language, scores in result.languages.items():
        row.by_language.setdefault(language, scores[metric]["mean"])
    row.by_dimension |= {int(size): scores[metric] for size, scores in result.dimensions.items()}
    full = result.about.get("dimension")
    if isinstance(full, int):
        row.by_dimension[full] = result.scores[metric]["mean"]
    row.about |= result.about


def _add_tasks(row: Row, found: TaskResults) -> None:
    for kind, scores in _grouped(found.types, found.scores).items():
        row.by_type[kind], row.tasks[kind] = float(np.mean(scores)), len(scores)
    for language, scores in found.languages.items():
        row.by_language.setdefault(language, float(np.mean(scores)))
    row.about = found.about | row.about


def _grouped(types: Mapping[str, str], scores: Mapping[str, float]) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {}
    for task in sorted(scores, key=lambda task: (types[task], task)):
        groups.setdefault(types[task], []).append(scores[task])
    return groups
