"""A row of a table, whatever its columns are called, as a record."""

import difflib
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from polyvec.errors import InputError
from polyvec.records.record import Record, Task

QUERY = ("query", "anchor", "question", "sentence1")
POSITIVE = ("positives", "positive", "pos", "pos_doc", "positive_passages", "answer", "sentence2")
NEGATIVE = ("negatives", "negative", "neg", "neg_doc", "negative_passages")
LABEL = ("label_text", "label")
QUERY_ID = ("query_id", "question_id", "qid")
_OTHER = ("task", "instruction", "source", "positive_ids", "negative_ids", "text", "score")
_KNOWN = (*QUERY, *POSITIVE, *NEGATIVE, *LABEL, *QUERY_ID, *_OTHER)
_NUMBERED_NEGATIVE = re.compile(r"(?:hard_)?neg(?:ative)?_?\d+")
_ID, _TYPO_LIKENESS = ("id", "docid", "doc_id", "_id"), 0.85


@dataclass(frozen=True)
class Columns:
    """How the columns of a file are called, where it is not one of the names known.

    Known are polyvec's own, sentence-transformers' (anchor, positive, negative, negative_1, ...),
    FlagEmbedding's (query, pos, neg), Tevatron's (positive_passages, ...) and Automodel's
    (question, pos_doc, neg_doc).
    """

    query: str | None = None
    positive: str | None = None
    negatives: tuple[str, ...] = ()
    label: str | None = None
    """Makes the rows classification: this column's value is the positive."""
    query_id: str | None = None
    score: str | None = None
    """How alike a pair is; pairs under ``min_score`` are left out."""
    min_score: float | None = None
    task: Task | None = None
    """The task of rows that do not say theirs."""
    instruction: str | None = None
    """The instruction of rows that have none."""
    source: str | None = None
    """The source of rows that do not say theirs; else the file's name without its ending."""


@dataclass
class RowReader:
    """Turns the rows of one file into records."""

    columns: Columns
    source: str
    labels: tuple[str, ...] = ()
    """Every label of the file, sorted, for classification."""
    _checked: set[tuple[str, ...]] = field(default_factory=set)

    def record(self, row: Mapping[str, Any]) -> Record | None:
        """Return a row's record; None for a pair whose score is under the least wanted.

        Raises:
            InputError: The row has no query or positive, or values of another kind.
        """
        self._check_names(row)
        label = self.label_column(row)
        if label is not None:
            return self._classification(row, label)
        if self._too_unlike(row):
            return None
        query_name = self._name(row, self.columns.query, QUERY, "query")
        positive_name = self._name(row, self.columns.positive, POSITIVE, "positive")
        positives, positive_ids = _texts(row, [positive_name])
        negatives, negative_ids = _texts(row, self._negative_names(row))
        return Record(
            _text(row, query_name),
            positives,
            negatives,
            self._task(row, "sts" if query_name == "sentence1" else "retrieval"),
            **self._facts(row),
            positive_ids=_strings(row, "positive_ids") or positive_ids,
            negative_ids=_strings(row, "negative_ids") or negative_ids,
        )

    def label_column(self, row: Mapping[str, Any]) -> str | None:
        """Return the name of the column that holds a row's label, if it is classification."""
        if self.columns.label is not None:
            return self._name(row, self.columns.label, (), "label")
        if self.columns.positive or any(name in row for name in POSITIVE):
            return None
        return next((name for name in LABEL if name in row), None)

    def _classification(self, row: Mapping[str, Any], label: str) -> Record:
        own = label_text(row, label)
        query = _text(row, self._name(row, self.columns.query, ("text", *QUERY), "query"))
        task = self._task(row, "classification")
        return Record(query, (own,), self._others(own, query), task, **self._facts(row))

    def _others(self, own: str, query: str) -> tuple[str, ...]:
        """Return the other labels in an order of the text's own, the same in every reading.

        Training takes the first few: in one order for all, it would never show the other labels.
        """
        others = [name for name in self.labels if name != own]
        random.Random(query).shuffle(others)  # noqa: S311 (no secret)
        return tuple(others)

    def _facts(self, row: Mapping[str, Any]) -> dict[str, Any]:
        named = self.columns.query_id
        name = named or next((name for name in QUERY_ID if name in row), None)
        if named is not None and named not in row:
            raise _no_column(row, named, "query id")
        query_id = None if name is None else row[name]
        return {
            "instruction": _optional(row, "instruction") or self.columns.instruction,
            "source": _optional(row, "source") or self.columns.source or self.source,
            "query_id": None if query_id is None else str(query_id),
        }

    def _task(self, row: Mapping[str, Any], usual: Task) -> Task:
        return cast(Task, _optional(row, "task") or self.columns.task or usual)

    def _negative_names(self, row: Mapping[str, Any]) -> list[str]:
        missing = [name for name in self.columns.negatives if name not in row]
        if missing:
            raise _no_column(row, missing[0], "negative")
        if self.columns.negatives:
            return list(self.columns.negatives)
        return [name for name in row if name in NEGATIVE or _NUMBERED_NEGATIVE.fullmatch(name)]

    def _too_unlike(self, row: Mapping[str, Any]) -> bool:
        name = self.columns.score or ("score" if "score" in row else None)
        if name is None:
            return False
        if self.columns.min_score is None:
            raise InputError(
                f"there is a column {name!r}, and it was not said from which score on a pair is a "
                "positive one. State it with --min-score, or in a recipe as columns = {min_score = "
                "...}, or remove the column."
            )
        try:
            return float(row[name]) < self.columns.min_score
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{name!r} is {row.get(name)!r:.40}; a number is needed.") from None

    @staticmethod
    def _name(row: Mapping[str, Any], stated: str | None, known: Sequence[str], what: str) -> str:
        if stated is not None:
            if stated not in row:
                raise _no_column(row, stated, what)
            return stated
        name = next((name for name in known if name in row), None)
        if name is None:
            raise InputError(
                f"there is no {what} column. The row has: {', '.join(row)}. Known names: "
                f"{', '.join(known)}; state another with --{what}-column, or in a recipe as "
                f'columns = {{{what} = "..."}}.'
            )
        return name

    def _check_names(self, row: Mapping[str, Any]) -> None:
        """Refuse a name that is nearly a known one: it would be passed over in silence."""
        names = tuple(row)
        if names in self._checked:
            return
        stated = {*self.columns.negatives, *vars(self.columns).values()}
        for name in names:
            if name in _KNOWN or name in stated or _NUMBERED_NEGATIVE.fullmatch(name):
                continue
            near = difflib.get_close_matches(name, _KNOWN, n=1, cutoff=_TYPO_LIKENESS)
            if near and near[0] not in row:
                raise InputError(f"there is a column {name!r}; did you mean {near[0]!r}?")
        self._checked.add(names)


