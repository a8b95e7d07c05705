"""What part of a question a passage says: the question's words it has, rare ones counting more.

Full text ranks a passage that has one common word of a question, and gives it a place like any
other; fused by rank alone, such places would push down what was found by meaning. So a place by
words counts as much as the part of the question that is said there.
"""

import re
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TypeVar

import numpy as np

from polyvec.search.snippets import is_joined, words_of

Key = TypeVar("Key", bound=Hashable)

_LATIN = re.compile("[\u00c0-\u024f\u0300-\u036f\u1e00-\u1eff]")
_UNLIKE = {"æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "ł": "l", "ı": "i", "ŋ": "n"}
"""Letters that have no accent to lose, as full-text search folds them."""


def question_shares(
    question: str, found: Mapping[Key, str], beside: Iterable[str]
) -> dict[Key, float]:
    """Return what part of a question each text says that was found by its words, over 0 to 1.

    The question's words count by how rare they are, in BM25's measure, among all texts here: in
    German documents "the" of an English question is rare, and in English ones it is not.

    Args:
        question: Any text; without a word that can be told, every part is 1.
        found: Texts that full-text search found: each has a word at least.
        beside: The other candidates, which meaning alone found.
    """
    tests = [_test(word) for word in words_of(_folded(question))]
    if not tests or not found:
        return dict.fromkeys(found, 1.0)
    has_NW = _has([*found.values(), *beside], tests)
    texts, having_W = len(has_NW), has_NW.sum(axis=0)
    rarity_W = np.log1p((texts - having_W + 0.5) / (having_W + 0.5))
    least = float(rarity_W.min())  # search may see a word where this does not: other inflections
    said_F = np.maximum(has_NW[: len(found)] @ rarity_W, least) / rarity_W.sum()
    return dict(zip(found, map(float, said_F), strict=True))


def _has(texts: Iterable[str], tests: list[Callable[[str], object]]) -> np.ndarray:
    """Return which texts have which words, ``float64 [texts, words]`` of 0 and 1."""
    rows = [[bool(test(folded)) for test in tests] for folded in map(_folded, texts)]
    return np.array(rows, dtype=np.float64)


def _test(word: str) -> Callable[[str], object]:
    """Return what says whether a folded text has a word: as a whole, where words have spaces."""
    if is_joined(word):
        return lambda text: word in text
    whole = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)").search
    return lambda text: word in text and whole(text)  # most words are not there: quickly told


def _folded(text: str) -> str:
    """Return a text without case and without the accents of Latin letters."""
    text = text.casefold()
    if not text.isascii():
        for sign in set(_LATIN.findall(text)):  # a few of them, many times each
            text = text.replace(sign, _bare(sign))
    return text


def _bare(sign: str) -> str:
    if unicodedata.combining(sign):
        return ""
    return _UNLIKE.get(sign) or unicodedata.normalize("NFD", sign)[0]
