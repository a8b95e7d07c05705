"""Do an answer's citations hold? Numbers that were not given, passages that do not say it."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from polyvec.search.rows import Vectors
from polyvec.search.snippets import folded_words

Verdict = Literal["supported", "unsupported", "unknown"]
"""The passage says it, by the rule below; it does not; there is no passage of that number."""

MIN_OVERLAP = 0.5
"""A passage that has this part of a sentence's words supports it. So far a choice, not a
measurement; the check is a warning and no proof."""
MAX_COSINE_BEHIND = 0.1
"""In another language words do not meet: then the passage must be nearly the nearest of those
given to the sentence, in meaning."""

MAX_FOREIGN_OVERLAP = 0.2
"""Sentence and passage that share more of their words than this are in one language."""

_CITED = re.compile(r"[\[【](\d+(?:\s*[,;、]\s*\d+)*)[\]】]")
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])(?=\s|[^\W\d_]|$)|\n+")


@dataclass(frozen=True)
class Citation:
    """A number in an answer, and whether it holds."""

    number: int
    verdict: Verdict
    sentence: str
    """What it is to prove, without the numbers."""
    start: int
    """Where its brackets are in the answer."""
    end: int


def check_citations(
    answer: str,
    passages: Sequence[str],
    nearness: Callable[[str], Vectors] | None = None,
) -> list[Citation]:
    """Check every citation of an answer, in order.

    A sentence is supported by a passage that has all of its numbers, and half of its words or,
    where words cannot meet, nearly the highest cosine among the passages.

    Args:
        answer: With citations such as ``[1]`` or ``[1, 3]``, after what they prove.
        passages: Number 1 first.
        nearness: A sentence to its cosine with each passage ``float32 [len(passages)]``; None
            leaves words alone to decide.
    """
    found = []
    for sentence_start, sentence in _sentences(answer):
        claim = re.sub(r"\s+([.,;:!?。])", r"\1", _CITED.sub(" ", sentence)).strip()
        for match in _CITED.finditer(sentence):
            for number in map(int, re.findall(r"\d+", match[1])):
                verdict = _verdict(claim, number, passages, nearness)
                start, end = sentence_start + match.start(), sentence_start + match.end()
                found.append(Citation(number, verdict, claim, start, end))
    return found


def uncited_sentences(answer: str) -> list[str]:
    """Return the sentences that cite nothing."""
    every = [sentence.strip() for _, sentence in _sentences(answer)]
    return [one for one in every if len(one.split()) > 2 and not _CITED.search(one)]


def _sentences(answer: str) -> list[tuple[int, str]]:
    """Return sentences and where they start; citations after a full stop belong before it."""
    cuts = [match.end() for match in _SENTENCE_END.finditer(answer)]
    starts, sentences = [0, *cuts], list[tuple[int, str]]()
    for start, end in zip(starts, [*cuts, len(answer)], strict=True):
        text = answer[start:end]
        leading = re.match(rf"\s*(?:{_CITED.pattern}\s*)+\.?", text)
        if leading and sentences:
            before, words = sentences[-1]
            sentences[-1] = (before, words + leading[0])
            start, text = start + leading.end(), text[leading.end() :]
        if text.strip():
            sentences.append((start, text))
    return sentences


def _verdict(
    claim: str,
    number: int,
    passages: Sequence[str],
    nearness: Callable[[str], Vectors] | None,
) -> Verdict:
    if not 1 <= number <= len(passages):
        return "unknown"
    said = folded_words(passages[number - 1])
    words = folded_words(claim)
    if not words:
        return "unsupported"
    if not _numbers(claim) <= _numbers(passages[number - 1]):
        return "unsupported"
    if len(words & said) >= MIN_OVERLAP * len(words):
        return "supported"
    if nearness is None:
        return "unsupported"
    cosines = nearness(claim)
    is_near = float(cosines[number - 1]) >= float(np.max(cosines)) - MAX_COSINE_BEHIND
    are_two_languages = len(words & said) <= MAX_FOREIGN_OVERLAP * len(words)
    return "supported" if is_near and are_two_languages else "unsupported"


def _numbers(text: str) -> set[str]:
    return set(re.findall(r"\d+", re.sub(r"^\s*\d+[.)]\s", "", text)))
