"""The rows of an index as Arrow tables, and back."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC
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

    return pa.schema({"key": pa.string(), "value": pa.string()})


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


def chunk_of(row: Mapping[str, Any]) -> Chunk:
    """Return the chunk of a row."""
    values = {name: row[name] for name in CHUNK_COLUMNS}
    return Chunk(**(values | {"modified_at": row["modified_at"].astimezone(UTC)}))


def document_of(row: Mapping[str, Any]) -> Document:
    """Return the document of a row."""
    values = {name: row[name] for name in _DOCUMENT_COLUMNS}
    return Document(**(values | {"indexed_at": row["indexed_at"].astimezone(UTC)}))
