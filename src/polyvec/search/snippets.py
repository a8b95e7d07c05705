"""The part of a passage that has most of a query's words, and where they are in it."""

import re
import unicodedata
from dataclasses import dataclass

_JOINED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
)
"""Thai, Lao, Burmese, Khmer, kana and Han: written without spaces, so parts of a run are words."""
_MARKS = "\u0300-\u036f\u064b-\u065f\u0900-\u0963\u0966-\u0dff"
"""Accents of their own, Arabic's vowels, and India's scripts, whose vowels are no letters to re."""
_STEM_LETTERS = 5
"""A word that goes on after so many letters of the query's is marked too: vector, vectors."""
_SNIPPET_CHARACTERS = 240


@dataclass(frozen=True)
class Snippet:
    """A part of a text, on one line."""

    text: str
    marks: tuple[tuple[int, int], ...]
    """Where the query's words are in it: start and end."""
    start: int
    """Where it starts in the whole text."""
    cut_before: bool
    cut_after: bool


def snippet(text: str, query: str, characters: int = _SNIPPET_CHARACTERS) -> Snippet:
    """Return the part with most of the query's words; the beginning where it has none of them."""
    found = matches(text, query)
    start, end = _window(text, found, characters)
    inside = [(a, b) for a, b in found if a >= start and b <= end]
    line, marks = _on_one_line(text[start:end], [(a - start, b - start) for a, b in inside])
    return Snippet(line, marks, start, start > 0, end < len(text))


def matches(text: str, query: str) -> list[tuple[int, int]]:
    """Return where a query's words are in a text: case and accents aside, in order, apart."""
    terms = words_of(_folded(query))
    if not terms:
        return []
    folded = _folded(text)
    spans = sorted(m.span() for term in terms for m in re.finditer(_pattern(term), folded))
    merged: list[tuple[int, int]] = []
    for start, end in spans:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def folded_words(text: str) -> set[str]:
    """Return a text's words without case and accents; pairs of neighbours in joined scripts."""
    return set(words_of(_folded(text)))


def is_joined(term: str) -> bool:
    """Whether a term is of a script that is written without spaces."""
    return re.match(f"[{_JOINED}]", term) is not None


def words_of(text: str) -> list[str]:
    """Return a folded text's words, and pairs of neighbours in scripts without spaces.

    Words of one or two letters are only there where there are no others.
    """
    terms: set[str] = set()
    for word in re.findall(rf"[{_JOINED}]+|(?:[^\W_{_JOINED}]|[{_MARKS}])+", text):
        if is_joined(word) and len(word) > 2:
            terms |= {word[i : i + 2] for i in range(len(word) - 1)}
        else:
            terms.add(word)
    long = {term for term in terms if len(term) > 2 or is_joined(term)}
    return sorted(long or terms)


def _pattern(term: str) -> str:
    if is_joined(term):
        return re.escape(term)
    rest = r"\w*" if len(term) >= _STEM_LETTERS else r"(?!\w)"
    return rf"(?<!\w){re.escape(term)}{rest}"


def _folded(text: str) -> str:
    """Return a text without case and accents, a character for a character."""
    return "".join(map(_folded_sign, text))


def _folded_sign(sign: str) -> str:
    if sign.isascii():
        return sign.lower()
    base = unicodedata.normalize("NFD", sign)[0].casefold()
    return base[0] if base else sign


def _window(text: str, found: list[tuple[int, int]], characters: int) -> tuple[int, int]:
    """Return the stretch with the most different words, cut between words."""
    if len(text) <= characters:
        return 0, len(text)
    if not found:
        return 0, _border(text, characters)
    lead = characters // 4
    starts = [max(0, a - lead) for a, _ in found]
    start = max(starts, key=lambda s: _worth(text, found, s, s + characters))
    start = 0 if start == 0 else _border(text, min(start, len(text) - characters))
    return start, _border(text, start + characters)


def _worth(text: str, found: list[tuple[int, int]], start: int, end: int) -> tuple[int, int]:
    """Count letters of different words, and then words; the earliest of equals wins."""
    inside = [text[a:b].casefold() for a, b in found if a >= start and b <= end]
    return sum(map(len, set(inside))), len(inside)


def _border(text: str, place: int) -> int:
    """Return the start of a word at or a little before a place."""
    if place >= len(text):
        return len(text)
    for near in range(place, max(0, place - 30), -1):
        if text[near - 1].isspace():
            return near
    return place


def _on_one_line(
    text: str, marks: list[tuple[int, int]]
) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Make every run of white space one space, and move marks with it."""
    places, signs = [], list[str]()
    for sign in text:
        places.append(len(signs))
        if not sign.isspace():
            signs.append(sign)
        elif signs and signs[-1] != " ":
            signs.append(" ")
    places.append(len(signs))
    moved = tuple((places[a], places[b]) for a, b in marks)
    return "".join(signs).rstrip(), moved
