"""Records to a JSONL file."""

import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, cast

import orjson

from polyvec.disk import full_disk_is_an_error
from polyvec.errors import OutputError
from polyvec.records.record import Record

_LINE = orjson.OPT_APPEND_NEWLINE


def record_line(record: Record) -> bytes:
    """Return a record as a JSONL line; fields that say nothing are left out."""
    facts: dict[str, Any] = {"query": record.query, "positives": record.positives}
    optional = {name: value for name, value in vars(record).items() if name not in facts}
    facts |= {name: value for name, value in optional.items() if value}
    return orjson.dumps(facts, option=_LINE)


def write_records(path: Path, records: Iterable[Record]) -> int:
    """Write records to ``.jsonl`` or ``.jsonl.gz``, under a temporary name, then rename.

    Returns:
        How many.

    Raises:
        OutputError: The ending is another, or the folder is missing.
        DiskFullError: There is no room; the temporary file is removed.
    """
    check_record_output(path)
    partial = path.with_name(f".{path.name}.writing")
    count = 0
    try:
        with full_disk_is_an_error(path, "Make room and run it again."):
            with _open(partial, path.suffix == ".gz") as file:
                for record in records:
                    file.write(record_line(record))
                    count += 1
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return count


def check_record_output(path: Path) -> None:
    """Refuse an output that cannot be written, before any work is done.

    Raises:
        OutputError: The ending is none of those written, or the folder is missing.
    """
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise OutputError(f"{path} must end in .jsonl or .jsonl.gz.")
    if not path.absolute().parent.is_dir():
        raise OutputError(f"{path} cannot be written: there is no folder {path.absolute().parent}.")


def _open(path: Path, zipped: bool) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "wb")) if zipped else path.open("wb")
