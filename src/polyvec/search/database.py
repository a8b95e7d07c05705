"""An index's database: connected to, its facts read and written, rows merged into a table."""

import random
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from types import ModuleType
from typing import TYPE_CHECKING

import orjson

from polyvec.errors import IndexMismatchError, IndexMissingError, MissingExtraError
from polyvec.search.rows import FORMAT, IndexInfo
from polyvec.search.tables import facts_rows

if TYPE_CHECKING:
    import pyarrow
    from lancedb import DBConnection
    from lancedb.table import Table

FACTS = "facts"
_ATTEMPTS = 5


def chunks_name(fingerprint: str) -> str:
    """Return the name of the table of a model's chunks."""
    return f"chunks_{fingerprint}"


def write_facts(database: "DBConnection", info: IndexInfo) -> None:
    """Make facts those of the index, in one commit."""
    merge(database.open_table(FACTS), "key", facts_rows(orjson.dumps(info.facts()).decode()))


def merge(table: "Table", key: str, rows: "pyarrow.Table") -> None:
    """Write rows under a key: new ones are added, known ones replaced."""
    writer = table.merge_insert(key).when_matched_update_all().when_not_matched_insert_all()
    writer.execute(rows)


def check_same(uri: str, info: IndexInfo, fingerprint: str, model: str = "this model") -> None:
    """Refuse a model that did not make the index's vectors.

    Raises:
        IndexMismatchError: It did not; the message names the command that migrates.
    """
    if info.fingerprint != fingerprint:
        raise IndexMismatchError(
            f"The index {uri} has vectors of {info.model} (fingerprint {info.fingerprint}), and "
            f"{model} has {fingerprint}: their vectors cannot be compared. Use --model "
            f"{info.model}, or embed the index anew: polyvec index {info.root} --index {uri} "
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
            if "conflict" not in str(error):
                raise
            time.sleep(random.uniform(0, 0.2 * 2**attempt))  # noqa: S311 (no secret)
        else:
            return


def connect(uri: str, storage_options: Mapping[str, str] | None) -> "DBConnection":
    """Connect to a folder or an object store; every read sees the newest version.

    Raises:
        MissingExtraError: LanceDB is not installed.
    """
    options = dict(storage_options) if storage_options else None
    return _lancedb().connect(uri, read_consistency_interval=timedelta(0), storage_options=options)


def _lancedb() -> ModuleType:
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
    if FACTS not in database.list_tables(limit=1_000).tables:
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


def no_index(uri: str) -> IndexMissingError:
    """Return the error of a place without an index."""
    return IndexMissingError(f"There is no index at {uri}. Make it: polyvec index FOLDER")


def other_cut(uri: str, found: IndexInfo, asked: IndexInfo) -> IndexMismatchError:
    """Return the error of an index that is cut in another way than asked for."""
    old, new = found.chunking, asked.chunking
    return IndexMismatchError(
        f"The index {uri} has chunks of {old.max_tokens} tokens with {old.overlap_tokens} "
        f"overlapping, and {new.max_tokens} with {new.overlap_tokens} were asked for. Leave the "
        f"sizes out, or cut everything anew: polyvec index {found.root} --index {uri} "
        f"--chunk-tokens {new.max_tokens} --overlap-tokens {new.overlap_tokens} --migrate"
    )
