"""When to say "not in your documents": what thresholds refuse wrongly, and what they let through.

Run from the repository's root, with the development dependencies installed::

    python bench/ask_threshold.py                     # some 2 minutes on 2 cores
    python bench/ask_threshold.py --model ./mine --each 60

An index is made of held-out pages of LibreOffice's help, each in one language of six. Asked are
titles, which are words rather than whole questions:

* ``here``: of pages in the index, in the page's language; ``crossed``: in the next language.
  Refusing them is an error.
* ``beside``: of pages that are not in the index, though others of the same handbook are; and
  ``elsewhere``: short descriptions of Debian packages. Letting them through is an error, if a small
  one: the chat model is then asked, and may still say no.

Printed are the shares of each that may be answered, by the rule of
:func:`polyvec.search.answer.is_in_documents`, over cosines, and over shares of words where cosines
do not count; and the highest cosine that refuses few questions that have an answer, which is what
``MIN_COSINE`` is set to. The last line of standard output is one JSON document.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import polyvec
from polyvec.engine.cpu import cpu_name
from polyvec.search.answer import MIN_COSINE, MIN_WORDS, AskSettings, Evidence, evidence
from polyvec.search.retrieve import Searcher, SearchSettings
from polyvec.search.rows import Chunk, Document, IndexInfo, Vectors
from polyvec.search.store import Store
from polyvec.sources.descriptions import descriptions
from polyvec.sources.help_pages import HelpPages, Page, help_pages

LANGUAGES = ("en-US", "de", "fr", "ru", "ja", "zh-CN")
EACH = 40
"""Pages in the index a language, and as many that are not; fewer where there are not so many."""
MIN_CHARACTERS, MAX_CHARACTERS = 80, 1_200
"""Of a passage; a chunk of 400 tokens has about so many."""
ALONE = 1.01
"""A cosine that none has: words alone decide."""
MOST_REFUSED = 0.05
"""Of questions that have an answer, of each kind: the threshold is the highest that keeps it."""
COSINES = tuple(round(0.20 + 0.05 * step, 2) for step in range(14))
WORDS = (0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.1)
ASKED = ("here", "crossed", "beside", "elsewhere")
Questions = Mapping[str, Sequence[str]]


def pages_and_questions(each: int) -> tuple[list[tuple[str, Page]], Questions]:
    """Return the index's pages with their languages, and the questions of each kind."""
    found = help_pages(LANGUAGES, split="test")
    inside, outside = _parted(found, each * len(LANGUAGES))
    count = len(inside)
    turn = [LANGUAGES[n % len(LANGUAGES)] for n in range(count)]
    after = [LANGUAGES[(n + 1) % len(LANGUAGES)] for n in range(count)]
    of = found.by_language
    pages = [(language, of[language][name]) for language, name in zip(turn, inside, strict=True)]
    packages = descriptions([x.split("-")[0] if x == "en-US" else x for x in LANGUAGES])
    lines = [
        text.short
        for found_here in packages.of("test").by_language.values()
        for text in list(found_here.values())[:each]
    ]
    return pages, {
        "here": [page.title for _, page in pages],
        "crossed": [of[x][name].title for x, name in zip(after, inside, strict=True)],
        "beside": [of[x][name].title for x, name in zip(turn, outside, strict=True)],
        "elsewhere": lines[:count],
    }


