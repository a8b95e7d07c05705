"""Which records are mined, in which parts, and what none of them may get."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

import numpy as np

from polyvec.data.identity import exact_key, text_key
from polyvec.data.mining.corpus import Corpus, Document, Index
from polyvec.data.mining.search import Ints
from polyvec.data.mining.settings import MineSettings
from polyvec.data.mining.vectors import Reading
from polyvec.records.record import Record

_PART_RECORDS = 8_192
"""What is searched together, and what a kill may cost."""
_TEXTS_A_PASS = 1_000_000
"""Negatives' texts that are held at once when the output is written; more take another pass."""


class Group(NamedTuple):
    """Records of a part whose documents are read the same way."""

    reading: Reading
    numbers: list[int]


class Plan:
    """The records and the corpus of a run."""

    def __init__(self, records: Sequence[Record], corpus: Corpus, settings: MineSettings) -> None:
        self.records, self.corpus, self.settings = records, corpus, settings
        minable = [n for n, record in enumerate(records) if record.task != "classification"]
        self.mined = len(minable)
        self.parts = [
            _groups(records, minable[i : i + _PART_RECORDS])
            for i in range(0, len(minable), _PART_RECORDS)
        ]
        self.index = self._index()
        self._excluded = self._find_excluded(minable)
        shown = np.random.default_rng(settings.seed).permutation(minable)[: settings.samples]
        self.shown = {int(number) for number in shown}
        """Records that the report shows in full."""

    def _index(self) -> Index:
        texts: set[int] = set()
        ids: set[str] = set()
        for record in self.records:
            known = (record.query, *record.positives, *self._kept(record))
            texts.update(map(text_key, known))
            ids.update(record.positive_ids)
        return self.corpus.index(texts, ids)

    def _kept(self, record: Record) -> tuple[str, ...]:
        return record.negatives if self.settings.keep_negatives else ()

    def _find_excluded(self, minable: Sequence[int]) -> dict[int, set[int]]:
        """Return the rows that each query must not get, by the query's key.

        Rows with the text or id of any positive of that query, in any record, or the query's text.
        """
        rows: dict[int, set[int]] = {}
        for number in minable:
            record = self.records[number]
            own = rows.setdefault(text_key(record.query), set())
            for text in (record.query, *record.positives, *self._kept(record)):
                row = self.index.row_of_text.get(text_key(text))
                own |= set() if row is None else {row}
            own |= {
                self.index.row_of_id[i] for i in record.positive_ids if i in self.index.row_of_id
            }
        return rows

    def excluded(self, group: Group) -> tuple[Ints, Ints]:
        """Return (place in the group, corpus row) of what each query must not get."""
        pairs = [
            (place, row)
            for place, number in enumerate(group.numbers)
            for row in sorted(self._excluded[text_key(self.records[number].query)])
        ]
        places, rows = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        return places, rows

    def written(self, rows: dict[int, Ints]) -> Iterator[Record]:
        """Give all records with their negatives' texts, a pass over the corpus for every million.

        Args:
            rows: Record number -> rows of its negatives.
        """
        records = iter(enumerate(self.records))
        while block := list(islice(records, max(1, _TEXTS_A_PASS // self.settings.negatives))):
            wanted = {int(row) for number, _ in block for row in rows.get(number, ())}
            documents = self.documents(wanted)
            for number, record in block:
                if number not in rows:
                    yield record
                    continue
                found = [documents[int(row)] for row in rows[number]]
                yield self._with_negatives(record, found)

    def documents(self, rows: set[int]) -> dict[int, Document]:
        """Read the documents of some rows."""
        if not rows:
            return {}
        documents = enumerate(self.corpus.documents(self.index))
        return {row: document for row, document in documents if row in rows}

    def _with_negatives(self, record: Record, found: Sequence[Document]) -> Record:
        own = self._kept(record)
        own_ids = record.negative_ids if own else ()
        new = found[: max(0, self.settings.negatives - len(own))]
        ids = [*own_ids, *(document.id for document in new)]
        texts = [*own, *(document.text for document in new)]
        named = len(ids) == len(texts) and None not in ids
        return replace(
            record,
            negatives=tuple(texts),
            negative_ids=tuple(map(str, ids)) if named else (),
        )

    def positives(self, group: Group) -> tuple[dict[str, int], list[str]]:
        """Return the group's positives: those the corpus has, with their rows, and the others."""
        texts = dict.fromkeys(text for n in group.numbers for text in self.records[n].positives)
        found = {text: self.index.row_of_exact_text.get(exact_key(text)) for text in texts}
        rows = {text: row for text, row in found.items() if row is not None}
        return rows, [text for text, row in found.items() if row is None]

    def by_query_reading(self, group: Group) -> dict[Reading, list[int]]:
        """Return a group's records by how their queries are read."""
        readings: dict[Reading, list[int]] = {}
        for number in group.numbers:
            readings.setdefault(_query_reading(self.records[number]), []).append(number)
        return readings


def _groups(records: Sequence[Record], numbers: Sequence[int]) -> list[Group]:
    groups: dict[Reading, list[int]] = {}
    for number in numbers:
        groups.setdefault(_document_reading(records[number]), []).append(number)
    return [Group(reading, own) for reading, own in groups.items()]


def _document_reading(record: Record) -> Reading:
    """Return how the documents of a record are read: in symmetric tasks as queries are."""
    return _query_reading(record) if record.symmetric else Reading("document")


def _query_reading(record: Record) -> Reading:
    return Reading("query", record.task_instruction)
