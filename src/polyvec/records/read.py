"""Records from files of every kind that training data comes in."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyvec.errors import InputError
from polyvec.records.columns import Columns, RowReader, label_text
from polyvec.records.corpus import corpus_records, is_corpus_layout
from polyvec.records.record import Record
from polyvec.records.table import scan_table, table_format

_SHOWN_PROBLEMS = 20


@dataclass(frozen=True)
class Located:
    """A record and the line it stands in."""

    record: Record
    path: Path
    line: int
    """From 1; in Parquet and the corpus-id layout the row."""


@dataclass(frozen=True)
class Problem:
    """A row that is no record, and why."""

    path: Path
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}: {self.message}"


def read_records(path: Path, columns: Columns | None = None) -> Iterator[Record]:
    """Read the records of a file, one at a time.

    Args:
        path: ``.jsonl``, ``.csv``, ``.tsv`` (each also ``.gz``), ``.parquet``, or the corpus-id
            layout: a ``.json`` file or a folder with ``queries.parquet``.
        columns: Column names, where they are none of the usual ones, and what rows do not say;
            none for the corpus-id layout.

    Raises:
        InputError: The file or a row cannot be used; the message has file and line.
        MissingExtraError: Parquet is read and pyarrow is not installed.
    """
    for item in scan_records(path, columns):
        if isinstance(item, Problem):
            raise InputError(str(item))
        yield item.record


def scan_records(path: Path, columns: Columns | None = None) -> Iterator[Located | Problem]:
    """Read a file like :func:`read_records`, giving rows that are no records as problems.

    Raises:
        InputError: The file as a whole cannot be read, from some line on.
    """
    if is_corpus_layout(path):
        _refuse_columns(path, columns or Columns())
        for line, found in corpus_records(path):
            wrong = isinstance(found, InputError)
            yield Problem(path, line, str(found)) if wrong else Located(found, path, line)  # type: ignore[arg-type]
        return
    _check_path(path)
    columns = columns or Columns()
    reader = RowReader(columns, columns.source or _stem(path))
    reader.labels = _labels(path, reader)
    for line, row in scan_table(path):
        item = _located(reader, row, path, line)
        if item is not None:
            yield item


def load_records(paths: Sequence[Path], columns: Columns | None = None) -> list[Record]:
    """Read files whole, and refuse them if any row is no record, before work on them starts.

    Raises:
        InputError: Rows cannot be used; the message lists the first of them with their lines.
    """
    records, problems = [], []
    for path in paths:
        for item in scan_records(path, columns):
            if isinstance(item, Problem):
                problems.append(item)
            else:
                records.append(item.record)
    if problems:
        shown = "\n".join(f"  {problem}" for problem in problems[:_SHOWN_PROBLEMS])
        more = f"\n  and {len(problems) - _SHOWN_PROBLEMS:,} more"
        raise InputError(
            f"{len(problems):,} of {len(problems) + len(records):,} rows cannot be used:\n{shown}"
            f"{more if len(problems) > _SHOWN_PROBLEMS else ''}\n"
            "Mend them or take them out; polyvec data check FILE shows all."
        )
    return records


def _refuse_columns(path: Path, columns: Columns) -> None:
    """Refuse what was stated of columns for a layout that has none: it would be passed over."""
    said = {name: value for name, value in vars(columns).items() if value not in (None, ())}
    stated = ", ".join(f"{name} ({value!r})" for name, value in said.items())
    if stated:
        raise InputError(
            f"{path} is of the corpus-id layout, whose names are fixed and whose corpora say task "
            f"and instruction; what was stated of columns would not be read: {stated}. "
            "Leave it out, or give files of other layouts in a command or [[data]] of their own."
        )


def _check_path(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path} is a folder without queries.parquet; give a file.")
    if table_format(path) is None:
        raise InputError(
            f"{path}: the ending does not say a format of records; known: .jsonl, .csv, .tsv "
            "(each also .gz), .parquet, and .json for the corpus-id layout."
        )


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").rsplit(".", 1)[0]


def _labels(path: Path, reader: RowReader) -> tuple[str, ...]:
    """Read a classification file once for its labels: a record's negatives are all the others."""
    labels: set[str] = set()
    for _, row in scan_table(path):
        if isinstance(row, InputError):
            continue
        try:
            name = reader.label_column(row)
            if name is None:
                return ()
            labels.add(label_text(row, name))
        except InputError:
            continue  # the second reading says which row and why
    return tuple(sorted(labels))


def _located(
    reader: RowReader, row: dict[str, Any] | InputError, path: Path, line: int
) -> Located | Problem | None:
    if isinstance(row, InputError):
        return Problem(path, line, str(row))
    try:
        record = reader.record(row)
    except InputError as error:
        return Problem(path, line, str(error))
    return None if record is None else Located(record, path, line)