def label_text(row: Mapping[str, Any], name: str) -> str:
    """Return a row's label.

    Raises:
        InputError: It is a number, which says nothing to a model that reads texts.
    """
    value = row.get(name)
    if isinstance(value, int | float) or (isinstance(value, str) and value.strip().isdigit()):
        raise InputError(
            f"the label {name!r} is the number {value}; its name in words is needed, because the "
            "model reads it. State the column that has names with --label-column."
        )
    return _text(row, name)


def unread_columns(names: Iterable[str], columns: Columns) -> list[str]:
    """Return the columns of a row that no record takes anything from."""
    stated = {*columns.negatives, *vars(columns).values()}
    return [
        name
        for name in names
        if name not in _KNOWN and name not in stated and not _NUMBERED_NEGATIVE.fullmatch(name)
    ]


def _no_column(row: Mapping[str, Any], name: str, what: str) -> InputError:
    return InputError(
        f"there is no column {name!r} for the {what}. The row has: {', '.join(map(str, row))}."
    )


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    if not isinstance(value, str):
        raise InputError(f"{name!r} is {value!r:.40}; a string is needed.")
    return value


def _optional(row: Mapping[str, Any], name: str) -> str | None:
    if row.get(name) in (None, ""):
        return None
    return _text(row, name)


def _strings(row: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = row.get(name)
    if values is None:
        return ()
    if not isinstance(values, list) or not all(isinstance(v, str | int) for v in values):
        raise InputError(f"{name!r} is {values!r:.40}; a list of strings is needed.")
    return tuple(map(str, values))


def _texts(row: Mapping[str, Any], names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the texts of columns and their ids, the latter empty unless every text has one."""
    texts: list[str] = []
    ids: list[str] = []
    for name in names:
        value = row[name]
        if value in (None, ""):  # a table's row with fewer negatives than there are columns
            continue
        for item in value if isinstance(value, list) else [value]:
            text, text_id = _document(item, name)
            texts.append(text)
            ids += [] if text_id is None else [text_id]
    return tuple(texts), tuple(ids) if len(ids) == len(texts) else ()


def _document(item: object, name: str) -> tuple[str, str | None]:
    if isinstance(item, str):
        return item, None
    if isinstance(item, dict) and isinstance(item.get("text"), str):
        text_id = next((item[key] for key in _ID if key in item), None)
        words = " ".join(part for part in (item.get("title"), item["text"]) if part)
        return words, None if text_id is None else str(text_id)
    if isinstance(item, dict) and any(key in item for key in _ID):
        raise InputError(
            f"{name!r} has an id and no text; the corpus it is from is needed. Read the .json file "
            "or folder that names the corpus."
        )
    raise InputError(f"{name!r} has {item!r:.40}; strings, or objects with a text, are needed.")
