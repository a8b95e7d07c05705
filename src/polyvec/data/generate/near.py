"""Texts that were seen before, exactly or nearly."""

from typing import Any

from polyvec.data.identity import normalized, text_key
from polyvec.errors import MissingExtraError

_LETTERS = 4
_PERMUTATIONS, _BANDS, _SEED = 128, 32, 42
"""Bands of 4 find pairs from an overlap of about .4 on; the threshold then decides. The seed is
the one that the library's deduplicator expects."""


class Seen:
    """Remembers texts.

    Args:
        threshold: Texts whose sets of 4 letters overlap by this much (Jaccard) are one; 1 or more
            compares whole texts only. Letters, not words: some languages write no spaces.
    """

    def __init__(self, threshold: float) -> None:
        self._keys: set[int] = set()
        self._near: Any = None
        if threshold < 1:
            self._near = rensa_module().RMinHashDeduplicator(
                threshold=threshold,
                num_perm=_PERMUTATIONS,
                use_lsh=True,
                num_bands=_BANDS,
            )

    def add(self, text: str) -> bool:
        """Remember a text; return whether it is new."""
        key = text_key(text)
        if key in self._keys:
            return False
        self._keys.add(key)
        return self._near is None or bool(self._near.add(str(key), _sketch(normalized(text))))


def _sketch(text: str) -> Any:  # noqa: ANN401 (rensa is untyped)
    sketch = rensa_module().RMinHash(num_perm=_PERMUTATIONS, seed=_SEED)
    last = max(1, len(text) - _LETTERS + 1)
    sketch.update([text[i : i + _LETTERS] for i in range(last)])
    return sketch


def rensa_module() -> Any:  # noqa: ANN401 (untyped and optional)
    """Return ``rensa``.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import rensa
    except ImportError as error:
        raise MissingExtraError(
            "Finding near duplicates needs rensa, which is not installed: pip install "
            "'polyvec[generate]'. Without it give --near-duplicate 1."
        ) from error
    return rensa
