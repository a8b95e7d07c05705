"""Chunks gathered until embedding and committing them together pays, across files."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import PurePosixPath

import numpy as np

from polyvec.engine.embedder import Embedder
from polyvec.search.chunks import Piece
from polyvec.search.rows import Chunk, Document, Vectors
from polyvec.search.runs import refresh
from polyvec.search.store import Store

COMMIT_EVERY_S = 10.0
"""What a killed run has to do again, at most: the work of so many seconds, about."""
_FIRST_TOKENS, _LEAST_TOKENS, _MOST_TOKENS = 16_384, 2_048, 1_000_000
_MOST_DOCUMENTS = 500
_COMPACT_EVERY = 100
"""Commits; each leaves a small file, and many of them make every search slower."""


class Batch:
    """Documents and chunks that are not in the index yet."""

    def __init__(self, store: Store, embedder: Embedder, on_tokens: Callable[[int], None]) -> None:
        self.store, self.embedder, self.on_tokens = store, embedder, on_tokens
        self.embedded_chunks = self.reused_chunks = self.tokens = 0
        self._chunks: list[Chunk] = []
        self._documents: list[Document] = []
        self._kept: dict[str, str] = {}
        self._waiting_tokens, self._target_tokens = 0, _FIRST_TOKENS
        self._commits = 0

    def add(self, document: Document, chunks: Sequence[tuple[Chunk, int]] | None) -> None:
        """Take a document with its chunks and their tokens; None leaves its chunks as they are."""
        for chunk, tokens in chunks or ():
            self._chunks.append(chunk)
            self._waiting_tokens += tokens
            if self._waiting_tokens >= self._target_tokens:
                self.flush()
        self._documents.append(document)
        if chunks is not None:
            self._kept[document.path] = chunks[0][0].source_id if chunks else ""
        if len(self._documents) >= _MOST_DOCUMENTS:
            self.flush()

    def flush(self) -> None:
        """Embed what is new and write everything: chunks, then what they replace, then documents.

        A document's row comes last, so one that is there has all of its chunks.
        """
        if self._chunks:
            self.store.put_chunks(self._chunks, self._vectors())
        self.store.delete_stale(self._kept)
        self.store.put_documents(self._documents)
        self._chunks, self._documents, self._kept = [], [], {}
        self._waiting_tokens = 0
        self._commits += 1
        if self._commits % _COMPACT_EVERY == 0:
            refresh(self.store)

    def _vectors(self) -> Vectors:
        texts = {chunk.text_id: chunk.embedded_text for chunk in self._chunks}
        known = self.store.known_vectors(list(texts))
        new = [text_id for text_id in texts if text_id not in known]
        if new:
            known |= dict(zip(new, self._embedded([texts[i] for i in new]), strict=True))
        self.embedded_chunks += len(new)
        self.reused_chunks += len(self._chunks) - len(new)
        return np.stack([known[chunk.text_id] for chunk in self._chunks])

    def _embedded(self, texts: list[str]) -> Vectors:
        begun, before = time.monotonic(), self.tokens
        embedding = self.embedder.embed(texts, "document", progress=self._count)
        rate = (self.tokens - before) / max(time.monotonic() - begun, 1e-3)
        wanted = int(rate * COMMIT_EVERY_S)
        self._target_tokens = min(max(wanted, _LEAST_TOKENS), _MOST_TOKENS)
        return embedding.vectors

    def _count(self, texts: int, tokens: int) -> None:
        self.tokens += tokens
        self.on_tokens(tokens)


def chunks_of(document: Document, pieces: Sequence[Piece]) -> list[tuple[Chunk, int]]:
    """Return a document's chunks, each with its tokens."""
    source_id = _hash(document.path, document.document_id)
    modified_at = datetime.fromtimestamp(document.modified_ns / 1e9, UTC)
    made = []
    for ordinal, piece in enumerate(pieces):
        chunk = Chunk(
            chunk_id=f"{source_id}-{ordinal}",
            source_id=source_id,
            document_id=document.document_id,
            text_id="",
            path=document.path,
            title=document.title or PurePosixPath(document.path).name,
            heading=piece.heading,
            page=piece.page,
            line_start=piece.line_start,
            line_end=piece.line_end,
            language=piece.language,
            file_type=document.file_type,
            modified_at=modified_at,
            ordinal=ordinal,
            text=piece.text,
        )
        made.append((replace(chunk, text_id=_hash(chunk.embedded_text)), piece.tokens))
    return made


def _hash(*texts: str) -> str:
    digest = hashlib.blake2b("\0".join(texts).encode(), digest_size=16)
    return digest.hexdigest()
