"""Models whose vectors a test can work out by hand."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


class WordCounts:
    """Counts of hashed words: texts with words in common are near."""

    def __init__(self, dimension: int = 64, fingerprint: str = "words", salt: str = "") -> None:
        self.dimension, self.fingerprint, self.salt = dimension, fingerprint, salt
        self.asked: list[str] = []

    def encode_query(
        self, texts: Sequence[str], instruction: str | None = None
    ) -> npt.NDArray[np.float32]:
        return self._encode([f"{instruction} {text}" if instruction else text for text in texts])

    def encode_document(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return self._encode(texts)

    def _encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.asked += texts
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                place = sum((n + 1) * ord(c) for n, c in enumerate(self.salt + word))
                vectors[row, place % self.dimension] += 1
        return vectors


class Killed(WordCounts):
    """Stops, as a killed run does, after some texts."""

    def __init__(self, texts: int) -> None:
        super().__init__()
        self.left = texts

    def _encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.left -= len(texts)
        if self.left < 0:
            raise KeyboardInterrupt
        return super()._encode(texts)
