"""How well a model finds the positives of records it was not trained on: nDCG@10."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from polyvec.engine.embedder import Embedder, Vectors
from polyvec.errors import InputError
from polyvec.metrics import nearest, run_metrics, unit
from polyvec.records.read import read_records
from polyvec.records.record import SYMMETRIC, Record, Task
from polyvec.records.write import record_line
from polyvec.spec import INSTRUCTION_SLOT, Role, Spec

_K = 10


@dataclass(frozen=True)
class _Group:
    """Records of one task, instruction and source: their queries search their texts."""

    task: Task
    instruction: str | None
    queries: tuple[str, ...]
    relevance: tuple[frozenset[str], ...]
    """Each query's positives."""
    texts: tuple[str, ...]
    """Every positive and negative of the group, once."""


@dataclass(frozen=True)
class HeldOut:
    """Records to judge models by. Make one with :func:`read_held_out`."""

    groups: tuple[_Group, ...]
    fingerprint: str
    """A hash of the records."""

    @property
    def num_queries(self) -> int:
        """Queries in all groups."""
        return sum(len(group.queries) for group in self.groups)

    def score(self, embedder: Embedder) -> float:
        """Return nDCG@10: the mean over groups of the mean over their queries.

        A model whose query prompt is fixed is not told the records' instructions.
        """
        return float(np.mean([_score(group, embedder) for group in self.groups]))


def read_held_out(paths: Sequence[Path]) -> HeldOut:
    """Read records; those of one task, instruction and source are one collection.

    Raises:
        InputError: A file cannot be read, or a collection has nothing to choose between.
    """
    digest = hashlib.sha256()
    grouped: dict[tuple[Task, str | None, str], list[Record]] = {}
    for path in paths:
        for record in read_records(path):
            digest.update(record_line(record))
            key = (record.task, record.task_instruction, record.source)
            grouped.setdefault(key, []).append(record)
    groups = [_group(task, told, records) for (task, told, _), records in grouped.items()]
    if not groups or any(len(group.texts) < 2 for group in groups):
        raise InputError(
            f"{', '.join(map(str, paths))}: every source of held-out records needs two different "
            "texts at least, else every model finds the right one."
        )
    return HeldOut(tuple(groups), digest.hexdigest()[:16])


def _group(task: Task, instruction: str | None, records: Iterable[Record]) -> _Group:
    relevant: dict[str, set[str]] = {}
    texts: dict[str, None] = {}
    for record in records:
        relevant.setdefault(record.query, set()).update(record.positives)
        texts |= dict.fromkeys((*record.positives, *record.negatives))
    relevance = tuple(frozenset(positives) for positives in relevant.values())
    return _Group(task, instruction, tuple(relevant), relevance, tuple(texts))


def _score(group: _Group, embedder: Embedder) -> float:
    told = group.instruction if _takes_instructions(embedder.spec) else None
    queries_QD = _embed(embedder, group.queries, "query", told)
    symmetric = group.task in SYMMETRIC
    texts_ND = _embed(embedder, group.texts, "query" if symmetric else "document", told)
    rows_QK, _ = nearest(queries_QD, texts_ND, _K)
    rankings = {str(n): [str(row) for row in rows] for n, rows in enumerate(rows_QK.tolist())}
    places = {text: str(row) for row, text in enumerate(group.texts)}
    qrels = {
        str(n): {places[text]: 1 for text in positives}
        for n, positives in enumerate(group.relevance)
    }
    return float(run_metrics(rankings, qrels)["ndcg@10"].mean())


def _embed(embedder: Embedder, texts: Sequence[str], role: Role, told: str | None) -> Vectors:
    return unit(embedder.embed(texts, role, told if role == "query" else None).vectors)


def _takes_instructions(spec: Spec) -> bool:
    return not spec.query_prefix or INSTRUCTION_SLOT in spec.query_prefix
