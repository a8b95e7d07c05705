"""What keeps a table of chunks fast: its indexes, and few files. Searching is right without it."""

from datetime import timedelta
from typing import TYPE_CHECKING

from polyvec.search.database import attempted
from polyvec.search.quantized import is_quantized, vector_index

if TYPE_CHECKING:
    from lancedb.index import FTS, BTree, IvfRq
    from lancedb.table import Table

OLD_VERSIONS_KEPT = timedelta(hours=1)
"""What a reader that began before still reads."""


def has_index(table: "Table", column: str) -> bool:
    """Return whether a column has an index."""
    return any(list(index.columns) == [column] for index in table.list_indices())


def make_indexes(chunks: "Table") -> None:
    """Make the indexes that chunks should have and have not."""
    for column in ("chunk_id", "text_id", "path", "text"):
        if not has_index(chunks, column):
            attempted(lambda column=column: _make_index(chunks, column))  # type: ignore[misc]
    dimension = chunks.schema.field("vector").type.list_size
    if is_quantized(chunks.count_rows(), dimension) and not has_index(chunks, "vector"):
        attempted(lambda: _make_index(chunks, "vector"))


def compact(table: "Table") -> None:
    """Bring a table's indexes up to its rows, and merge the small files that commits leave."""
    attempted(lambda: table.optimize(cleanup_older_than=OLD_VERSIONS_KEPT))


def _make_index(chunks: "Table", column: str) -> None:
    chunks.create_index(column, config=_index_of(column))


def _index_of(column: str) -> "FTS | BTree | IvfRq":
    from lancedb.index import FTS, BTree

    if column == "text":
        return FTS(base_tokenizer="icu", stem=False, remove_stop_words=False)
    return vector_index() if column == "vector" else BTree()
