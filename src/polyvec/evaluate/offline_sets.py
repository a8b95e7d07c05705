"""The offline benchmark's texts, from Debian's packages: what is asked, and what is right.

Only what :mod:`polyvec.sources.split` holds out is asked. Whatever is drawn is drawn by a hash of
its name, so the sets are the same everywhere for one edition of Debian.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from polyvec.errors import MissingExtraError
from polyvec.sources.descriptions import Description, Descriptions
from polyvec.sources.help_pages import HelpPages, parallel_paragraphs

HELP_LANGUAGES = (
    "ca", "cs", "da", "de", "el", "es", "et", "fi", "fr", "hu", "id",
    "it", "ja", "ko", "nl", "pl", "pt-BR", "ru", "sv", "tr", "vi", "zh-CN",
)  # fmt: skip
LANGUAGES = (
    "da", "it", "fr", "de", "sk", "ja", "pt-BR", "uk", "ko",
    "pl", "ru", "es", "cs", "pt", "zh-CN", "fi", "sr", "nl",
)  # fmt: skip
MONOLINGUAL = ("de", "it", "ja", "ru")
SECTIONS = (
    "admin", "database", "editors", "electronics", "fonts", "games", "graphics", "hamradio",
    "mail", "math", "net", "science", "sound", "text", "video", "web",
)  # fmt: skip
"""Topics; Debian's other sections are programming languages or kinds of package."""
SECTION_LANGUAGES = ("en", "de", "it", "ja", "ru", "fr")
HELP_PAIRS, POOL, MAX_QUERIES = 150, 2_000, 200
EXAMPLES_EACH, TESTS_EACH, MIN_TESTS = 40, 40, 5
MIN_CHARACTERS, MAX_CHARACTERS = 20, 400
HARD_RANK = 10
"""A query is hard where BM25 does not have the right document among so many."""
_WORD = re.compile(r"\w+")
_UNSPACED = re.compile("[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]")


@dataclass(frozen=True)
class Pairs:
    """Translations, at the same places."""

    other: list[str]
    english: list[str]


@dataclass(frozen=True)
class Search:
    """Queries by id, documents by id, and the one right document of each query."""

    queries: dict[str, str]
    documents: dict[str, str]
    right: dict[str, str]


@dataclass(frozen=True)
class Labelled:
    """Texts and their topics, at the same places."""

    texts: list[str]
    labels: list[str]


def help_pairs(pages: HelpPages) -> dict[str, Pairs]:
    """Draw 150 English paragraphs that all 22 languages have translated, and the translations."""
    tests = pages.of("test").by_language
    found = {x: parallel_paragraphs(tests["en-US"], tests[x]) for x in HELP_LANGUAGES}
    common = set.intersection(*(set(pairs) for pairs in found.values()))
    chosen: list[str] = []
    taken = {language: set[str]() for language in found}
    for english in sorted(common, key=_hash):
        fits = MIN_CHARACTERS <= len(english) <= MAX_CHARACTERS
        if fits and not any(found[x][english] in taken[x] for x in found):
            chosen.append(english)
            for x in found:
                taken[x].add(found[x][english])
    chosen = chosen[:HELP_PAIRS]
    return {x: Pairs([found[x][text] for text in chosen], chosen) for x in found}


def pool(tests: Descriptions) -> list[str]:
    """Draw 2,000 packages, one a source, those with most translations first."""
    by_language = tests.by_language

    def rank(text: Description) -> tuple[int, str]:
        return -sum(text.package in by_language[x] for x in LANGUAGES), _hash(text.package)

    distinct = _distinct(sorted(tests.english.values(), key=rank))
    return [text.package for text in distinct][:POOL]


def shorts(tests: Descriptions) -> dict[str, Search]:
    """Ask with a short line in one language for the same line among the pool's English ones."""
    packages = pool(tests)
    documents = {package: tests.english[package].short for package in packages}
    return {x: _across(tests, x, packages, documents) for x in LANGUAGES}


def crosslingual(tests: Descriptions) -> dict[str, Search]:
    """Ask with a short line in one language for the pool's English long description."""
    packages = pool(tests)
    documents = {package: start(tests.english[package].long) for package in packages}
    return {x: _across(tests, x, packages, documents) for x in LANGUAGES}


def _across(
    tests: Descriptions, language: str, packages: Sequence[str], documents: dict[str, str]
) -> Search:
    """Take up to 200 of the pool's short lines that are not left in English."""
    found = tests.by_language[language]
    translated = (p for p in packages if p in found and found[p].short != tests.english[p].short)
    chosen = sorted(translated, key=_hash)[:MAX_QUERIES]
    queries = {package: found[package].short for package in chosen}
    return Search(queries, documents, {package: package for package in chosen})


