"""What the search bench builds and asks: polyvec's own store, sqlite's FTS5, and bm25s."""

import itertools
import pickle
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any
from unittest.mock import patch

import numpy as np

from polyvec.evaluate.offline_sets import words
from polyvec.search.rows import Chunk, IndexInfo
from polyvec.search.store import Store
from search_corpus import Passage, Vectors

WRITTEN_AT_ONCE = 5_000
Ask = Callable[[str], list[str]]
"""A question to the paths of at most ten passages."""


@contextmanager
def watched_indexes(uri: str) -> Iterator[dict[str, dict[str, float]]]:
    """Note how long each index takes that is made meanwhile, and its megabytes, by column."""
    from lancedb.table import LanceTable

    made: dict[str, dict[str, float]] = {}
    make = LanceTable.create_index

    def watching(self: LanceTable, column: str, **settings: Any) -> None:  # noqa: ANN401 (theirs)
        begun, before = monotonic(), tree_bytes(Path(uri))
        make(self, column, **settings)
        size = tree_bytes(Path(uri)) - before
        made[column] = {"seconds": monotonic() - begun, "mb": size / 1e6}

    with patch.object(LanceTable, "create_index", watching):
        yield made


def tree_bytes(folder: Path) -> int:
    """Return the size of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def fill(store: Store, passages: Sequence[Passage], vectors: Iterator[Vectors]) -> None:
    """Write passages with their vectors, which come in blocks, as indexing does."""
    place = 0
    for block in vectors:
        rows = passages[place : place + len(block)]
        store.put_chunks([chunk(place + n, row) for n, row in enumerate(rows)], block)
        place += len(block)


def info(dimension: int) -> IndexInfo:
    """Return the facts of the bench's index."""
    return IndexInfo("bench", "0" * 16, dimension, "/bench")


def chunk(number: int, passage: Passage) -> Chunk:
    """Return a passage as a row of an index; its id is its number."""
    return Chunk(
        chunk_id=str(number),
        source_id=passage.path,
        document_id=passage.path,
        text_id=str(number),
        path=passage.path,
        title=passage.path.rpartition("/")[2],
        heading="",
        page=None,
        line_start=None,
        line_end=None,
        language=passage.language,
        file_type="text",
        modified_at=datetime(2026, 1, 1, tzinfo=UTC),
        ordinal=passage.ordinal,
        text=passage.text,
    )


def polyvec_text(folder: Path, passages: Sequence[Passage], *, build: bool) -> Ask:
    """LanceDB's full text with ICU's words, as polyvec searches: ten rows with all columns."""
    uri = str(folder / "polyvec-text")
    if build:
        made = Store.create(uri, info(1))
        empty = np.ones((WRITTEN_AT_ONCE, 1), dtype=np.float32)
        starts = range(0, len(passages), WRITTEN_AT_ONCE)
        fill(made, passages, (empty[: len(passages) - start] for start in starts))
        made.refresh()
    store = Store.open(uri)
    return lambda query: [hit.chunk.path for hit in store.search_text(query, 10)]


def sqlite_fts5(folder: Path, passages: Sequence[Passage], *, build: bool) -> Ask:
    """Ask FTS5 of sqlite, with its default words (unicode61): any of them will do, by BM25."""
    path = folder / "sqlite" / "fts5.sqlite"
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path)
    if build:
        database.execute("CREATE VIRTUAL TABLE p USING fts5(text, path UNINDEXED)")
        rows = ((passage.text, passage.path) for passage in passages)
        database.executemany("INSERT INTO p VALUES (?, ?)", rows)
        database.execute("INSERT INTO p(p) VALUES ('optimize')")
        database.commit()
    asked = "SELECT path FROM p WHERE p MATCH ? ORDER BY rank LIMIT 10"

    def ask(query: str) -> list[str]:
        match = " OR ".join(f'"{word}"' for word in re.findall(r"\w+", query))
        return [row[0] for row in database.execute(asked, (match,))] if match else []

    return ask


def bm25s_memory(folder: Path, passages: Sequence[Passage], *, build: bool) -> Ask:
    """Ask bm25s, all in memory, with the offline benchmark's words: pairs of characters in CJK."""
    import bm25s

    place = folder / "bm25s"
    if build:
        index = bm25s.BM25()
        index.index([words(passage.text) for passage in passages], show_progress=False)
        index.save(place, show_progress=False)
        (place / "paths.pkl").write_bytes(pickle.dumps([passage.path for passage in passages]))
    index = bm25s.BM25.load(place)
    paths: list[str] = pickle.loads((place / "paths.pkl").read_bytes())

    def ask(query: str) -> list[str]:
        known = [word for word in words(query) if word in index.vocab_dict]
        if not known:
            return []
        scores = index.get_scores(known)
        best = np.argpartition(-scores, 10)[:10]
        return [paths[n] for n in sorted(best, key=lambda n: -scores[n]) if scores[n] > 0]

    return ask


TEXT_ENGINES = {"polyvec": polyvec_text, "sqlite FTS5": sqlite_fts5, "bm25s": bm25s_memory}
"""By name: a folder and passages to a way of asking; ``build`` makes the index first."""
PLACES = {"polyvec": "polyvec-text", "sqlite FTS5": "sqlite", "bm25s": "bm25s"}


def blocks(rows: int) -> Iterator[slice]:
    """Yield the parts that are written at once."""
    for start in itertools.count(0, WRITTEN_AT_ONCE):
        if start >= rows:
            return
        yield slice(start, min(start + WRITTEN_AT_ONCE, rows))
