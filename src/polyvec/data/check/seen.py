"""Texts seen before, remembered as 64-bit keys: 17 million take about 2 GB."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from polyvec.data.identity import normalized
from polyvec.errors import InputError
from polyvec.records.columns import Columns
from polyvec.records.corpus import is_corpus_layout
from polyvec.records.read import Problem, scan_records
from polyvec.records.record import Record
from polyvec.records.table import read_lines, read_table, table_format


class Keys(NamedTuple):
    """What stands for a text: as it is, and normalized."""

    exact: int
    normalized: int


def keys_of(*texts: str) -> Keys:
    """Return the keys of one text, or of several as one."""
    return Keys(_key(texts), _key(tuple(map(normalized, texts))))


def _key(texts: tuple[str, ...]) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return int.from_bytes(digest.digest(), "little")


class Seen:
    """A set of texts."""

    def __init__(self) -> None:
        self._exact: set[int] = set()
        self._normalized: set[int] = set()

    def add(self, keys: Keys) -> None:
        """Remember a text."""
        self._exact.add(keys.exact)
        self._normalized.add(keys.normalized)

    def match(self, keys: Keys) -> str | None:
        """Return ``exact`` or ``normalized`` for a text seen before, else None."""
        if keys.exact in self._exact:
            return "exact"
        return "normalized" if keys.normalized in self._normalized else None


class TestTexts:
    """What training must not have seen."""

    __test__ = False  # no pytest class

    def __init__(self) -> None:
        self.queries, self.documents = Seen(), Seen()
        self.count = 0

    def read(self, paths: Iterable[Path], columns: Columns) -> None:
        """Add the queries and positives of records, and the texts of other files.

        Raises:
            InputError: A file cannot be read or a row of it used.
        """
        for path in paths:
            for query, documents in _texts(path, columns):
                self.count += 1
                if query is not None:
                    self.queries.add(keys_of(query))
                for document in documents:
                    self.documents.add(keys_of(document))


def _texts(path: Path, columns: Columns) -> Iterator[tuple[str | None, tuple[str, ...]]]:
    """Give (query, documents) of records; lines of text and tables of texts are documents."""
    if path.name.endswith((".txt", ".txt.gz")):
        yield from ((None, (line.strip(),)) for _, line in read_lines(path) if line.strip())
    elif table_format(path) is not None and _is_corpus(path):
        yield from ((None, (_document(path, line, row),)) for line, row in read_table(path))
    else:
        # Columns were stated for what is checked; a layout that has none is refused with some.
        for item in scan_records(path, None if is_corpus_layout(path) else columns):
            if isinstance(item, Problem):
                raise InputError(f"{item} (Test files are records, or documents with a 'text'.)")
            yield _of(item.record)


def _is_corpus(path: Path) -> bool:
    """Whether a table has documents: a text and neither a positive nor a label."""
    first = next(iter(read_table(path)), (0, {}))[1]
    return "text" in first and not {"label", "label_text", "query", "question"} & set(first)


def _document(path: Path, line: int, row: dict[str, object]) -> str:
    text = row.get("text")
    if not isinstance(text, str):
        raise InputError(f"{path}, line {line}: 'text' is {text!r:.40}; a string is needed.")
    return text


def _of(record: Record) -> tuple[str, tuple[str, ...]]:
    labelled = record.task == "classification"  # a label is no text that leaks
    return record.query, () if labelled else record.positives
