"""The index's tables in LanceDB: one face for a folder and for ``s3://``.

Three tables. ``facts`` has one row, which names the table of chunks in use; ``documents`` has a row
a file; ``chunks_<fingerprint>`` has a row a chunk, vector included. Another model gets a table of
its own, so that a migration can stop anywhere. Rows are written by ``merge_insert`` alone: plain
appends do not keep ids unique when several processes write. A commit that another writer overtook
is made again on the newer version.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from polyvec.errors import InputError
from polyvec.search.database import (
    DOCUMENTS,
    check_facts,
    check_same,
    chunks_name,
    committed,
    connect,
    made_index,
    made_table,
    merge,
    no_index,
    read_facts,
    write_facts,
)
from polyvec.search.quantized import refine_factor
from polyvec.search.rows import Chunk, Document, Hit, IndexInfo, Vectors
from polyvec.search.sources import Source
from polyvec.search.storage import is_object_store, reached, reaching
from polyvec.search.tables import (
    CHUNK_COLUMNS,
    chunk_of,
    chunk_rows,
    chunk_schema,
    document_of,
    document_rows,
)
from polyvec.search.upkeep import compact, has_index, make_indexes
from polyvec.search.where import Where, below, one_of

if TYPE_CHECKING:
    from lancedb import DBConnection
    from lancedb.query import LanceQueryBuilder, LanceVectorQueryBuilder
    from lancedb.table import Table

_Query = TypeVar("_Query", bound="LanceQueryBuilder")

_CLAUSE_IDS = 1_000


class Store:
    """An open index. Make one with :meth:`create` or :meth:`open`."""

    def __init__(self, uri: str, database: "DBConnection", info: IndexInfo) -> None:
        self.uri, self.info, self.database = uri, info, database
        self.source = Source("", Path(info.root))
        """The folder that this store's writer brings up to date."""
        self.before_write: Callable[[], None] = _allowed
        """Called before everything that is written; raises where this run may not write."""
        self._fixed: tuple[int, Store] | None = None
        self._chunks: Table = database.open_table(chunks_name(info.fingerprint))
        self._documents: Table = database.open_table(DOCUMENTS)

    @classmethod
    def create(
        cls, uri: str, info: IndexInfo, storage_options: Mapping[str, str] | None = None
    ) -> "Store":
        """Make an index, or open the one that is there if it has the same facts.

        Args:
            uri: A folder, or ``s3://bucket/prefix``.
            info: The facts of the index.
            storage_options: Of an object store, by :data:`polyvec.search.storage.KEYS`.

        Raises:
            IndexMismatchError: An index of another model or cut is there.
            MissingExtraError: LanceDB is not installed.
            StorageError: An object store refused, or cannot be reached.
        """
        with reaching(uri):
            database = connect(uri, storage_options)
            found = read_facts(database) or made_index(database, info)
            check_facts(uri, found, info)
            return cls(uri, database, found)

    @classmethod
    def open(
        cls,
        uri: str,
        fingerprint: str | None = None,
        storage_options: Mapping[str, str] | None = None,
    ) -> "Store":
        """Open an index that exists.

        Args:
            uri: As for :meth:`create`.
            fingerprint: Of the model that will ask; None opens the index without asking, to find
                out which model that is (``store.info.model``).
            storage_options: As for :meth:`create`.

        Raises:
            IndexMissingError: There is none.
            IndexMismatchError: It has vectors of another model, or a newer format.
            MissingExtraError: LanceDB is not installed.
            StorageError: As for :meth:`create`.
        """
        if not is_object_store(uri) and not Path(uri).is_dir():
            raise no_index(uri)  # connecting would make the folder
        with reaching(uri):
            database = connect(uri, storage_options)
            info = read_facts(database)
            if info is None:
                raise no_index(uri)
            if fingerprint is not None:
                check_same(uri, info, fingerprint)
            return cls(uri, database, info)

    @reached
    def check_current(self) -> None:
        """Refuse an index that has another model or cut than when it was opened."""
        check_facts(self.uri, read_facts(self.database), self.info)

    def check_model(self, fingerprint: str, name: str) -> None:
        """Refuse questions embedded by another model than the index's, which has this name."""
        check_same(self.uri, self.info, fingerprint, name)

    # Reading

    @reached
    def snapshot(self) -> "Store":
        """Return the chunks as they are now, to be asked several times: writers change nothing."""
        version = self._chunks.version
        fixed = self._fixed
        if fixed is None or fixed[0] != version:
            store = copy(self)
            store._chunks = self.database.open_table(chunks_name(self.info.fingerprint))
            store._chunks.checkout(version)
            self._fixed = fixed = (version, store)
        return fixed[1]

    @reached
    def count(self) -> int:
        """Return how many chunks there are."""
        return int(self._chunks.count_rows())

    @reached
    def documents(self, prefix: str = "") -> list[Document]:
        """Return every file the index knows, failed ones too, by path.

        Args:
            prefix: What the paths wanted begin with.
        """
        rows = _below(self._documents.search(), prefix).limit(None).to_arrow().to_pylist()
        return sorted((document_of(row) for row in rows), key=lambda d: d.path)

    @reached
    def search_dense(
        self, vector: Vectors, limit: int = 10, where: Where | None = None, *, exact: bool = False
    ) -> list[Hit]:
        """Return the chunks nearest to a vector, best first, by cosine similarity.

        Args:
            vector: ``float32 [dimension]``, of a query.
            limit: How many at most.
            where: Which chunks count; None is all.
            exact: Compare with every vector, index or not.

        Raises:
            InputError: The vector has another length than the index's.
        """
        asked = np.asarray(vector, dtype=np.float32)
        if asked.shape != (self.info.dimension,):
            raise InputError(
                f"A vector [{self.info.dimension}] is needed to search {self.uri}; given: "
                f"{list(asked.shape)}."
            )
        begun = self._chunks.search(asked, vector_column_name="vector", query_type="vector")
        query = cast("LanceVectorQueryBuilder", begun).distance_type("cosine")
        query = query.select([*CHUNK_COLUMNS, "_distance"]).limit(_checked(limit))
        if exact:
            query = query.bypass_vector_index()
        else:  # all partitions, if a filter leaves too few in the nearest
            factor = refine_factor(limit, self.info.dimension)
            query = query.refine_factor(factor).maximum_nprobes(0)
        found = _filtered(query, where).to_arrow().to_pylist()
        return [Hit(chunk_of(row), 1.0 - row["_distance"]) for row in found]

    @reached
    def search_text(self, query: str, limit: int = 10, where: Where | None = None) -> list[Hit]:
        """Return the chunks that have a query's words, best first, by BM25.

        Words are ICU's: Chinese, Japanese and Thai are cut by their dictionaries. Nothing in the
        query is an operator. A chunk needs one of the words, not all.
        """
        if not self.has_words() or not query.strip():
            return []
        from lancedb.query import MatchQuery

        words = MatchQuery(query, "text")  # type: ignore[call-arg]  # the others have defaults
        asked = self._chunks.search(words, query_type="fts")
        asked = asked.select([*CHUNK_COLUMNS, "_score"]).limit(_checked(limit))
        found = _filtered(asked, where).to_arrow().to_pylist()
        return [Hit(chunk_of(row), row["_score"]) for row in found]

    def vectors_of(self, chunk_ids: Sequence[str]) -> Vectors:
        """Return the vectors ``float32 [len(chunk_ids), dimension]`` of chunks, in their order.

        Raises:
            InputError: No chunk of that id.
        """
        known = self._vectors_by("chunk_id", chunk_ids)
        missing = [chunk_id for chunk_id in chunk_ids if chunk_id not in known]
        if missing:
            raise InputError(f"{self.uri} has no chunk {missing[0]!r} ({len(missing)} missing).")
        empty = np.zeros((0, self.info.dimension), dtype=np.float32)
        return np.stack([known[i] for i in chunk_ids]) if chunk_ids else empty

    def known_vectors(self, text_ids: Sequence[str]) -> dict[str, Vectors]:
        """Return the vectors that are here already, of texts by the hash of what is embedded."""
        return self._vectors_by("text_id", text_ids)

    def chunks_of(self, path: str) -> list[Chunk]:
        """Return a file's chunks in order, e.g. to show what stands around a hit."""
        return self._in_order(one_of("path", [path]))

    def chunks_around(self, chunk: Chunk, before: int, after: int) -> list[Chunk]:
        """Return a chunk and its neighbours in the same version of its file, in order."""
        same = f"{one_of('path', [chunk.path])} AND {one_of('source_id', [chunk.source_id])}"
        near = f"ordinal BETWEEN {chunk.ordinal - before} AND {chunk.ordinal + after}"
        return self._in_order(f"{same} AND {near}")

    def _in_order(self, condition: str) -> list[Chunk]:
        chunks = (chunk_of(row) for row in self._rows(condition, CHUNK_COLUMNS))
        return sorted(chunks, key=lambda chunk: chunk.ordinal)

    def chunk_counts(self, prefix: str = "") -> dict[str, int]:
        """Return how many chunks each path has, to be compared with what ``documents`` says."""
        return self._counted("path", prefix)

    def language_counts(self) -> dict[str, int]:
        """Return how many chunks there are of each language, most first."""
        return self._counted("language")

    @reached
    def chunk_ids(self) -> set[str]:
        """Return every chunk's id."""
        return set(self._counted("chunk_id"))

    def doubled_ids(self, prefix: str = "") -> list[str]:
        """Return the ids that more than one row has: of two runs that wrote the same at once."""
        counted = self._counted("chunk_id", prefix)
        return [chunk_id for chunk_id, rows in counted.items() if rows > 1]

    def chunks_by_id(self, chunk_ids: Sequence[str]) -> list[Chunk]:
        """Return the chunks of ids that are there."""
        rows = (self._rows(one_of("chunk_id", p), CHUNK_COLUMNS) for p in _parts(list(chunk_ids)))
        return [chunk_of(row) for part in rows for row in part]

    @reached
    def _counted(self, column: str, prefix: str = "") -> dict[str, int]:
        asked = _below(self._chunks.search(), prefix).select([column]).limit(None)
        counts = asked.to_arrow()[column].value_counts().to_pylist()
        counted = {row["values"]: row["counts"] for row in counts}
        return dict(sorted(counted.items(), key=lambda item: -item[1]))

    @reached
    def _vectors_by(self, column: str, ids: Sequence[str]) -> dict[str, Vectors]:
        known: dict[str, Vectors] = {}
        for part in _parts(list(dict.fromkeys(ids))):
            asked = self._chunks.search().where(one_of(column, part)).limit(None)
            table = asked.select([column, "vector"]).to_arrow().combine_chunks()
            values = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            rows = values.reshape(-1, self.info.dimension).astype(np.float32, copy=False)
            known |= dict(zip(table[column].to_pylist(), rows, strict=True))
        return known

    @reached
    def _rows(self, condition: str, columns: Sequence[str]) -> list[dict[str, Any]]:
        query = self._chunks.search().where(condition).select(list(columns)).limit(None)
        return list(query.to_arrow().to_pylist())

    def has_words(self) -> bool:
        """Return whether there is an index of words, without which no word is found."""
        return has_index(self._chunks, "text")

    # Writing

    def put_chunks(self, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """Write chunks with their vectors ``float32 [len(chunks), dimension]``; ids replace.

        One commit: readers see all of them or none.

        Raises:
            InputError: As many vectors of that length are not given.
        """
        if vectors.shape != (len(chunks), self.info.dimension):
            raise InputError(
                f"{len(chunks)} chunks need vectors [{len(chunks)}, {self.info.dimension}]; "
                f"given: {list(vectors.shape)}."
            )
        if chunks:
            rows = chunk_rows(chunks, vectors)
            self._write(lambda: merge(self._chunks, "chunk_id", rows))

    def put_documents(self, documents: Sequence[Document]) -> None:
        """Write what became of files; a path replaces its row."""
        if documents:
            self._write(lambda: merge(self._documents, "path", document_rows(documents)))

    def delete_stale(self, kept: Mapping[str, str]) -> None:
        """Delete the chunks of paths that are of another version than the one kept.

        Args:
            kept: A path to the ``source_id`` that stays; an empty one deletes all of the path's.
        """
        for part in _parts(list(kept)):
            current = [kept[path] for path in part if kept[path]]
            stays = f" AND NOT ({one_of('source_id', current)})" if current else ""
            self._delete(self._chunks, f"({one_of('path', part)}){stays}")

    def delete_documents(self, paths: Sequence[str]) -> None:
        """Forget files: their chunks first, so that an interruption is seen and mended."""
        self.delete_stale(dict.fromkeys(paths, ""))
        for part in _parts(list(paths)):
            self._delete(self._documents, one_of("path", part))

    def delete_chunks(self, chunk_ids: Sequence[str]) -> None:
        """Delete chunks by id."""
        for part in _parts(list(chunk_ids)):
            self._delete(self._chunks, one_of("chunk_id", part))

    def forget_documents(self) -> None:
        """Forget what files were like, so that all are read anew; chunks stay meanwhile."""
        self._delete(self._documents, "true")

    def forget_below(self, prefix: str) -> None:
        """Forget everything whose path begins with a prefix."""
        for table in (self._chunks, self._documents):
            self._delete(table, below(prefix))

    def _delete(self, table: "Table", condition: str) -> None:
        self._write(lambda: table.delete(condition))

    @reached
    def _write(self, write: Callable[[], object]) -> None:
        committed(write, self.before_write)

    def begin_migration(self, info: IndexInfo) -> "Store":
        """Return a store of another model's chunks beside this one; questions still go here."""
        schema = chunk_schema(info.dimension)
        made_table(self.database, chunks_name(info.fingerprint), schema)
        target = Store(self.uri, self.database, info)
        target.source, target.before_write = self.source, self.before_write
        return target

    def end_migration(self, info: IndexInfo) -> None:
        """Make facts those of the index, and drop the table that is no longer used."""
        write_facts(self.database, info)
        if info.fingerprint != self.info.fingerprint:
            self.database.drop_table(chunks_name(self.info.fingerprint))

    def refresh(self) -> None:
        """Bring the indexes up to the rows, and merge the small files that commits leave.

        Searching is right without it: rows no index has yet are compared one by one.
        """
        if self.count() > 0:
            make_indexes(self._chunks)
            for table in (self._chunks, self._documents):
                compact(table)


def _allowed() -> None:
    pass  # in a folder the lock is enough


def _below(query: _Query, prefix: str) -> _Query:
    return query.where(below(prefix)) if prefix else query


def _filtered(query: _Query, where: Where | None) -> _Query:
    condition = where.sql() if where is not None else None
    return query.where(condition) if condition else query


def _checked(limit: int) -> int:
    if limit < 1:
        raise InputError(f"limit is {limit}; it must be at least 1.")
    return limit


def _parts(ids: list[str]) -> Iterator[list[str]]:
    return (ids[start : start + _CLAUSE_IDS] for start in range(0, len(ids), _CLAUSE_IDS))
