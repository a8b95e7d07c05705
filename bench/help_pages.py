"""What the quality bench takes of LibreOffice's help (``polyvec.sources.help_pages``).

Only held-out pages: no polyvec model is trained on them.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from polyvec.sources.help_pages import HelpPages, Page

LANGUAGES = (
    "en-US", "ca", "cs", "da", "de", "el", "es", "et", "fi", "fr", "hi", "hu", "id", "it", "ja",
    "ko", "nl", "pl", "pt-BR", "ru", "sv", "tr", "vi", "zh-CN",
)  # fmt: skip
MIN_CHARACTERS, MAX_CHARACTERS = 40, 400


@dataclass(frozen=True)
class Retrieval:
    """Queries, and for each the one document that answers it, at the same place."""

    language: str
    queries: list[str]
    documents: list[str]


def paragraphs(pages: HelpPages, each: int) -> list[str]:
    """Draw ``each`` paragraphs a language: no translations of each other, none left in English."""
    english = {text for _, text in _paragraphs(pages.by_language["en-US"])}
    draw, ids, chosen = random.Random(0), set[str](), list[str]()
    for language, texts in pages.by_language.items():
        foreign = english if language != "en-US" else set[str]()
        found = {t: i for i, t in _paragraphs(texts) if t not in foreign and i not in ids}
        drawn = draw.sample(sorted(found), each)
        ids.update(found[text] for text in drawn)
        chosen += drawn
    return chosen


def _paragraphs(pages: Mapping[str, Page]) -> list[tuple[str, str]]:
    """Return every paragraph of a fitting length, with its id."""
    found = [(i, text) for page in pages.values() for i, text in page.paragraphs.items()]
    return [(i, text) for i, text in found if MIN_CHARACTERS <= len(text) <= MAX_CHARACTERS]


def retrieval(language: str, pages: Mapping[str, Page]) -> Retrieval:
    """Return titles as queries and the starts of their pages' bodies as documents."""
    starts = {page.title: page.body[:MAX_CHARACTERS] for page in pages.values()}
    texts = {body: title for title, body in starts.items() if len(body) >= 100}
    return Retrieval(language, list(texts.values()), list(texts))  # one of those that share a body
