"""An index's database: connected to, its facts read and written, rows merged into a table."""

import os
import random
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from types import ModuleType
from typing import TYPE_CHECKING

import orjson

from polyvec.errors import (
    IndexMismatchError,
    IndexMissingError,
    MissingExtraError,
    StorageError,
)
from polyvec.search.rows import FORMAT, IndexInfo
from polyvec.search.storage import storage_options as options_of
from polyvec.search.tables import chunk_schema, document_schema, facts_rows, facts_schema

if TYPE_CHECKING:
    import pyarrow
    from lancedb import DBConnection
    from lancedb.table import Table

FACTS, DOCUMENTS = "facts", "documents"
_ATTEMPTS = 5
_COMMIT_ATTEMPTS = 30


def chunks_name(fingerprint: str) -> str:
    """Return the name of the table of a model's chunks."""
    return f"chunks_{fingerprint}"


def write_facts(database: "DBConnection", info: IndexInfo, *, update: bool = True) -> None:
    """Make facts those of the index, in one commit; not ``update`` leaves those there are."""
    rows = facts_rows(orjson.dumps(info.facts()).decode())
    committed(lambda: merge(database.open_table(FACTS), "key", rows, update=update))


def merge(table: "Table", key: str, rows: "pyarrow.Table", *, update: bool = True) -> None:
    """Write rows under a key: new ones are added, known ones replaced, or kept (not ``update``)."""
    writer = table.merge_insert(key).when_not_matched_insert_all()
    (writer.when_matched_update_all() if update else writer).execute(rows)


def committed(write: Callable[[], object], before: Callable[[], None] = lambda: None) -> None:
    """Write, and again where another writer's commit came first, until it is done.

    Args:
        write: What writes; doing it twice must be doing it once.
        before: Called before every attempt; raises where this run may write no longer.

    Raises:
        StorageError: Other writers came first for minutes on end.
    """
    for attempt in range(_COMMIT_ATTEMPTS):
        before()
        try:
            write()
        except RuntimeError as error:
            if not _is_conflict(error):
                raise
            time.sleep(random.uniform(0, min(0.1 * 2**attempt, 15.0)))  # noqa: S311 (no secret)
        else:
            return
    raise StorageError(
        f"Other writers were quicker {_COMMIT_ATTEMPTS} times in a row. Run the same command again "
        "when fewer of them write to this index."
    )


def _is_conflict(error: RuntimeError) -> bool:
    said = str(error).lower()
    return "conflict" in said or "contention" in said or "concurrent writers" in said


def check_same(uri: str, info: IndexInfo, fingerprint: str, model: str = "this model") -> None:
    """Refuse a model that did not make the index's vectors.

    Raises:
        IndexMismatchError: It did not; the message names the command that migrates.
    """
    if info.fingerprint != fingerprint:
        raise IndexMismatchError(
            f"The index {uri} has vectors of {info.model} (fingerprint {info.fingerprint}), and "
            f"{model} has {fingerprint}: their vectors cannot be compared. Use --model "
            f"{info.model}, or embed the index anew: polyvec index {_folder(info)} --index {uri} "
            "--model MODEL --migrate"
        )


def attempted(maintenance: Callable[[], object]) -> None:
    """Do what keeps an index fast; where other writers are always quicker, leave it to them.

    Searching is right without it, and every run that changes something tries again.
    """
    for attempt in range(_ATTEMPTS):
        try:
            maintenance()
        except RuntimeError as error:
            if not _is_conflict(error):
                raise
            time.sleep(random.uniform(0, 0.2 * 2**attempt))  # noqa: S311 (no secret)
        else:
            return


def connect(uri: str, storage_options: Mapping[str, str] | None) -> "DBConnection":
    """Connect to a folder or an object store; every read sees the newest version.

    Raises:
        InputError: The place or an option is none.
        MissingExtraError: LanceDB is not installed.
    """
    options = options_of(uri, storage_options)
    every_time = timedelta(0)
    return _lancedb().connect(
        uri, read_consistency_interval=every_time, storage_options=options or None
    )


def made_table(database: "DBConnection", name: str, schema: "pyarrow.Schema") -> "Table":
    """Return a table, made if it is not there; another run may make it at the same moment."""
    if name in table_names(database):
        return database.open_table(name)
    try:
        return database.create_table(name, schema=schema)
    except (RuntimeError, ValueError, OSError):
        if name not in table_names(database):
            raise
        return database.open_table(name)


def made_index(database: "DBConnection", info: IndexInfo) -> IndexInfo:
    """Make an index's tables and return its facts: another run's, where that came first."""
    made_table(database, DOCUMENTS, document_schema())
    made_table(database, chunks_name(info.fingerprint), chunk_schema(info.dimension))
    made_table(database, FACTS, facts_schema())
    write_facts(database, info, update=False)
    return read_facts(database) or info


def table_names(database: "DBConnection") -> list[str]:
    """Return the names of the tables there are."""
    return list(database.list_tables(limit=1_000).tables)


def _lancedb() -> ModuleType:
    os.environ.setdefault("LANCE_LOG", "error")  # else every new table is a warning on stderr
    try:
        import lancedb
    except ImportError as error:
        raise MissingExtraError(
            "Indexes are kept by LanceDB, which is not installed: pip install 'polyvec[search]'."
        ) from error
    return lancedb


def read_facts(database: "DBConnection") -> IndexInfo | None:
    """Return the facts of an index, None where there is none yet.

    The facts are written last, so an index that was being made has none either.
    """
    if FACTS not in table_names(database):
        return None
    rows = database.open_table(FACTS).search().limit(None).to_arrow().to_pylist()
    if not rows:
        return None
    facts = orjson.loads(rows[0]["value"])
    if facts["format"] > FORMAT:
        raise IndexMismatchError(
            f"The index {database.uri} has format {facts['format']} and this polyvec reads "
            f"{FORMAT}: a newer polyvec made it. Update polyvec: pip install -U 'polyvec[search]'."
        )
    return IndexInfo.of(facts)


def check_facts(uri: str, found: IndexInfo | None, wanted: IndexInfo) -> None:
    """Refuse an index that is not as wanted.

    Raises:
        IndexMismatchError: It has another model or cut.
        IndexMissingError: It is gone.
    """
    if found is None:
        raise no_index(uri)
    check_same(uri, found, wanted.fingerprint, wanted.model)
    if found.chunking != wanted.chunking:
        raise other_cut(uri, found, wanted)


def _folder(info: IndexInfo) -> str:
    return info.root or "FOLDER"


def no_index(uri: str) -> IndexMissingError:
    """Return the error of a place without an index."""
    return IndexMissingError(f"There is no index at {uri}. Make it: polyvec index FOLDER")


def other_cut(uri: str, found: IndexInfo, asked: IndexInfo) -> IndexMismatchError:
    """Return the error of an index that is cut in another way than asked for."""
    old, new = found.chunking, asked.chunking
    return IndexMismatchError(
        f"The index {uri} has chunks of {old.max_tokens} tokens with {old.overlap_tokens} "
        f"overlapping, and {new.max_tokens} with {new.overlap_tokens} were asked for. Leave the "
        f"sizes out, or cut everything anew: polyvec index {_folder(found)} --index {uri} "
        f"--chunk-tokens {new.max_tokens} --overlap-tokens {new.overlap_tokens} --migrate"
    )
