"""Everything that was answered, appended and synced before it counts."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from polyvec.disk import full_disk_is_an_error
from polyvec.errors import ResumeError
from polyvec.records.record import Record
from polyvec.records.write import record_line

Entry = dict[str, Any]


class Journal:
    """An append-only JSONL file; a line that was being written when a run died is dropped.

    Raises:
        ResumeError: It is of a run with other settings, or no journal.
    """

    def __init__(self, path: Path, made_by: Mapping[str, Any], restart: bool = False) -> None:
        self.path = path
        if restart:
            path.unlink(missing_ok=True)
        self.entries = self._read(orjson.loads(orjson.dumps(made_by)))
        self._file = path.open("ab")
        if not path.stat().st_size:
            self.append({"type": "settings", **made_by})

    def _read(self, made_by: Mapping[str, Any]) -> list[Entry]:
        if not self.path.exists():
            return []
        raw = self.path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):
            os.truncate(self.path, len(whole))
        try:
            entries = [orjson.loads(line) for line in whole.splitlines()]
        except orjson.JSONDecodeError as error:
            raise ResumeError(f"{self.path} is damaged ({error}). {_ADVICE}") from error
        if not entries:
            return []
        stated = entries[0]
        differing = [name for name in made_by if made_by[name] != stated.get(name)]
        if differing:
            raise ResumeError(
                f"{self.path} holds {len(entries) - 1:,} answers of a run that differs "
                f"in {' and '.join(differing)}. {_ADVICE}"
            )
        return entries[1:]

    def append(self, entry: Entry) -> None:
        """Write an entry and sync it."""
        with full_disk_is_an_error(self.path, "What was answered before is kept; make room."):
            self._file.write(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


_ADVICE = "Run it again as it was, give another --output, or use --restart to throw them away."


def record_facts(record: Record) -> Entry:
    """Return a record as an entry has it."""
    facts: Entry = orjson.loads(record_line(record))
    return facts


def entry_record(facts: Mapping[str, Any]) -> Record:
    """Return the record of an entry."""
    own: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts.items()}
    return Record(**own)
