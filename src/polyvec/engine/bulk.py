"""Files of texts to a file of vectors: streamed, in bounded memory, resumable.

Finished chunks are appended to ``OUTPUT.partial/`` and only then counted in its ``state.json``,
so a run that is killed goes on after its last whole chunk. Which texts are computed together
depends on their place in the file alone, so the bytes written do not depend on where a run was
killed, on cores or on time (see :meth:`polyvec.engine.embedder.Embedder.steady`). When all rows
are done the output is written under a temporary name, renamed, and the partial folder removed.
What made the vectors is written beside them, in ``OUTPUT.json``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from polyvec.engine.plan import WINDOW_TEXTS
from polyvec.engine.rows import Row, RowId
from polyvec.engine.vectors import Vectors, disk_full_is_an_error, write_blocks
from polyvec.errors import InputError, ResumeError
from polyvec.model.tokens import OnEmpty, Truncate, text_problem
from polyvec.spec import Role, Spec, spec_facts

if TYPE_CHECKING:  # torch, which an embedder brings, takes a second to import
    from hashlib import blake2b as _Hash

    from polyvec.engine.embedder import Embedder, Embedding, Progress
    from polyvec.model.files import ModelFiles

MIN_CHUNK_ROWS = 256
MAX_CHUNK_ROWS = 2_048
"""What a kill may cost: about 20 s on two cores. Longer chunks would sort more texts by length,
for little speed."""
_CHUNK_WORK = 4e11
"""Parameters times rows of a chunk: as many seconds for a larger model."""
_MAX_CHUNK_CHARACTERS = 8_000_000


@dataclass(frozen=True)
class BulkSettings:
    """How the texts of a file are embedded."""

    role: Role = "document"
    instruction: str | None = None
    truncate: Truncate = "end"
    on_empty: OnEmpty = "error"
    dimensions: int | None = None

    def arguments(self) -> dict[str, Any]:
        """Return them as arguments of :meth:`polyvec.engine.embedder.Embedder.embed`."""
        return asdict(self)


@dataclass(frozen=True)
class BulkReport:
    """What a run did, over all its sittings."""

    rows: int
    resumed_rows: int
    """Rows an earlier, interrupted run had finished."""
    tokens: int
    """Tokens of all rows, before any cut."""
    cut: int
    """Rows that were longer than the model reads."""
    dimension: int
    seconds: float
    """Of this sitting."""
    tokens_per_s: float
    """Of this sitting."""

    def facts(self) -> dict[str, Any]:
        """Return them as plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _State:
    """What is safely in the partial folder."""

    made_by: dict[str, Any]
    rows: int = 0
    ids_bytes: int = 0
    tokens: int = 0
    cut: int = 0
    rows_hash: str = ""


def embed_rows(
    embedder: Embedder,
    rows: Iterator[Row],
    output: Path,
    settings: BulkSettings,
    *,
    restart: bool = False,
    progress: Progress | None = None,
) -> BulkReport:
    """Embed rows into a file, going on where an interrupted run stopped.

    Args:
        embedder: The model.
        rows: The whole input, also when resuming; see :func:`checked`.
        output: A path that passed :func:`polyvec.engine.vectors.check_writable`.
        settings: How to embed.
        restart: Throw away what an interrupted run had finished.
        progress: Called with (texts, tokens) as they are finished.

    Raises:
        InputError: A row cannot be read or embedded; the message has its line number. What was
            finished before it is kept.
        ResumeError: The partial folder is of another model, input or settings.
        DiskFullError: There is no room; what was finished is kept.
    """
    started = time.monotonic()
    embedder = embedder.steady()
    dimension = embedder.spec.check_dimensions(settings.dimensions)
    made = made_by(embedder.files, embedder.precision, embedder.spec, settings)
    partial = _Partial(output, made, restart)
    resumed, resumed_tokens = partial.skip_done(rows), partial.state.tokens
    if progress is not None and resumed:
        progress(resumed, 0)
    with disk_full_is_an_error(output):
        for chunk, embedding in _embed_chunks(embedder, rows, settings, progress, resumed):
            partial.append(chunk, embedding)
        partial.finish(dimension)
    state, seconds = partial.state, time.monotonic() - started
    return BulkReport(
        rows=state.rows,
        resumed_rows=resumed,
        tokens=state.tokens,
        cut=state.cut,
        dimension=dimension,
        seconds=seconds,
        tokens_per_s=(state.tokens - resumed_tokens) / seconds,
    )


def checked(rows: Iterator[Row], on_empty: OnEmpty) -> Iterator[Row]:
    """Pass rows on, and refuse one that cannot be embedded.

    Raises:
        InputError: A text is empty or no Unicode; the message has its line number.
    """
    for row in rows:
        problem = text_problem(row.text, on_empty)
        if problem is not None:
            raise InputError(f"{row.where}: the text {problem}")
        yield row


def made_by(
    files: ModelFiles, precision: str, spec: Spec, settings: BulkSettings
) -> dict[str, Any]:
    """Return what makes vectors what they are, as it is written beside them."""
    return {
        "model": str(files.path.name),
        "fingerprint": files.fingerprint(),
        "precision": precision,
        "settings": asdict(settings),
        "spec": spec_facts(spec),
    }


def chunk_rows(files: ModelFiles, is_resident: bool) -> int:
    """Return how many rows are computed together: a power of two, by the model alone.

    Files of vectors that begin at a multiple of it have the bytes of one file of all.
    """
    # A layer that is read or expanded anew should serve as many texts as there are.
    if not is_resident:
        return WINDOW_TEXTS
    rows = MIN_CHUNK_ROWS
    while 2 * rows <= min(MAX_CHUNK_ROWS, _CHUNK_WORK / files.architecture.num_parameters):
        rows *= 2
    return rows


