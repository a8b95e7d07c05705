"""The rows of an index as Arrow tables, and back."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from polyvec.search.rows import Chunk, Document, Vectors

if TYPE_CHECKING:
    import pyarrow

CHUNK_COLUMNS = [field.name for field in fields(Chunk)]
_DOCUMENT_COLUMNS = [field.name for field in fields(Document)]


def chunk_schema(dimension: int) -> "pyarrow.Schema":
    """Return the columns of a chunk, and its vector ``float32 [dimension]``."""
    import pyarrow as pa

    types = dict.fromkeys(CHUNK_COLUMNS, pa.string())
    types |= dict.fromkeys(("page", "line_start", "line_end", "ordinal"), pa.int32())
    types |= {"modified_at": pa.timestamp("us", tz="UTC")}
    types |= {"vector": pa.list_(pa.float32(), dimension)}
    return pa.schema(types)


def document_schema() -> "pyarrow.Schema":
    """Return the columns of a document."""
    import pyarrow as pa

    types = dict.fromkeys(_DOCUMENT_COLUMNS, pa.string())
    types |= dict.fromkeys(("size_bytes", "modified_ns", "tokens"), pa.int64())
    types |= {"chunks": pa.int32(), "indexed_at": pa.timestamp("us", tz="UTC")}
    return pa.schema(types)


def facts_schema() -> "pyarrow.Schema":
    """Return the columns of the facts: a key, and a value in JSON."""
    import pyarrow as pa

    return pa.schema([_key("key"), pa.field("value", pa.string())])


def turns_schema() -> "pyarrow.Schema":
    """Return the columns of a turn."""
    import pyarrow as pa

    texts = [pa.field("holder", pa.string()), pa.field("who", pa.string())]
    when = pa.field("since", pa.timestamp("us", tz="UTC"))
    return pa.schema([_key("name"), *texts, pa.field("beat", pa.int64()), when])


def sources_schema() -> "pyarrow.Schema":
    """Return the columns of a place that a source was indexed from."""
    import pyarrow as pa

    texts = [pa.field("place", pa.string()), pa.field("name", pa.string())]
    return pa.schema([_key("key"), *texts, pa.field("claimed_at", pa.timestamp("us", tz="UTC"))])


def _key(name: str) -> "pyarrow.Field":
    """Return a column that Lance keeps unique among writers.

    Without that mark, two writers that insert the same new key at once both succeed.
    """
    import pyarrow as pa

    mark = {"lance-schema:unenforced-primary-key": "true"}
    return pa.field(name, pa.string(), nullable=False, metadata=mark)


def chunk_rows(chunks: Sequence[Chunk], vectors: Vectors) -> "pyarrow.Table":
    """Return chunks with their vectors as a table."""
    import pyarrow as pa

    schema = chunk_schema(vectors.shape[1])
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
    columns: dict[str, Any] = {n: [getattr(c, n) for c in chunks] for n in CHUNK_COLUMNS}
    columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    return pa.table(columns, schema=schema)


def document_rows(documents: Sequence[Document]) -> "pyarrow.Table":
    """Return documents as a table."""
    import pyarrow as pa

    columns = {n: [getattr(d, n) for d in documents] for n in _DOCUMENT_COLUMNS}
    return pa.table(columns, schema=document_schema())


def facts_rows(value: str) -> "pyarrow.Table":
    """Return the one row of the facts."""
    import pyarrow as pa

    return pa.table({"key": ["index"], "value": [value]}, schema=facts_schema())


def turn_row(name: str, holder: str, beat: int, who: str, since: datetime) -> "pyarrow.Table":
    """Return the row of a turn."""
    row = {"name": name, "holder": holder, "who": who, "beat": beat, "since": since}
    return _one(row, turns_schema())


def source_row(key: str, place: str, name: str, claimed_at: datetime) -> "pyarrow.Table":
    """Return the row of a place that a source is indexed from."""
    row = {"key": key, "place": place, "name": name, "claimed_at": claimed_at}
    return _one(row, sources_schema())


def _one(row: Mapping[str, object], schema: "pyarrow.Schema") -> "pyarrow.Table":
    import pyarrow as pa

    return pa.Table.from_pylist([dict(row)], schema=schema)


def chunk_of(row: Mapping[str, Any]) -> Chunk:
    """Return the chunk of a row."""
    values = {name: row[name] for name in CHUNK_COLUMNS}
    return Chunk(**(values | {"modified_at": row["modified_at"].astimezone(UTC)}))


def document_of(row: Mapping[str, Any]) -> Document:
    """Return the document of a row."""
    values = {name: row[name] for name in _DOCUMENT_COLUMNS}
    return Document(**(values | {"indexed_at": row["indexed_at"].astimezone(UTC)}))
