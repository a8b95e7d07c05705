"""The process that reads and cuts files: ``python -m polyvec.search.worker``.

Requests and replies are JSON with four bytes of length before them, on standard input and output.
It ends when its input does, so it does not outlive a killed parent by more than a file.
"""

import hashlib
import os
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import tokenizers

from polyvec.errors import InputError, PolyvecError
from polyvec.search.chunks import Cutter, Piece
from polyvec.search.documents import read_document
from polyvec.search.kinds import actual_kind, kind_of
from polyvec.search.rows import ChunkSettings
from polyvec.search.settings import MB, ReadSettings

_START_BYTES = 8_192


@dataclass(frozen=True)
class Reading:
    """What became of one file."""

    document_id: str = ""
    """The hash of its bytes."""
    file_type: str = ""
    title: str = ""
    pieces: tuple[Piece, ...] = ()
    problem: str = ""
    """Why it could not be read."""
    is_known: bool = False
    """It has the content it was known to have, and was not read."""
    is_binary: bool = False
    """It is no text and no document."""

    @classmethod
    def of(cls, facts: dict[str, Any]) -> "Reading":
        """Return what a reply says."""
        return cls(**(facts | {"pieces": tuple(Piece(*piece) for piece in facts["pieces"])}))


def read_frame(stream: BinaryIO) -> bytes | None:
    """Return a message, or None at the end of the stream."""
    size = stream.read(4)
    if len(size) < 4:
        return None
    content = stream.read(int.from_bytes(size, "big"))
    return content if len(content) == int.from_bytes(size, "big") else None


def write_frame(stream: BinaryIO, content: bytes) -> None:
    """Write a message."""
    stream.write(len(content).to_bytes(4, "big") + content)
    stream.flush()


def read_and_cut(
    root: Path, path: str, known_id: str, cutter: Cutter, settings: ReadSettings
) -> Reading:
    """Read one file.

    Args:
        root: The folder.
        path: From the root, with ``/``.
        known_id: The content it had, or empty.
        cutter: Cuts its text.
        settings: Limits.
    """
    place = root / path
    kind = kind_of(path)
    document_id = ""
    try:
        document_id, start = _hashed(root, place)
        if document_id == known_id:
            return Reading(document_id, is_known=True)
        kind = actual_kind(kind, start)
        if kind is None:
            return Reading(document_id, is_binary=True)
        text = read_document(place, kind, settings)
        title = text.title or place.name
        return Reading(document_id, kind.file_type, title, tuple(cutter.cut(text, kind)))
    except InputError as error:
        problem = str(error)
    except OSError as error:
        problem = error.strerror or str(error)
    except MemoryError:
        problem = f"reading it takes more than {settings.read_memory_mb:,} MB of memory"
    return Reading(document_id, kind.file_type if kind else "", problem=problem)


def _hashed(root: Path, place: Path) -> tuple[str, bytes]:
    """Return a file's hash and first bytes.

    Raises:
        InputError: The path leads out of the folder: a part of it has become a link.
    """
    real = place.resolve(strict=True)
    if not real.is_relative_to(root):
        raise InputError("it lies outside the folder")
    descriptor = os.open(real, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | _DO_NOT_WAIT)
    with os.fdopen(descriptor, "rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
        file.seek(0)
        return digest.hexdigest(), file.read(_START_BYTES)


_DO_NOT_WAIT = getattr(os, "O_NONBLOCK", 0)
"""Opening a pipe that nobody writes to would wait for ever."""


def _limit_memory(megabytes: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limit; the one of time holds
        return
    resource.setrlimit(resource.RLIMIT_AS, (megabytes * MB, megabytes * MB))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _plain_piece(piece: Piece) -> list[Any]:
    return [getattr(piece, field.name) for field in fields(Piece)]


def main() -> None:
    """Serve requests until the input ends."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come among the replies
    requests = sys.stdin.buffer
    given = orjson.loads(read_frame(requests) or b"{}")
    settings = ReadSettings(**given["read"])
    tokenizer = tokenizers.Tokenizer.from_str(given["tokenizer"])
    cutter = Cutter(tokenizer, ChunkSettings(**given["chunking"]))
    _limit_memory(settings.read_memory_mb)
    root = Path(given["root"])
    while (frame := read_frame(requests)) is not None:
        asked = orjson.loads(frame)
        try:
            reading = read_and_cut(root, asked["path"], asked["known_id"], cutter, settings)
            facts = asdict(reading) | {"pieces": [_plain_piece(p) for p in reading.pieces]}
            reply: dict[str, Any] = {"reading": facts}
        except PolyvecError as error:  # no file's fault: an extra is missing
            reply = {"error": [type(error).__name__, str(error)]}
        write_frame(replies, orjson.dumps(reply))


if __name__ == "__main__":
    main()