def _embed_chunks(
    embedder: Embedder,
    rows: Iterator[Row],
    settings: BulkSettings,
    progress: Progress | None,
    start_row: int,
) -> Iterator[tuple[list[Row], Embedding]]:
    size = chunk_rows(embedder.files, embedder.runner.is_resident)
    for chunk in _chunks(rows, size, start_row):
        texts = [row.text for row in chunk]
        yield chunk, embedder.embed(texts, progress=progress, **settings.arguments())


def _chunks(rows: Iterator[Row], size: int, start_row: int) -> Iterator[list[Row]]:
    """Cut rows at each multiple of ``size``, and where they are long in between."""
    chunk: list[Row] = []
    characters = 0
    for number, row in enumerate(rows, start_row + 1):
        chunk.append(row)
        characters += len(row.text)
        if number % size == 0 or characters >= _MAX_CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def made_on() -> dict[str, str]:
    """Return what the bytes depend on beside the model: processors and versions differ in sums."""
    import torch

    return {"torch": torch.__version__, "processor": torch.backends.cpu.get_cpu_capability()}


def rows_hash() -> _Hash:
    """Return the hash of no rows; :func:`count_row` adds one."""
    return hashlib.blake2b(digest_size=16)


def count_row(digest: _Hash, row: Row) -> None:
    """Add a row, its id and its text, to a hash."""
    digest.update(orjson.dumps((row.id, row.text)))


class _Partial:
    """The folder of finished chunks beside an output."""

    def __init__(self, output: Path, made_by: dict[str, Any], restart: bool) -> None:
        self.output = output
        self.folder = output.with_name(output.name + ".partial")
        self.vectors, self.ids = self.folder / "vectors.f32", self.folder / "ids.jsonl"
        self.state_file = self.folder / "state.json"
        self.hash = rows_hash()
        if restart and self.folder.exists():
            shutil.rmtree(self.folder)
        self.state = self._read(made_by)

    def _read(self, made_by: dict[str, Any]) -> _State:
        if not self.state_file.exists():
            return _State(made_by)
        state = _State(**orjson.loads(self.state_file.read_bytes()))
        ours = orjson.loads(orjson.dumps(made_by))
        differing = [key for key in ours if ours[key] != state.made_by.get(key)]
        if differing:
            raise ResumeError(
                f"{self.folder} holds {state.rows:,} rows of an interrupted run with another "
                f"{' and '.join(differing)}. Run it again as it was, or use --restart to throw "
                "them away."
            )
        return state

    def skip_done(self, rows: Iterator[Row]) -> int:
        """Pass over the finished rows, making sure they are the same; return how many."""
        if self.state.rows == 0:
            return 0
        for row in islice(rows, self.state.rows):
            self._count(row)
        if self.hash.hexdigest() != self.state.rows_hash:
            raise ResumeError(
                f"The first {self.state.rows:,} rows of the input are not those that {self.folder} "
                "was made from. Give the same input, or use --restart to throw its vectors away."
            )
        return self.state.rows

    def _count(self, row: Row) -> None:
        count_row(self.hash, row)

    def append(self, rows: list[Row], embedding: Embedding) -> None:
        """Write a chunk, and only then count it."""
        self.folder.mkdir(exist_ok=True)
        for row in rows:
            self._count(row)
        ids = b"".join(orjson.dumps(row.id, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
        width = embedding.vectors.shape[1] * embedding.vectors.itemsize
        _write_at(self.vectors, self.state.rows * width, embedding.vectors.tobytes())
        _write_at(self.ids, self.state.ids_bytes, ids)
        self.state = replace(
            self.state,
            rows=self.state.rows + len(rows),
            ids_bytes=self.state.ids_bytes + len(ids),
            tokens=self.state.tokens + sum(embedding.token_counts),
            cut=self.state.cut + len(embedding.cut),
            rows_hash=self.hash.copy().hexdigest(),
        )
        write_whole(self.state_file, orjson.dumps(asdict(self.state)))

    def finish(self, dimension: int) -> None:
        """Write the output and what made it; remove the folder."""
        parts, rows = self._parts(dimension), self.state.rows
        write_blocks(self.output, parts, rows, dimension, self._finished_ids())
        facts: dict[str, Any] = {"rows": self.state.rows, "dimension": dimension}
        facts |= {"tokens": self.state.tokens}
        facts |= {"cut": self.state.cut, "input_hash": self.hash.hexdigest()}
        facts |= {"made_on": made_on(), **self.state.made_by}
        manifest = self.output.with_name(self.output.name + ".json")
        write_whole(manifest, orjson.dumps(facts, option=orjson.OPT_INDENT_2))
        shutil.rmtree(self.folder, ignore_errors=not self.state.rows)

    def _parts(self, dimension: int) -> Iterator[Vectors]:
        """Read the vectors in parts: a mapped file's pages would count as this process's memory."""
        if self.state.rows:
            with self.vectors.open("rb") as file:
                while (part := np.fromfile(file, np.float32, MIN_CHUNK_ROWS * dimension)).size:
                    yield part.reshape(-1, dimension)

    def _finished_ids(self) -> Iterator[RowId]:
        if self.state.rows:
            with self.ids.open("rb") as lines:
                yield from (orjson.loads(line) for line in lines)


def _write_at(path: Path, place: int, data: bytes) -> None:
    """Write at a place, dropping whatever an interrupted write left behind it, and sync."""
    with path.open("r+b" if path.exists() else "wb") as file:
        file.truncate(place)
        file.seek(place)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file at once: its old or its new content, never a part."""
    partial = path.with_name(f".{path.name}.writing")
    partial.write_bytes(data)
    partial.replace(path)