def _parted(found: HelpPages, count: int) -> tuple[list[str], list[str]]:
    """Return pages for the index and pages that stay out of it, no title on both sides."""
    every = [found.by_language[language] for language in LANGUAGES]
    shared = set.intersection(*(set(pages) for pages in every))
    titles: dict[str, str] = {}
    for name in sorted(shared):
        is_long = all(len(pages[name].body) >= MIN_CHARACTERS for pages in every)
        if is_long and len(every[0][name].title.split()) > 1:
            titles.setdefault(every[0][name].title.casefold(), name)
    names = list(titles.values())
    drawn = [names[n] for n in np.random.default_rng(0).permutation(len(names))]
    count = min(count, len(drawn) // 2)
    return drawn[:count], drawn[count : 2 * count]


def weigh(
    model: str, pages: Sequence[tuple[str, Page]], questions: Questions
) -> dict[str, list[Evidence]]:
    """Return what the best passages of an index say for each question."""
    embedder = polyvec.load(model)
    texts = [page.body[:MAX_CHARACTERS] for _, page in pages]
    asked = [question for kind in ASKED for question in questions[kind]]
    known = dict(zip(asked, embedder.encode_query(asked), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        info = IndexInfo(model, embedder.files.fingerprint(), embedder.dimension, folder)
        store = _store(info, folder, pages, texts, embedder.encode_document(texts))
        searcher = Searcher(store, known.__getitem__)
        best = SearchSettings(limit=AskSettings.passages)
        return {
            kind: [evidence(asked, searcher.search(asked, best)) for asked in questions[kind]]
            for kind in ASKED
        }


def _store(
    info: IndexInfo,
    folder: str,
    pages: Sequence[tuple[str, Page]],
    texts: Sequence[str],
    vectors: Vectors,
) -> Store:
    from datetime import UTC, datetime

    now = datetime.now(UTC)
    store = Store.create(str(Path(folder) / "index"), info)
    chunks = [
        Chunk(str(n), str(n), str(n), text, page.name, page.name, "", None, None, None,
              language.split("-")[0], "html", now, 0, text)
        for n, ((language, page), text) in enumerate(zip(pages, texts, strict=True))
    ]  # fmt: skip
    store.put_chunks(chunks, vectors)
    store.put_documents(
        [Document(c.path, "", 1, 0, "html", "", "indexed", "", 1, 1, now) for c in chunks]
    )
    store.refresh()
    return store


def shares(
    found: Mapping[str, Sequence[Evidence]], cosine: float, words: float
) -> dict[str, float]:
    """Return the share of each kind of question that may be answered."""
    return {
        kind: float(np.mean([one.is_enough(cosine, words) for one in found[kind]]))
        for kind in ASKED
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="default")
    parser.add_argument("--each", type=int, default=EACH, help="pages a language")
    arguments = parser.parse_args()
    pages, questions = pages_and_questions(arguments.each)
    found = weigh(arguments.model, pages, questions)
    console = Console(width=100, highlight=False)
    counted = ", ".join(f"{len(found[kind])} {kind}" for kind in ASKED)
    console.print(f"{arguments.model} on {cpu_name()}; {len(pages)} passages; asked: {counted}")
    rows = [(c, MIN_WORDS) for c in COSINES] + [(ALONE, w) for w in WORDS]
    table = Table("cosine", "words", *(f"{kind} %" for kind in ASKED), title="May be answered")
    results = []
    for cosine, words in rows:
        share = shares(found, cosine, words)
        results.append({"cosine": cosine, "words": words, **share})
        is_set = " *" if (cosine, words) == (MIN_COSINE, MIN_WORDS) else ""
        shown = "none" if cosine == ALONE else f"{cosine:.2f}{is_set}"
        table.add_row(shown, f"{words:.1f}",
                      *(f"{100 * share[kind]:.1f}" for kind in ASKED))  # fmt: skip
    console.print(table)
    kept = [r["cosine"] for r in results if min(r["here"], r["crossed"]) >= 1 - MOST_REFUSED]
    best = max(kept, default=None)
    console.print(f"The highest cosine that refuses at most {MOST_REFUSED:.0%} of both: {best}")
    quantiles = (0.05, 0.25, 0.5, 0.75, 0.95)
    for kind in ASKED:
        values = np.quantile([one.cosine for one in found[kind]], quantiles)
        console.print(f"{kind:>9}: cosine of the nearest passage, 5 to 95%: {values.round(2)}")
    print(json.dumps({"model": arguments.model, "highest": best, "rows": results}))


if __name__ == "__main__":
    main()
