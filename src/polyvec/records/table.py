"""Rows of JSONL, CSV, TSV and Parquet files, each with the number of its line.

Records, corpora and texts to embed are all read through here; ``-`` is standard input.
"""

import csv
import gzip
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

import orjson

from polyvec.errors import InputError, MissingExtraError

Rows = Iterator[tuple[int, dict[str, Any]]]
"""(line or row number from 1, column -> value)."""

STDIN = Path("-")

_BATCH_ROWS = 1_024


def table_format(path: Path) -> str | None:
    """Return ``jsonl``, ``csv``, ``tsv`` or ``parquet`` by a path's ending; None for another."""
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    name = {".ndjson": "jsonl"}.get(suffix, suffix[1:])
    return name if name == "parquet" or name in _READERS else None


def read_table(path: Path, stated: str | None = None, columns: Sequence[str] | None = None) -> Rows:
    """Read the rows of a table; ``.gz`` is read through gzip.

    Args:
        path: A file, or ``-`` for standard input.
        stated: The format, where the path's ending does not say it.
        columns: Of Parquet, which stores them apart: read only these. All of them must be there.

    Raises:
        InputError: The file or a row cannot be read; the message has the line's number.
        MissingExtraError: Parquet is read and pyarrow is not installed.
    """
    name = stated or table_format(path)
    if name is None:
        raise InputError(
            f"{path}: the ending does not say a format; known: .jsonl, .csv, .tsv (each also .gz) "
            "and .parquet."
        )
    if name == "parquet":
        return _read_parquet(path, columns)
    return _READERS[name](path)


def input_name(path: Path) -> str:
    """Return what messages call an input."""
    return "standard input" if path == STDIN else str(path)


def open_input(path: Path) -> IO[bytes]:
    """Open a file, through gzip if it ends so, or standard input.

    Raises:
        InputError: It cannot be opened.
    """
    if path == STDIN:
        return sys.stdin.buffer
    try:
        if path.suffix == ".gz":
            return cast(IO[bytes], gzip.open(path, "rb"))
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Decode a file line by line, line ends kept; a byte-order mark is dropped.

    Raises:
        InputError: It cannot be read, or a line is not UTF-8; the message has its number.
    """
    with open_input(path) as file:
        number = 0
        try:
            for number, raw in enumerate(file, start=1):
                line = raw.decode("utf-8")
                yield number, line.removeprefix("\ufeff") if number == 1 else line
        except UnicodeDecodeError as error:
            raise InputError(
                f"{input_name(path)}, line {number} is not UTF-8 (byte "
                f"{error.object[error.start]:#04x} at {error.start}). Convert the file, e.g. with "
                "iconv."
            ) from error
        except (EOFError, gzip.BadGzipFile) as error:
            raise InputError(f"{input_name(path)}, after line {number}: {error}.") from error


def scan_table(path: Path) -> Iterator[tuple[int, dict[str, Any] | InputError]]:
    """Read like :func:`read_table`, but give a JSONL line that is no object as an error.

    Of the other formats a broken row leaves open where the next one begins, and is raised.
    """
    return _scan_jsonl(path) if table_format(path) == "jsonl" else read_table(path)


def _scan_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any] | InputError]]:
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            yield number, InputError(f"not JSON ({error}).")
            continue
        is_object = isinstance(row, dict)
        kind = type(row).__name__
        yield number, row if is_object else InputError(f"a JSON {kind}; an object is needed.")


def _read_jsonl(path: Path) -> Rows:
    for number, row in _scan_jsonl(path):
        if isinstance(row, InputError):
            raise InputError(f"{input_name(path)}, line {number} is {row}")
        yield number, row


def _read_separated(path: Path, delimiter: str) -> Rows:
    csv.field_size_limit(2**31 - 1)  # the module's own limit refuses texts over 128 KiB
    lines: Iterable[str] = (line for _, line in read_lines(path))
    reader = csv.DictReader(lines, delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if None in row:
                raise InputError(
                    f"{input_name(path)}, line {reader.line_num} has more cells than the "
                    f"{len(reader.fieldnames or [])} of the heading; put texts with a "
                    f"{delimiter!r} in quotes."
                )
            yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"{input_name(path)}, line {reader.reader.line_num}: {error}.") from error


def _read_csv(path: Path) -> Rows:
    return _read_separated(path, ",")


def _read_tsv(path: Path) -> Rows:
    return _read_separated(path, "\t")


def parquet_columns(path: Path) -> list[str]:
    """Return the names of a Parquet file's columns.

    Raises:
        InputError: It cannot be read.
        MissingExtraError: pyarrow is not installed.
    """
    parquet = parquet_module()
    from pyarrow.lib import ArrowException

    try:
        return list(parquet.read_schema(path).names)
    except (OSError, ArrowException) as error:
        raise InputError(f"{path}, after row 0: {error}.") from error


def _read_parquet(path: Path, columns: Sequence[str] | None) -> Rows:
    parquet = parquet_module()
    from pyarrow.lib import ArrowException

    number = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches(_BATCH_ROWS, columns=columns):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (OSError, ArrowException) as error:
        raise InputError(f"{input_name(path)}, after row {number}: {error}.") from error


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


_READERS: dict[str, Callable[[Path], Rows]] = {
    "jsonl": _read_jsonl,
    "csv": _read_csv,
    "tsv": _read_tsv,
}