def hard(sets: Mapping[str, Search]) -> dict[str, Search]:
    """Keep the queries whose right document BM25 does not have among its first ten.

    Raises:
        MissingExtraError: bm25s is not installed.
    """
    kept = {}
    for language, search in sets.items():
        missed = bm25_ranks(search) >= HARD_RANK
        chosen = [name for name, is_hard in zip(search.queries, missed, strict=True) if is_hard]
        queries = {name: search.queries[name] for name in chosen}
        kept[language] = Search(queries, search.documents, {x: search.right[x] for x in chosen})
    return kept


def english(tests: Descriptions) -> dict[str, Search]:
    """Ask with 200 of the pool's English short lines for the long description."""
    packages = pool(tests)
    chosen = sorted(packages, key=_hash)[:MAX_QUERIES]
    queries = {package: tests.english[package].short for package in chosen}
    documents = {package: start(tests.english[package].long) for package in packages}
    return {"en": Search(queries, documents, {package: package for package in chosen})}


def monolingual(tests: Descriptions) -> dict[str, Search]:
    """Ask with 200 short lines for the long descriptions of the same 200, in one language."""
    sets = {}
    for language in MONOLINGUAL:
        drawn = _distinct(_drawn(tests.by_language[language]))[:MAX_QUERIES]
        queries = {text.package: text.short for text in drawn}
        documents = {text.package: start(text.long) for text in drawn}
        sets[language] = Search(queries, documents, {name: name for name in queries})
    return sets


def section_examples(train: Descriptions) -> Labelled:
    """Draw 40 English texts of each of 16 sections, from sources that are not held out."""
    return _labelled(_distinct(_drawn(train.english)), EXAMPLES_EACH)


def section_tests(tests: Descriptions) -> dict[str, Labelled]:
    """Draw up to 40 held-out texts of each section in six languages; under 5, none."""
    return {
        x: _labelled(_distinct(_drawn(tests.by_language[x])), TESTS_EACH, MIN_TESTS)
        for x in SECTION_LANGUAGES
    }


def _labelled(texts: Sequence[Description], each: int, at_least: int = 1) -> Labelled:
    chosen: list[Description] = []
    for section in SECTIONS:
        found = [text for text in texts if text.section == section][:each]
        chosen += found if len(found) >= at_least else []
    return Labelled(
        [start(f"{text.short} {text.long}") for text in chosen], [text.section for text in chosen]
    )


def start(text: str) -> str:
    """Return a text's first 400 characters."""
    return text[:MAX_CHARACTERS]


def _drawn(texts: Mapping[str, Description]) -> list[Description]:
    return sorted(texts.values(), key=lambda text: _hash(text.package))


def _distinct(texts: Iterable[Description]) -> list[Description]:
    """Keep the first of each source, and of those that share a short line or a beginning."""
    seen: set[str] = set()
    kept = []
    for text in texts:
        facts = {f"source {text.source}", text.short, start(text.long)}
        if not facts & seen:
            seen |= facts
            kept.append(text)
    return kept


def _hash(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def words(text: str) -> list[str]:
    """Split into small-letter words; Chinese, Japanese and Korean into pairs of characters."""
    found = []
    for word in _WORD.findall(text.lower()):
        pairs = [word[i : i + 2] for i in range(max(1, len(word) - 1))]
        found += pairs if _UNSPACED.search(word) else [word]
    return found


def bm25_ranks(search: Search) -> np.ndarray:
    """Return, for each query, how many documents BM25 places no lower than the right one.

    BM25 as bm25s has it (Lucene's, k1 1.5, b 0.75), over :func:`words`. A tie counts as higher:
    where no word is shared, nothing is found.

    Raises:
        MissingExtraError: bm25s is not installed.
    """
    places = {name: place for place, name in enumerate(search.documents)}
    scores_QD = bm25_scores(tuple(search.queries.values()), tuple(search.documents.values()))
    right = np.array([places[search.right[name]] for name in search.queries], dtype=int)
    found = scores_QD[np.arange(len(right)), right]
    return (scores_QD >= found[:, None]).sum(axis=1) - 1


@lru_cache(maxsize=64)
def bm25_scores(queries: tuple[str, ...], documents: tuple[str, ...]) -> np.ndarray:
    """Return BM25's scores, ``float32 [queries, documents]``."""
    try:
        import bm25s
    except ImportError as error:
        raise MissingExtraError(
            "What is hard for words alone is found by BM25, which needs bm25s: "
            'pip install "polyvec[evaluate]".'
        ) from error
    index = bm25s.BM25()
    index.index([words(text) for text in documents], show_progress=False)
    rows = [
        index.get_scores(found) if (found := words(text)) else np.zeros(len(documents))
        for text in queries
    ]
    return np.stack(rows).astype(np.float32) if rows else np.zeros((0, len(documents)), np.float32)
