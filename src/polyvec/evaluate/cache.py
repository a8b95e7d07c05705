"""Vectors that were made once: on disk, found again by fingerprint and exact text.

One SQLite file a fingerprint, so that a killed run loses only its last chunk, several processes
may read and write, and a vector of one model can never be taken for another's.
"""

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from polyvec.disk import full_disk_is_an_error
from polyvec.errors import OutputError, ResumeError
from polyvec.spec import Role

Vectors = npt.NDArray[np.float32]

_CHUNK_TEXTS = 256
"""Texts embedded between two commits: what a kill may cost."""
_ASKED_AT_ONCE = 500
_LOCK_TIMEOUT_S = 60.0


class Encoder(Protocol):
    """Any model that embeds."""

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""

    @property
    def fingerprint(self) -> str:
        """What makes its vectors what they are; another one means other vectors."""

    def encode_query(self, texts: Sequence[str], instruction: str | None = None) -> Vectors:
        """Return ``float32 [texts, dimension]``."""

    def encode_document(self, texts: Sequence[str]) -> Vectors:
        """Return ``float32 [texts, dimension]``."""


class VectorCache:
    """The vectors of one encoder, in a folder shared by all."""

    def __init__(self, folder: Path, encoder: Encoder) -> None:
        """Open or make the file of this encoder's fingerprint.

        Raises:
            OutputError: The folder cannot be written.
            ResumeError: The file there holds vectors of another fingerprint or length.
        """
        self.encoder = encoder
        name = hashlib.blake2b(encoder.fingerprint.encode(), digest_size=12).hexdigest()
        self.path = folder / f"{name}.sqlite"
        self.embedded = 0
        """Texts that were not there and had to be embedded."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._prepare()
        except (OSError, sqlite3.Error) as error:
            raise OutputError(
                f"The cache of vectors {self.path} cannot be used: {error}. Name another folder "
                "with --cache."
            ) from error

    def encode(
        self,
        texts: Sequence[str],
        role: Role,
        instruction: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Vectors:
        """Return a vector a text, from the cache where it is there, and keep the new ones.

        Empty and white texts have zeros for a vector: no model is asked about them.

        Args:
            texts: Any texts; the same one twice is embedded once.
            role: ``query`` or ``document``.
            instruction: The task of queries; part of what a vector is found by.
            progress: Called with (texts, characters) done since the last call.

        Returns:
            ``float32 [texts, dimension]`` in order.

        Raises:
            DiskFullError: There is no room for new vectors.
        """
        keys = [_key(text, role, instruction) for text in texts]
        with closing(self._connect()) as connection:
            missing = _missing(connection, dict(zip(keys, texts, strict=True)))
            if progress is not None:
                progress(len(texts) - len(missing), 0)
            for chunk in _chunks(missing):
                self._embed(connection, chunk, role, instruction)
                if progress is not None:
                    progress(len(chunk), sum(map(len, chunk.values())))
            return self._read(connection, keys, texts)

    def _embed(
        self,
        connection: sqlite3.Connection,
        chunk: dict[bytes, str],
        role: Role,
        instruction: str | None,
    ) -> None:
        texts = list(chunk.values())
        if role == "query":
            vectors = self.encoder.encode_query(texts, instruction)
        else:
            vectors = self.encoder.encode_document(texts)
        if vectors.shape != (len(texts), self.encoder.dimension):
            raise ResumeError(
                f"{self.encoder.fingerprint} gave vectors of shape {list(vectors.shape)} for "
                f"{len(texts)} texts; {self.encoder.dimension} numbers each were expected."
            )
        rows = zip(chunk, (np.ascontiguousarray(v, "<f4").tobytes() for v in vectors), strict=True)
        advice = "Make room and run the same command again: it goes on where it stopped."
        with full_disk_is_an_error(self.path, advice), connection:
            connection.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows)
        self.embedded += len(texts)

    def _read(
        self, connection: sqlite3.Connection, keys: Sequence[bytes], texts: Sequence[str]
    ) -> Vectors:
        vectors = np.zeros((len(keys), self.encoder.dimension), np.float32)
        for start in range(0, len(keys), _ASKED_AT_ONCE):
            part = keys[start : start + _ASKED_AT_ONCE]
            found = dict(connection.execute(_asking("key, vector", len(part)), part))
            for row, key in enumerate(part, start):
                if texts[row].strip():
                    vectors[row] = np.frombuffer(found[key], "<f4")
        return vectors

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=_LOCK_TIMEOUT_S)

    def _prepare(self) -> None:
        facts = {
            "fingerprint": self.encoder.fingerprint,
            "dimension": str(self.encoder.dimension),
        }
        with closing(self._connect()) as connection, connection:
            connection.execute("CREATE TABLE IF NOT EXISTS facts (name PRIMARY KEY, value)")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB) "
                "WITHOUT ROWID"
            )
            connection.executemany("INSERT OR IGNORE INTO facts VALUES (?, ?)", facts.items())
            there = dict(connection.execute("SELECT name, value FROM facts"))
        if there != facts:
            raise ResumeError(f"{self.path} holds vectors of {there}, not of {facts}. Remove it.")


def _key(text: str, role: Role, instruction: str | None) -> bytes:
    """Hash what the model is given; an instruction of None is another one than an empty one."""
    head = f"{role}\0{'-' if instruction is None else '+' + instruction}\0"
    return hashlib.blake2b((head + text).encode("utf-8", "surrogatepass"), digest_size=20).digest()


def _asking(columns: str, count: int) -> str:
    marks = ",".join("?" * count)
    return f"SELECT {columns} FROM vectors WHERE key IN ({marks})"  # noqa: S608 (our own words)


def _missing(connection: sqlite3.Connection, texts: dict[bytes, str]) -> dict[bytes, str]:
    keys = list(texts)
    there: set[bytes] = set()
    for start in range(0, len(keys), _ASKED_AT_ONCE):
        part = keys[start : start + _ASKED_AT_ONCE]
        there.update(row[0] for row in connection.execute(_asking("key", len(part)), part))
    return {k: text for k, text in texts.items() if k not in there and text.strip()}


def _chunks(texts: dict[bytes, str]) -> Iterator[dict[bytes, str]]:
    """Give chunks of texts of like length, which are embedded fastest together."""
    keys = sorted(texts, key=lambda key: len(texts[key]))
    for start in range(0, len(keys), _CHUNK_TEXTS):
        yield {key: texts[key] for key in keys[start : start + _CHUNK_TEXTS]}
