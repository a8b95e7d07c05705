"""Texts from files and standard input, a row at a time: lines, JSONL, CSV, TSV, Parquet."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

from polyvec.errors import InputError
from polyvec.records.table import (
    STDIN,
    input_name,
    open_input,
    parquet_columns,
    parquet_module,
    read_lines,
    read_table,
)

Format = Literal["txt", "jsonl", "csv", "tsv", "parquet"]
RowId = str | int

_MAX_COUNTED_BYTES = 2**31
"""Lines of larger files are not counted first: that would take seconds."""


@dataclass(frozen=True)
class Row:
    """One text of an input, and where it was."""

    text: str
    id: RowId
    """The id column's value, or the row's number over all inputs, from 0."""
    where: str
    """For messages: file and line."""
    relevant: RowId | None = None
    """The relevant column's value: the id of the document a query should find."""


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are read."""

    text: str = "text"
    id: str | None = None
    relevant: str | None = None


def read_rows(
    paths: Sequence[Path], columns: Columns, stated_format: Format | None = None
) -> Iterator[Row]:
    """Read the rows of files one after another; ``-`` is standard input.

    Args:
        paths: Files; a ``.gz`` ending is read through gzip.
        columns: Column names for JSONL, CSV, TSV and Parquet.
        stated_format: The format, where a file's ending does not say it. Standard input is
            lines of text unless this says otherwise.

    Raises:
        InputError: A file or a row cannot be read; the message has its line number.
        MissingExtraError: Parquet is read and pyarrow is not installed.
    """
    number = 0
    for path in paths:
        for line, cells in _read(path, columns, _format(path, stated_format)):
            row_id = number if cells.id is None else cells.id
            yield Row(cells.text, row_id, f"{input_name(path)}, line {line}", cells.relevant)
            number += 1


def count_rows(paths: Sequence[Path], stated_format: Format | None = None) -> int | None:
    """Return about how many rows files have, for a progress bar; None where that is not cheap.

    Lines are counted, so a CSV with line ends inside its cells has fewer rows.
    """
    total = 0
    for path in paths:
        if _format(path, stated_format) == "parquet":
            total += parquet_module().read_metadata(path).num_rows
        elif path == STDIN or path.suffix == ".gz" or path.stat().st_size > _MAX_COUNTED_BYTES:
            return None
        else:
            with open_input(path) as file:
                total += sum(block.count(b"\n") for block in iter(lambda: file.read(2**20), b""))
    return total


def check_readable(paths: Sequence[Path], stated_format: Format | None) -> None:
    """Refuse inputs that cannot be opened, before any work is done.

    Raises:
        InputError: A file is missing, unreadable, or of an unknown format.
    """
    for path in paths:
        _format(path, stated_format)
        if path != STDIN:
            with open_input(path):
                pass


class _Cells(NamedTuple):
    text: str
    id: RowId | None = None
    relevant: RowId | None = None


_Lines = Iterator[tuple[int, _Cells]]


def _format(path: Path, stated: Format | None) -> Format:
    if stated is not None:
        return stated
    if path == STDIN:
        return "txt"
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    name = {"ndjson": "jsonl", "text": "txt", "": "txt"}.get(suffix[1:], suffix[1:])
    if name not in get_args(Format):
        raise InputError(
            f"{path}: the ending {suffix!r} does not say a format; state one with --format "
            f"{'|'.join(get_args(Format))}."
        )
    return cast(Format, name)


def _read(path: Path, columns: Columns, kind: Format) -> _Lines:
    """Give the cells of each row, with the number of its line."""
    if kind == "txt":
        for number, line in read_lines(path):
            yield number, _Cells(line.rstrip("\r\n"))
        return
    names = [n for n in (columns.text, columns.id, columns.relevant) if n is not None]
    if kind == "parquet":
        found = parquet_columns(path)
        if missing := [name for name in names if name not in found]:
            raise InputError(_no_column(missing[0], found, input_name(path)))
    unit = "row" if kind == "parquet" else "line"
    for number, record in read_table(path, kind, names):
        yield number, _cells(record, columns, f"{input_name(path)}, {unit} {number}")


def _cells(record: dict[str, Any], columns: Columns, where: str) -> _Cells:
    text = _cell(record, columns.text, where)
    if not isinstance(text, str):
        raise InputError(f"{where}: {columns.text!r} is {text!r:.40}; a string is needed.")
    return _Cells(
        text,
        None if columns.id is None else _id_cell(record, columns.id, where),
        None if columns.relevant is None else _id_cell(record, columns.relevant, where),
    )


def _id_cell(record: dict[str, Any], name: str, where: str) -> RowId:
    value = _cell(record, name, where)
    if not isinstance(value, str | int):
        raise InputError(f"{where}: {name!r} is {value!r:.40}; a string or number is needed.")
    return value


def _cell(record: dict[str, Any], name: str, where: str) -> object:
    if name not in record:
        raise InputError(_no_column(name, list(record), where))
    return record[name]


def _no_column(name: str, names: Sequence[object], where: str) -> str:
    return (
        f"{where} has no column {name!r}. It has: {', '.join(map(str, names))}. State the right "
        "one with --text-column, --id-column or the option that names it."
    )
