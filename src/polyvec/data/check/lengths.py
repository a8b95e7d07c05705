"""How long texts are, in tokens or characters."""

from collections.abc import Callable, Sequence

import numpy as np

Measure = Callable[[Sequence[str]], list[int]]

_BATCH_TEXTS = 1_024
_SHARES = (0.5, 0.9, 0.99, 1.0)


class Lengths:
    """The lengths of one kind of text."""

    def __init__(self, measure: Measure) -> None:
        self.measure = measure
        self._waiting: list[str] = []
        self._counts = np.zeros(1, dtype=np.int64)
        """How many texts there are of each length."""

    def add(self, text: str) -> None:
        """Take a text in; it is measured with others."""
        self._waiting.append(text)
        if len(self._waiting) >= _BATCH_TEXTS:
            self._settle()

    def _settle(self) -> None:
        lengths = np.bincount(self.measure(self._waiting), minlength=len(self._counts))
        lengths[: len(self._counts)] += self._counts
        self._counts, self._waiting = lengths, []

    def facts(self, limit: int | None) -> dict[str, int]:
        """Return the number of texts, lengths at shares of them, and how many exceed a limit."""
        if self._waiting:
            self._settle()
        texts = int(self._counts.sum())
        up_to = np.cumsum(self._counts)
        facts = {"texts": texts}
        for share in _SHARES:
            name = "max" if share == 1 else f"p{round(share * 100)}"
            facts[name] = int(np.searchsorted(up_to, share * texts)) if texts else 0
        if limit is not None:
            facts["over_limit"] = int(self._counts[limit + 1 :].sum())
        return facts
