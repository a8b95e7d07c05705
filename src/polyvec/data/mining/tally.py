"""What mining did, counted: sums over parts, so that an interrupted run's counts go on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from polyvec.data.mining.choose import Choice, Opinion

BIN_EDGES = np.linspace(-1.0, 1.0, 101)
Counts = npt.NDArray[np.int64]


def _bins() -> Counts:
    return np.zeros(len(BIN_EDGES) - 1, dtype=np.int64)


def _histogram(scores: npt.NDArray[np.float32]) -> Counts:
    clipped = np.clip(scores[np.isfinite(scores)], -1.0, 1.0)
    return np.histogram(clipped, BIN_EDGES)[0].astype(np.int64)


@dataclass
class TeacherTally:
    """One teacher's scores."""

    positives: Counts = field(default_factory=_bins)
    negatives: Counts = field(default_factory=_bins)
    rejected: Counts = field(default_factory=_bins)
    """Of the nearest documents too near the positive, at most 8 a query."""
    rejected_documents: int = 0
    queries_with_rejected: int = 0
    positive_first: int = 0
    """Queries for which no document but its positives is above the positive."""
    positive_in_ten: int = 0
    neighbours_checked: int = 0
    """Of approximate search: the nearest documents that exact search finds for some queries,"""
    neighbours_found: int = 0
    """and how many of them it found."""

    def add(self, opinion: Opinion, choices: Sequence[Choice], teacher: int) -> None:
        """Count a set of queries."""
        found = opinion.found
        self.neighbours_checked += opinion.neighbours_checked
        self.neighbours_found += opinion.neighbours_found
        self.positives += _histogram(opinion.positive_scores_Q)
        self.rejected += _histogram(found.rejected_scores_QK)
        chosen = [choice.scores_TC[teacher] for choice in choices]
        self.negatives += _histogram(np.concatenate(chosen))
        self.rejected_documents += int(found.rejected_Q.sum())
        self.queries_with_rejected += int((found.rejected_Q > 0).sum())
        self.positive_first += int((found.above_Q == 0).sum())
        self.positive_in_ten += int((found.above_Q < 10).sum())


@dataclass
class Tally:
    """All counts of a run."""

    teachers: list[TeacherTally]
    negatives_a_record: Counts
    """How many records have 0, 1, 2, ... negatives."""
    queries: int = 0
    excluded_documents: int = 0
    """Passed over: a positive's text or id, or the query's own text."""
    vetoed: int = 0

    @classmethod
    def empty(cls, teachers: int, count: int) -> "Tally":
        """Return a tally of nothing."""
        return cls([TeacherTally() for _ in range(teachers)], np.zeros(count + 1, np.int64))

    def add(self, opinions: Sequence[Opinion], choices: Sequence[Choice], excluded: int) -> None:
        """Count a set of queries."""
        for number, (teacher, opinion) in enumerate(zip(self.teachers, opinions, strict=True)):
            teacher.add(opinion, choices, number)
        lengths = [len(choice.rows) for choice in choices]
        self.negatives_a_record += np.bincount(lengths, minlength=len(self.negatives_a_record))
        self.queries += len(choices)
        self.excluded_documents += excluded
        self.vetoed += sum(choice.vetoed for choice in choices)

    def facts(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        teachers = [
            {name: _plain(value) for name, value in vars(teacher).items()}
            for teacher in self.teachers
        ]
        own = {name: _plain(value) for name, value in vars(self).items() if name != "teachers"}
        return {"teachers": teachers, **own}

    def add_facts(self, facts: dict[str, Any]) -> None:
        """Add what :meth:`facts` gave of another part."""
        for teacher, other in zip(self.teachers, facts["teachers"], strict=True):
            _add(teacher, other)
        _add(self, {name: value for name, value in facts.items() if name != "teachers"})


def _plain(value: Any) -> Any:  # noqa: ANN401 (a number or counts)
    return value.tolist() if isinstance(value, np.ndarray) else value


def _add(tally: Tally | TeacherTally, facts: dict[str, Any]) -> None:
    for name, value in facts.items():
        own = getattr(tally, name)
        setattr(tally, name, own + (np.asarray(value) if isinstance(value, list) else value))
