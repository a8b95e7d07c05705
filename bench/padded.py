"""What engines that take rectangles are given: tokens in batches sorted by length and filled up."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
BATCH_TEXTS = 16
MAX_TOKENS = 2048

Run = Callable[[Ids, Ids], npt.NDArray[np.float32]]
"""Ids and mask, [B, S], to vectors [B, D]."""


class Padded:
    """Embeds texts of any length by an engine that takes rectangles."""

    def __init__(self, folder: Path, run: Run) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.run = run

    def embed(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """Return a vector for each text, batches made of texts of like numbers of tokens."""
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]
        order = sorted(range(len(ids)), key=lambda index: -len(ids[index]))
        found: dict[int, npt.NDArray[np.float32]] = {}
        for start in range(0, len(order), BATCH_TEXTS):
            batch = order[start : start + BATCH_TEXTS]
            vectors = self.run(*_rectangle([ids[index] for index in batch]))
            found |= dict(zip(batch, vectors, strict=True))
        return np.stack([found[index] for index in range(len(texts))])


def _rectangle(ids: list[list[int]]) -> Iterator[Ids]:
    """Give ids and mask."""
    shape = len(ids), max(len(row) for row in ids)
    filled, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, given in enumerate(ids):
        filled[row, : len(given)], mask[row, : len(given)] = given, 1
    yield from (filled, mask)
