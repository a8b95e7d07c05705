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
TASKS = "Tasks"
_MIN_LANGUAGES = 2
"""One language is no map."""


@dataclass
class Row:
    """One model: its scores from 0 to 1 by what was asked, and what it costs."""

    model: str
    by_type: dict[str, float] = field(default_factory=dict)
    """Mean by task type; a person's own question is one too."""
    tasks: dict[str, int] = field(default_factory=dict)
    """Number of tasks in each mean."""
    by_language: dict[str, dict[str, float]] = field(default_factory=dict)
    """Mean by language for each question, and for tasks under ``TASKS``."""
    by_dimension: dict[str, dict[int, float]] = field(default_factory=dict)
    """For each question the scores of vectors cut to fewer numbers, and of whole ones."""
    about: dict[str, Any] = field(default_factory=dict)

    def number(self, name: str) -> float | None:
        """Return a fact as a positive number, or None where it is not known."""
        value = self.about.get(name)
        return float(value) if isinstance(value, int | float) and value > 0 else None


@dataclass(frozen=True)
class Group:
    """Models that were asked the same, so that their scores can be compared."""

    title: str
    types: tuple[str, ...]
    """What each of them has a score for."""
    rows: list[Row]
    """All models, in the order of the legend; those that were asked other things too."""

    def score(self, row: Row) -> float | None:
        """Return a model's mean over the types, None if it was not asked them."""
        if any(kind not in row.by_type for kind in self.types):
            return None
        return float(np.mean([row.by_type[kind] for kind in self.types]))

    def curve(self, row: Row) -> dict[int, float]:
        """Return scores by the numbers kept of a vector."""
        if len(self.types) == 1 and self.types[0] in row.by_dimension:
            return row.by_dimension[self.types[0]]
        score, whole = self.score(row), row.number("dimension")
        return {} if score is None or whole is None else {int(whole): score}


def groups_of(rows: Sequence[Row]) -> list[Group]:
    """Return one group a question, and one of the task types that all models with tasks share."""
    questions = list(dict.fromkeys(kind for row in rows for kind in row.by_dimension))
    groups = [Group(question, (question,), list(rows)) for question in questions]
    judged = [{kind for kind in row.by_type if kind not in questions} for row in rows]
    shared = set.intersection(*asked) if (asked := [kinds for kinds in judged if kinds]) else set()
    if shared:
        title = "Mean of task types" if len(shared) > 1 else next(iter(shared))
        groups.append(Group(title, tuple(sorted(shared)), list(rows)))
    return groups


@dataclass(frozen=True)
class LanguageMap:
    """Scores of models by language, over one question or over tasks."""

    title: str
    models: list[str]
    languages: list[str]
    scores: list[list[float | None]]
    """One row a language, one column a model; None where it was not asked."""


def language_maps(rows: Sequence[Row]) -> list[LanguageMap]:
    """Return a map for each question, and one for tasks; scores of different ones never mix."""
    maps = []
    for title in dict.fromkeys(title for row in rows for title in row.by_language):
        spoken = [row for row in rows if title in row.by_language]
        languages = sorted({x for row in spoken for x in row.by_language[title]})
        if len(languages) >= _MIN_LANGUAGES:
            scores = [[row.by_language[title].get(x) for row in spoken] for x in languages]
            maps.append(LanguageMap(title, [row.model for row in spoken], languages, scores))
    return maps


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
    if result.languages:
        row.by_language[name] = {x: s[metric]["mean"] for x, s in result.languages.items()}
    curve = {int(size): scores[metric] for size, scores in result.dimensions.items()}
    full = result.about.get("dimension")
    row.by_dimension[name] = curve | ({full: row.by_type[name]} if isinstance(full, int) else {})
    row.about |= result.about


def _add_tasks(row: Row, found: TaskResults) -> None:
    for kind, scores in _grouped(found.types, found.scores).items():
        row.by_type[kind], row.tasks[kind] = float(np.mean(scores)), len(scores)
    if found.languages:
        row.by_language[TASKS] = {x: float(np.mean(s)) for x, s in found.languages.items()}
    row.about = found.about | row.about


def _grouped(types: Mapping[str, str], scores: Mapping[str, float]) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {}
    for task in sorted(scores, key=lambda task: (types[task], task)):
        groups.setdefault(types[task], []).append(scores[task])
    return groups
