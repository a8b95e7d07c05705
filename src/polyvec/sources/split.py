"""What is held out: no polyvec model is trained on it, and only it measures one.

A fifth of Debian's source packages and a tenth of LibreOffice's help pages, by a hash of their
names, are for tests only. Several binary packages of one source share their text, so the source
decides. Paragraphs are also repeated across pages and sources, so whatever else equals a held-out
text is dropped from training.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Literal

Split = Literal["train", "test"]

SOURCES_HELD_OUT = 5
"""One Debian source package in so many."""
PAGES_HELD_OUT = 10
"""One help page in so many."""


def source_split(source: str) -> Split:
    """Return which side a Debian source package is on: ``md5(source) % 5 == 0`` is a test."""
    return "test" if _hash(source) % SOURCES_HELD_OUT == 0 else "train"


def page_split(page: str) -> Split:
    """Return which side a help page is on, by its path below ``text/`` without the language.

    ``swriter/01/01120000.html``; ``md5(page) % 10 == 0`` is a test.
    """
    return "test" if _hash(page) % PAGES_HELD_OUT == 0 else "train"


def _hash(name: str) -> int:
    return int(hashlib.md5(name.encode(), usedforsecurity=False).hexdigest(), 16)


def plain(text: str) -> str:
    """Return what is compared: composed characters, small letters, single blanks."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


class HeldOut:
    """The texts that no one trains on; ``text in held_out`` compares as :func:`plain` does."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._texts = {plain(text) for text in texts} - {""}

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and plain(text) in self._texts

    def __len__(self) -> int:
        return len(self._texts)

    def __iter__(self) -> Iterator[str]:
        """Yield the texts as they are compared."""
        return iter(self._texts)

    def __or__(self, other: "HeldOut") -> "HeldOut":
        """Return the union of both."""
        joined = HeldOut()
        joined._texts = self._texts | other._texts
        return joined
