"""The documents that negatives are mined from, passed over without being held in memory."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from polyvec.data.identity import exact_key, text_key
from polyvec.errors import InputError
from polyvec.records.record import Record
from polyvec.records.table import read_lines, read_table, table_format

_IDS = ("id", "_id", "docid", "doc_id")
_TEXTS = ("text", "contents", "document", "passage")


class Document(NamedTuple):
    """One document."""

    text: str
    id: str | None


Read = Callable[[], Iterator[Document]]


@dataclass
class Index:
    """What one pass over a corpus found: which rows are kept, and where wanted texts and ids are.

    Rows are numbered over the kept documents only: the first of every text.
    """

    rows: int = 0
    duplicates: int = 0
    fingerprint: str = ""
    """A hash of all texts and ids, in order."""
    row_of_text: dict[int, int] = field(default_factory=dict)
    """Key of a wanted text, normalized -> its row."""
    row_of_exact_text: dict[int, int] = field(default_factory=dict)
    """Key of a wanted text as it is -> the row that has it so."""
    row_of_id: dict[str, int] = field(default_factory=dict)
    """A wanted id -> the row that has its text."""
    kept: bytearray = field(default_factory=bytearray)
    """1 for each document of the corpus that is a row."""


class Corpus:
    """Documents that can be read over and over."""

    def __init__(self, read: Read, name: str) -> None:
        self.read, self.name = read, name

    def index(self, texts: Collection[int], ids: Collection[str]) -> Index:
        """Pass over the corpus once.

        Args:
            texts: Keys of texts, normalized, whose rows are wanted.
            ids: Ids whose rows are wanted.
        """
        index, digest = Index(), hashlib.sha256()
        rows: dict[int, int] = {}
        for document in self.read():
            key = text_key(document.text)
            digest.update(document.text.encode("utf-8", "surrogatepass") + b"\0")
            digest.update((document.id or "").encode() + b"\0")
            index.kept.append(key not in rows)
            row = rows.setdefault(key, len(rows))
            if key in texts:
                index.row_of_text[key] = row
                if index.kept[-1]:
                    index.row_of_exact_text[exact_key(document.text)] = row
            if document.id is not None and document.id in ids:
                index.row_of_id[document.id] = row
        index.rows, index.duplicates = len(rows), len(index.kept) - len(rows)
        index.fingerprint = digest.hexdigest()[:16]
        return index

    def documents(self, index: Index) -> Iterator[Document]:
        """Give the kept documents, in the order of their rows.

        Raises:
            InputError: The corpus has another number of documents than when it was indexed.
        """
        count = 0
        for document in self.read():
            if count < len(index.kept) and index.kept[count]:
                yield document
            count += 1
        if count != len(index.kept):
            raise InputError(
                f"{self.name} had {len(index.kept):,} documents when the run began and has "
                f"{count:,} now. Run it again on files that stay as they are."
            )


def corpus_of_records(records: Sequence[Record]) -> Corpus:
    """Return the corpus of all positives and negatives that records have."""

    def read() -> Iterator[Document]:
        for record in records:
            for texts, ids in (
                (record.positives, record.positive_ids),
                (record.negatives, record.negative_ids),
            ):
                for number, text in enumerate(texts):
                    yield Document(text, ids[number] if ids else None)

    return Corpus(read, "the records' own documents")


def corpus_of_files(
    paths: Sequence[Path], text_column: str | None = None, id_column: str | None = None
) -> Corpus:
    """Return the corpus of files: ``.txt`` (one a line), JSONL, CSV, TSV or Parquet.

    Ids are in ``id``, ``_id``, ``docid`` or ``doc_id`` if not stated; a ``title`` is written
    before the text, as BEIR's corpora are embedded. Empty documents are passed over.

    Raises:
        InputError: A file cannot be read or has no such column; also while it is read later.
    """
    for path in paths:
        if not path.exists():
            raise InputError(f"{path} cannot be read: there is no such file.")

    def read() -> Iterator[Document]:
        for path in paths:
            yield from _read(path, text_column, id_column)

    return Corpus(read, ", ".join(map(str, paths)))


def _read(path: Path, text_column: str | None, id_column: str | None) -> Iterator[Document]:
    if table_format(path) is None and path.name.endswith((".txt", ".txt.gz")):
        for _, line in read_lines(path):
            if line.strip():
                yield Document(line.rstrip("\r\n"), None)
        return
    for number, row in read_table(path):
        text_name = _column(row, text_column, _TEXTS)
        if text_name is None:
            raise InputError(
                f"{path}, line {number} has no text column {text_column or _TEXTS}. It has: "
                f"{', '.join(row)}. State the right one with --text-column."
            )
        text = row[text_name]
        if not isinstance(text, str):
            raise InputError(f"{path}, line {number}: {text_name!r} is {text!r:.40}, no string.")
        id_name = _column(row, id_column, _IDS)
        if id_column is not None and id_name is None:
            raise InputError(f"{path}, line {number} has no column {id_column!r} for ids.")
        title = row.get("title") if text_name != "title" else None
        words = f"{title} {text}" if isinstance(title, str) and title.strip() else text
        if words.strip():
            yield Document(words, None if id_name is None else str(row[id_name]))


def _column(row: dict[str, object], stated: str | None, known: Sequence[str]) -> str | None:
    return next((name for name in ([stated] if stated else known) if name in row), None)
