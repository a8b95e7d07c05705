"""Texts from files and standard input, a row at a time: lines, JSONL, CSV, TSV, Parquet."""

import csv
import gzip
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, cast, get_args

import orjson

from polyvec.errors import InputError, MissingExtraError

Format = Literal["txt", "jsonl", "csv", "tsv", "parquet"]
RowId = str | int

STDIN = Path("-")

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
        for line, cells in _READERS[_format(path, stated_format)](path, columns):
            row_id = number if cells.id is None else cells.id
            yield Row(cells.text, row_id, f"{_name(path)}, line {line}", cells.relevant)
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
            with _open(path) as file:
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
            with _open(path):
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


def _name(path: Path) -> str:
    return "standard input" if path == STDIN else str(path)


def _open(path: Path) -> IO[bytes]:
    if path == STDIN:
        return sys.stdin.buffer
    try:
        if path.suffix == ".gz":
            return cast(IO[bytes], gzip.open(path, "rb"))
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Decode a file line by line, line ends kept; a byte-order mark is dropped."""
    with _open(path) as file:
        number = 0
        try:
            for number, raw in enumerate(file, start=1):
                line = raw.decode("utf-8")
                yield number, line.removeprefix("\ufeff") if number == 1 else line
        except UnicodeDecodeError as error:
            raise InputError(
                f"{_name(path)}, line {number} is not UTF-8 (byte {error.object[error.start]:#04x} "
                f"at {error.start}). Convert the file, e.g. with iconv."
            ) from error
        except (EOFError, gzip.BadGzipFile) as error:
            raise InputError(f"{_name(path)}, after line {number}: {error}.") from error


def _read_txt(path: Path, _columns: Columns) -> _Lines:
    for number, line in _lines(path):
        yield number, _Cells(line.rstrip("\r\n"))


def _read_jsonl(path: Path, columns: Columns) -> _Lines:
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise InputError(f"{_name(path)}, line {number} is not JSON ({error}).") from error
        if not isinstance(record, dict):
            raise InputError(
                f"{_name(path)}, line {number} is a JSON {type(record).__name__}; an object with "
                f"a {columns.text!r} field is needed."
            )
        yield number, _cells(record, columns, f"{_name(path)}, line {number}")


def _read_table(path: Path, columns: Columns, delimiter: str) -> _Lines:
    csv.field_size_limit(2**31 - 1)  # the module's own limit refuses texts over 128 KiB
    lines: Iterable[str] = (line for _, line in _lines(path))
    reader = csv.DictReader(lines, delimiter=delimiter, strict=True)
    try:
        for record in reader:
            where = f"{_name(path)}, line {reader.line_num}"
            yield reader.line_num, _cells(record, columns, where)
    except csv.Error as error:
        raise InputError(f"{_name(path)}, line {reader.reader.line_num}: {error}.") from error


def _read_csv(path: Path, columns: Columns) -> _Lines:
    return _read_table(path, columns, ",")


def _read_tsv(path: Path, columns: Columns) -> _Lines:
    return _read_table(path, columns, "\t")


def _read_parquet(path: Path, columns: Columns) -> _Lines:
    parquet = parquet_module()
    from pyarrow.lib import ArrowException

    number = 0
    try:
        file = parquet.ParquetFile(path)
        names = [n for n in (columns.text, columns.id, columns.relevant) if n is not None]
        missing = [name for name in names if name not in file.schema_arrow.names]
        if missing:
            raise InputError(_no_column(missing[0], file.schema_arrow.names, _name(path)))
        for batch in file.iter_batches(batch_size=1024, columns=names):
            for record in batch.to_pylist():
                number += 1
                yield number, _cells(record, columns, f"{_name(path)}, row {number}")
    except (OSError, ArrowException) as error:
        raise InputError(f"{_name(path)}, after row {number}: {error}.") from error


def parquet_module() -> Any:  # noqa: ANN401 (pyarrow is untyped and optional)
    """Return ``pyarrow.parquet``.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(
            "Parquet needs pyarrow, which is not installed: pip install 'polyvec[parquet]'."
        ) from error
    return pyarrow.parquet


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
        "one with --text-column or --id-column."
    )


_READERS: dict[Format, Callable[[Path, Columns], _Lines]] = {
    "txt": _read_txt,
    "jsonl": _read_jsonl,
    "csv": _read_csv,
    "tsv": _read_tsv,
    "parquet": _read_parquet,
}
