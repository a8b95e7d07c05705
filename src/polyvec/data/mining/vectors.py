"""Unit vectors of many texts, in files that are found again by what is in them.

A shard is 1,024 texts. Its file is named by a hash of the texts in a folder named by the model, so
a run that was interrupted, or another one over the same corpus, computes only what is missing.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from polyvec.disk import full_disk_is_an_error
from polyvec.engine.peers import Peer
from polyvec.errors import InputError
from polyvec.spec import Role, check_choice

SHARD_TEXTS = 1_024
"""What a kill may cost."""
_READ_ROWS = 4_096
"""Shards are read together up to so many rows, for larger products."""

StoredType = Literal["float16", "float32"]
Stored = npt.NDArray[np.float16] | npt.NDArray[np.float32]
Vectors = npt.NDArray[np.float32]
Progress = Callable[[int], None]
"""Called with how many texts were done since the last call."""


class Reading(NamedTuple):
    """How a model reads texts."""

    role: Role
    instruction: str | None = None

    def encode(self, peer: Peer, texts: Sequence[str]) -> Vectors:
        """Return unit vectors, ``float32 [texts, d]``.

        The instruction is left out for models that were not made for one.

        Raises:
            InputError: The model's vector of a text has no direction.
        """
        if self.role == "document":
            vectors = peer.encode_document(texts)
        else:
            told = self.instruction if peer.takes_instructions else None
            vectors = peer.encode_query(texts, told)
        return _unit(vectors, texts, peer)


class VectorStore:
    """A folder of shards."""

    def __init__(self, folder: Path, stored_type: StoredType = "float16") -> None:
        check_choice("store", stored_type, StoredType)
        self.folder, self.stored_type = folder, stored_type
        self.computed = 0
        """Texts embedded so far; the others were there."""

    def shards(
        self, peer: Peer, texts: Iterable[str], reading: Reading, progress: Progress | None = None
    ) -> list[Path]:
        """Return the files with the vectors of texts, computing those that are not there."""
        folder = self.folder / peer.fingerprint
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        source = iter(texts)
        while part := list(islice(source, SHARD_TEXTS)):
            path = folder / f"{_key(part, reading)}.{self.stored_type}.npy"
            if not path.exists():
                self._write(path, peer, part, reading, progress)
            elif progress is not None:
                progress(len(part))
            paths.append(path)
        return paths

    def _write(
        self,
        path: Path,
        peer: Peer,
        texts: Sequence[str],
        reading: Reading,
        progress: Progress | None,
    ) -> None:
        vectors = reading.encode(peer, texts).astype(self.stored_type)
        self.computed += len(texts)
        if progress is not None:
            progress(len(texts))
        partial = path.with_name(f".{path.name}.writing")
        try:
            with full_disk_is_an_error(path, "Make room and run it again: it goes on from here."):
                with partial.open("wb") as file:
                    np.save(file, vectors)
                partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def open_shard(path: Path) -> Stored:
    """Return a shard's vectors, read from disk as they are used."""
    vectors: Stored = np.load(path, mmap_mode="r")
    return vectors


def read_shards(paths: Sequence[Path]) -> Iterator[tuple[int, Stored]]:
    """Give (first row, vectors) of shards, several at a time."""
    row = 0
    for start in range(0, len(paths), step := max(1, _READ_ROWS // SHARD_TEXTS)):
        vectors = np.concatenate([open_shard(path) for path in paths[start : start + step]])
        yield row, vectors
        row += len(vectors)


def gather(shards: Sequence[Path], rows: npt.NDArray[np.int64]) -> Vectors:
    """Read rows, given in rising order, from shards: ``float32 [len(rows), d]``."""
    parts: list[Vectors] = []
    first = 0
    for path in shards:
        vectors = open_shard(path)
        start, stop = np.searchsorted(rows, (first, first + len(vectors)))
        if stop > start or not parts:
            parts.append(np.asarray(vectors[rows[start:stop] - first], dtype=np.float32))
        first += len(vectors)
    return np.concatenate(parts)


def _key(texts: Sequence[str], reading: Reading) -> str:
    digest = hashlib.blake2b(repr(reading).encode(), digest_size=16)
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()


def _unit(vectors_ND: Vectors, texts: Sequence[str], peer: Peer) -> Vectors:
    norms = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(norms[:, 0]) & (norms[:, 0] > 0)))
    if len(bad):
        raise InputError(
            f"{peer.name} gives no usable vector for {texts[int(bad[0])]!r:.80} (its length is "
            f"{norms[bad[0], 0]}). Take the text out, or another model."
        )
    result: Vectors = vectors_ND / norms
    return result
