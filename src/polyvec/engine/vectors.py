"""Vectors and their ids to a file: ``.npy``, ``.jsonl`` or ``.parquet``."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson

from polyvec.disk import full_disk_is_an_error
from polyvec.engine.rows import RowId
from polyvec.errors import OutputError
from polyvec.records.table import parquet_module

SUFFIXES = (".npy", ".jsonl", ".parquet")

_BLOCK_ROWS = 1_024
_JSON = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE

Vectors = npt.NDArray[np.float32]


def check_writable(path: Path, force: bool = False) -> None:
    """Refuse an output that cannot be written, before any work is done.

    Raises:
        OutputError: The ending is unknown, the folder is missing or not writable, or something
            is there already and ``force`` is not set.
        MissingExtraError: Parquet is asked for and pyarrow is not installed.
    """
    if path.suffix not in SUFFIXES:
        raise OutputError(f"{path} must end in one of {', '.join(SUFFIXES)}.")
    if path.suffix == ".parquet":
        parquet_module()
    if path.is_dir() or (path.exists() and not force):
        raise OutputError(f"{path} exists already; use --force to replace it, or another name.")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise OutputError(f"{path} cannot be written: there is no folder {folder}. Make it first.")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{path} cannot be written: the folder {folder} is not writable.")


def json_line(row_id: RowId, vector: Vectors) -> bytes:
    """Return a JSONL line: ``{"id": ..., "embedding": [...]}``, shortest exact float32 digits."""
    return orjson.dumps({"id": row_id, "embedding": np.ascontiguousarray(vector)}, option=_JSON)


def write_blocks(
    path: Path, parts: Iterator[Vectors], rows: int, width: int, ids: Iterator[RowId]
) -> None:
    """Write vectors in the format of the path's ending, under a temporary name, then rename.

    They come in parts, together ``[rows, width]``; the file has the same bytes however they are
    parted. Parquet's ids are strings, because an Arrow column has one type; ``.npy`` has no ids,
    its rows are in the order of the input.

    Raises:
        DiskFullError: There is no room; the temporary file is removed.
    """
    partial = path.with_name(f".{path.name}.writing")
    write = {".npy": _write_npy, ".jsonl": _write_jsonl, ".parquet": _write_parquet}[path.suffix]
    try:
        with disk_full_is_an_error(path):
            write(partial, _blocks(parts), (rows, width), ids)
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _blocks(parts: Iterator[Vectors]) -> Iterator[Vectors]:
    """Cut and join parts into blocks of equal rows, the last one aside."""
    held: list[Vectors] = []
    for part in parts:
        start = 0
        while start < len(part):
            end = start + _BLOCK_ROWS - sum(map(len, held))
            held.append(part[start:end])
            start = end
            if sum(map(len, held)) == _BLOCK_ROWS:
                yield np.concatenate(held)
                held = []
    if held:
        yield np.concatenate(held)


def _write_npy(
    path: Path, blocks: Iterator[Vectors], shape: tuple[int, int], _ids: Iterator[RowId]
) -> None:
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(block.tobytes())


def _write_jsonl(
    path: Path, blocks: Iterator[Vectors], _shape: tuple[int, int], ids: Iterator[RowId]
) -> None:
    with path.open("wb") as file:
        for block in blocks:
            for vector, row_id in zip(block, ids, strict=False):
                file.write(json_line(row_id, vector))


def _write_parquet(
    path: Path, blocks: Iterator[Vectors], shape: tuple[int, int], ids: Iterator[RowId]
) -> None:
    parquet = parquet_module()
    import pyarrow as pa

    width = shape[1]
    schema = pa.schema([("id", pa.string()), ("embedding", pa.list_(pa.float32(), width))])
    with parquet.ParquetWriter(path, schema) as writer:
        for block in blocks:
            names = pa.array([str(row_id) for row_id in islice(ids, len(block))], pa.string())
            flat = pa.array(np.ascontiguousarray(block).reshape(-1))
            column = pa.FixedSizeListArray.from_arrays(flat, width)
            writer.write_table(pa.Table.from_arrays([names, column], schema=schema))


def disk_full_is_an_error(path: Path) -> AbstractContextManager[None]:
    """Turn "no space left" into an error that says where.

    Raises:
        DiskFullError: The disk of ``path`` is full.
    """
    advice = "Make room and run the same command again: it goes on where it stopped."
    return full_disk_is_an_error(path, advice)
