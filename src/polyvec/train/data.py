"""Records of a run: checked once before the first step, then read in any order.

A run keeps a copy of its records in its output, so that a resumed one cannot read other data, and
a million of them need no memory: lines of JSON and where each begins.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, overload

import numpy as np
import numpy.typing as npt
import orjson

from polyvec.disk import full_disk_is_an_error
from polyvec.errors import InputError, ResumeError
from polyvec.records.read import Problem, scan_records
from polyvec.records.record import Record
from polyvec.records.write import record_line
from polyvec.train.batches import Text, document
from polyvec.train.losses import LossSettings
from polyvec.train.recipe import DataSettings

_LINES, _STARTS, _FACTS = "records.jsonl", "starts.npy", "data.json"
_SHOWN_PROBLEMS = 20


@dataclass(frozen=True)
class Facts:
    """What a run's data is."""

    sizes: dict[str, int]
    """Records of each file, in the recipe's order."""
    sha256: str
    without_negatives: int


class Records(Sequence[Record]):
    """A part of the run's copy: the records of one file, read when asked for."""

    def __init__(self, folder: Path, first: int, count: int) -> None:
        self._path, self._first, self._count = folder / _LINES, first, count
        self._starts: npt.NDArray[np.int64] = np.load(folder / _STARTS, mmap_mode="r")
        self._file: BinaryIO | None = None

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> Record: ...
    @overload
    def __getitem__(self, place: slice) -> "Sequence[Record]": ...
    def __getitem__(self, place: int | slice) -> "Record | Sequence[Record]":
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(self._count))]
        if not -self._count <= place < self._count:
            raise IndexError(place)
        if self._file is None:
            self._file = self._path.open("rb")
        start, stop = self._starts[self._first + place % self._count :][:2]
        self._file.seek(int(start))
        return _record(self._file.read(int(stop - start)))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _record(line: bytes) -> Record:
    values: dict[str, Any] = orjson.loads(line)
    lists = ("positives", "negatives", "positive_ids", "negative_ids")
    values |= {name: tuple(values[name]) for name in lists if name in values}
    return Record(**values)


def copy_records(sections: Sequence[DataSettings], folder: Path) -> Facts:
    """Read and check every file, and keep their records in a folder.

    Raises:
        InputError: Files cannot be read, or have rows that are no records: their lines are named.
        DiskFullError: There is no room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digest, starts, sizes, bare = hashlib.sha256(), [0], dict[str, int](), 0
    problems: list[Problem] = []
    with full_disk_is_an_error(folder, "The run keeps a copy of its data there; make room."):
        with (folder / _LINES).open("wb") as file:
            for name, section in source_names(sections).items():
                before = len(starts)
                for item in scan_records(Path(section.path), section.columns):
                    if isinstance(item, Problem):
                        problems.append(item)
                        continue
                    line = record_line(item.record)
                    file.write(line)
                    digest.update(line)
                    starts.append(starts[-1] + len(line))
                    bare += not item.record.negatives
                sizes[name] = len(starts) - before
        _refuse(problems, len(starts) - 1)
        np.save(folder / _STARTS, np.array(starts, np.int64))
        facts = Facts(sizes, digest.hexdigest(), bare)
        (folder / _FACTS).write_bytes(orjson.dumps(facts))
    return facts


def source_names(sections: Sequence[DataSettings]) -> dict[str, DataSettings]:
    """Name the files by their paths; the same file twice has a number after it."""
    names: dict[str, DataSettings] = {}
    for section in sections:
        name = section.path
        while name in names:
            name += "'"
        names[name] = section
    return names


def _refuse(problems: Sequence[Problem], good: int) -> None:
    if problems:
        shown = "\n".join(f"  {problem}" for problem in problems[:_SHOWN_PROBLEMS])
        more = len(problems) - _SHOWN_PROBLEMS
        raise InputError(
            f"{len(problems):,} of {good + len(problems):,} rows cannot be used:\n{shown}"
            + (f"\n  and {more:,} more" if more > 0 else "")
            + "\nMend them or take them out."
        )


def open_records(folder: Path) -> tuple[dict[str, Records], Facts]:
    """Open a run's copy of its records.

    Raises:
        ResumeError: It is not there, or not whole.
    """
    try:
        facts = Facts(**orjson.loads((folder / _FACTS).read_bytes()))
    except (OSError, orjson.JSONDecodeError, TypeError) as error:
        raise ResumeError(f"{folder} has no whole copy of the run's data ({error}).") from error
    first, found = 0, {}
    for name, size in facts.sizes.items():
        found[name] = Records(folder, first, size)
        first += size
    return found, facts


def check_against_loss(facts: Facts, loss: LossSettings, num_negatives: int) -> None:
    """Refuse records that the loss can learn nothing from.

    Raises:
        InputError: Records without negatives, and a loss that only has those.
    """
    if not loss.weight or not loss.separable:
        return
    if not num_negatives:
        raise InputError(
            "batch.num_negatives is 0 and the loss has only a query's own negatives: nothing is "
            "left to compare with. Set loss.in_batch = 'positives', or take negatives."
        )
    if facts.without_negatives:
        raise InputError(
            f"{facts.without_negatives:,} of {sum(facts.sizes.values()):,} records have no "
            "negatives, and the loss compares a positive with those only. Mine them (polyvec "
            "mine; its --drop-without-negatives leaves out those that it finds none for), or set "
            "loss.in_batch = 'positives'."
        )


def every_text(record: Record) -> Iterator[Text]:
    """Give everything in a record as the model reads it."""
    yield Text(record.query, "query", record.task_instruction)
    for text in (*record.positives, *record.negatives):
        yield document(record, text)
