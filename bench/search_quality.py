"""How well polyvec's search finds: by meaning, by words, by both, and bm25s beside them.

Run from the repository's root, with the development dependencies::

    python bench/search_quality.py                  # the default model; 5 minutes on 2 quiet cores
    python bench/search_quality.py --model ./model
    python bench/search_quality.py --quick          # XL in four languages, and EN

The offline benchmark's held-out sets go the whole way: documents are files in a folder, indexed as
``polyvec index`` does (cut, embedded, stored), and asked through the store's dense and full-text
search; ``hybrid`` is :func:`polyvec.search.fuse.fuse` of both, 100 candidates each, where a place
by words counts as much as the part of the query that is said there; ``plain`` has all places alike.
XL asks in 18 languages for English descriptions among 2,000, XL-hard keeps what bm25s misses, EN
asks in English, mono inside de, it, ja and ru among 200. nDCG@10 and recall@10 in hundredths, a
mean over languages.

A sweep of weights and rank constants follows; it is on half of the queries (by a hash), and what
is best there is judged on the other half. The index and the rankings are kept by the model's
fingerprint. The last line of standard output is one JSON document.
"""

import argparse
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from polyvec.engine.embedder import Embedder, load
from polyvec.evaluate import offline_sets as sets
from polyvec.hub import cache_folder
from polyvec.search.fuse import RANK_CONSTANT
from polyvec.search.index import open_index, update
from polyvec.search.rows import Hit
from polyvec.search.settings import ReadSettings
from polyvec.search.shares import question_shares
from polyvec.search.store import Store
from polyvec.sources.descriptions import descriptions

QUICK = ("de", "fr", "ja", "ru")
CANDIDATES = 100
CONSTANTS = (5, 10, 20, 60, 120)
TEXT_WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 100.0)
"""Beside a weight of 1 for meaning; 100 is words first, meaning for ties."""
CONSOLE = Console(width=130, highlight=False)

Ranking = list[str]
"""Documents, best first."""


@dataclass(frozen=True)
class Asked:
    """A query and where it was asked, with both rankings."""

    task: str
    """``XL``, ``XL-hard``, ``EN`` or ``mono``."""
    language: str
    query: str
    right: str
    dense: Ranking
    text: Ranking
    shares: list[float]
    """The part of the query that each of ``text`` says."""
    bm25s: int
    """How many documents bm25s places no lower than the right one."""

    def plain(self) -> "Asked":
        """Return it with all places by words alike."""
        return replace(self, shares=[1.0] * len(self.text))

    @property
    def chooses(self) -> bool:
        """Whether it is of the half that weights are chosen on."""
        return hashlib.md5(self.query.encode(), usedforsecurity=False).digest()[0] % 2 == 0


def main() -> None:
    """Index, ask, sweep; show tables, print one line of JSON."""
    options = _options()
    asked = _asked(options)
    ways = {
        "bm25s": [each.bm25s for each in asked],
        "text (icu)": [rank_of(each.text, each.right) for each in asked],
        "dense": [rank_of(each.dense, each.right) for each in asked],
        "plain": [rank_of(fused(each.plain(), RANK_CONSTANT, 1.0), each.right) for each in asked],
        "hybrid": [rank_of(fused(each, RANK_CONSTANT, 1.0), each.right) for each in asked],
    }
    figures: dict[str, Any] = {name: scores(asked, ranks) for name, ranks in ways.items()}
    CONSOLE.print(_table(f"{options.model}: search on what is held out", figures))
    swept = sweep([each for each in asked if each.chooses])
    CONSOLE.print(_sweep_table(swept))
    constant, weight = max(swept, key=lambda key: swept[key])
    others = [each for each in asked if not each.chooses]
    both = {"now": (RANK_CONSTANT, 1.0), "best": (constant, weight)}
    judged = {
        f"{name}: k {k}, words {w:g}": scores(
            others, [rank_of(fused(x, k, w), x.right) for x in others]
        )
        for name, (k, w) in both.items()
    }
    CONSOLE.print(_table("On the other half of the queries", judged))
    print(json.dumps({"ways": figures, "judged": judged}))


# Asking


def _asked(options: argparse.Namespace) -> list[Asked]:
    """Ask every query, or read the answers of an earlier run with the same model."""
    embedder = load(options.model)
    place = options.folder / embedder.files.fingerprint()[:16]
    kept = place / ("shares-quick.json" if options.quick else "shares.json")
    if not kept.exists():
        place.mkdir(parents=True, exist_ok=True)
        found = _ask_all(embedder, options.model, place, quick=options.quick)
        rows = [each.__dict__ for each in found]
        kept.with_suffix(".partial").write_text(json.dumps(rows, ensure_ascii=False))
        kept.with_suffix(".partial").rename(kept)
    return [Asked(**row) for row in json.loads(kept.read_text())]


def _ask_all(embedder: Embedder, model: str, place: Path, *, quick: bool) -> Iterable[Asked]:
    tests = descriptions(sets.LANGUAGES).of("test")
    across, english = sets.crosslingual(tests), sets.english(tests)
    across = {x: search for x, search in across.items() if not quick or x in QUICK}
    documents = english["en"].documents
    store = _indexed(documents, embedder, model, place / "en")
    hard = {language: set(search.queries) for language, search in sets.hard(across).items()}
    for each in _ask("XL", across, store, embedder):
        yield each
        if each.right in hard[each.language]:
            yield Asked(**(each.__dict__ | {"task": "XL-hard"}))
    yield from _ask("EN", english, store, embedder)
    for language, search in () if quick else sets.monolingual(tests).items():
        own = _indexed(search.documents, embedder, model, place / language)
        yield from _ask("mono", {language: search}, own, embedder)


def _indexed(documents: Mapping[str, str], embedder: Embedder, model: str, place: Path) -> Store:
    """Write documents as files, one each, and index them."""
    files = place / "files"
    files.mkdir(parents=True, exist_ok=True)
    for name, text in documents.items():
        (files / f"{name}.txt").write_text(text)
    store = open_index(files, embedder, model, str(place / "index"))
    report = update(store, embedder, ReadSettings())
    CONSOLE.print(f"{place.name}: {report.chunks:,} chunks, {report.tokens:,} tokens", style="dim")
    return store


def _ask(
    task: str, searches: Mapping[str, sets.Search], store: Store, embedder: Embedder
) -> Iterable[Asked]:
    for language, search in searches.items():
        if not search.queries:
            continue
        CONSOLE.print(f"asking {task} {language}", style="dim")
        vectors = embedder.encode_query(list(search.queries.values()), show_progress=False)
        by_words = sets.bm25_ranks(search)
        for (name, query), vector, rank in zip(
            search.queries.items(), vectors, by_words, strict=True
        ):
            dense = _documents(store.search_dense(vector, CANDIDATES))
            text = _documents(store.search_text(query, CANDIDATES))
            beside = [said for document, said in dense.items() if document not in text]
            shares = list(question_shares(query, text, beside).values())
            right = search.right[name]
            yield Asked(task, language, query, right, list(dense), list(text), shares, int(rank))


def _documents(hits: Sequence[Hit]) -> dict[str, str]:
    """Return each document once, at its best chunk's place, with that chunk's text."""
    found: dict[str, str] = {}
    for hit in hits:
        found.setdefault(hit.chunk.path.removesuffix(".txt"), hit.chunk.text)
    return found


# Measuring


def fused(asked: Asked, constant: int, text_weight: float) -> Ranking:
    """Return both rankings in one, as :func:`polyvec.search.fuse.fuse` does with these numbers."""
    points: dict[str, float] = {}
    by_words = [text_weight * share for share in asked.shares]
    for ranking, weights in ((asked.dense, [1.0] * len(asked.dense)), (asked.text, by_words)):
        for rank, (name, weight) in enumerate(zip(ranking, weights, strict=True), 1):
            points[name] = points.get(name, 0.0) + weight / (constant + rank)
    return sorted(points, key=lambda name: -points[name])


def rank_of(ranking: Ranking, right: str) -> int:
    """Return how many documents stand before the right one; many where it is not there."""
    return ranking.index(right) if right in ranking else 10**6


def scores(asked: Sequence[Asked], ranks: Sequence[int]) -> dict[str, dict[str, float]]:
    """Return nDCG@10 and recall@10 in hundredths by task, each a mean over its languages."""
    by_place: dict[tuple[str, str], list[int]] = {}
    for each, rank in zip(asked, ranks, strict=True):
        by_place.setdefault((each.task, each.language), []).append(rank)
    found: dict[str, dict[str, float]] = {}
    for task in dict.fromkeys(task for task, _ in by_place):
        several = [np.array(found) for (name, _), found in by_place.items() if name == task]
        found[task] = {
            "ndcg": 100 * float(np.mean([ndcg(each) for each in several])),
            "recall": 100 * float(np.mean([(each < 10).mean() for each in several])),
        }
    return found


def ndcg(ranks: np.ndarray) -> float:
    """Return mean nDCG@10 where one document is right, at places counted from 0."""
    return float(np.where(ranks < 10, 1 / np.log2(ranks + 2), 0.0).mean())


def sweep(asked: Sequence[Asked]) -> dict[tuple[int, float], float]:
    """Return nDCG@10, a mean over XL, EN and mono, by rank constant and weight of words."""
    found = {}
    for constant in CONSTANTS:
        for weight in TEXT_WEIGHTS:
            ranks = [rank_of(fused(each, constant, weight), each.right) for each in asked]
            by_task = scores(asked, ranks)
            found[constant, weight] = float(
                np.mean([by_task[task]["ndcg"] for task in by_task if task != "XL-hard"])
            )
    return found


def _table(title: str, figures: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Table:
    table = Table("", title=f"{title}: nDCG@10 (recall@10)")
    tasks = list(next(iter(figures.values())))
    for task in tasks:
        table.add_column(task, justify="right")
    for name, found in figures.items():
        cells = [f"{found[task]['ndcg']:.1f} ({found[task]['recall']:.1f})" for task in tasks]
        table.add_row(name, *cells)
    return table


def _sweep_table(swept: Mapping[tuple[int, float], float]) -> Table:
    title = "nDCG@10, mean of XL, EN and mono, by weight of words: one half of the queries"
    table = Table("rank constant", *(f"{weight:g}" for weight in TEXT_WEIGHTS), title=title)
    for constant in CONSTANTS:
        cells = [f"{swept[constant, weight]:.1f}" for weight in TEXT_WEIGHTS]
        table.add_row(str(constant), *cells)
    return table


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="default", help="that embeds (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="four languages and English")
    parser.add_argument(
        "--folder",
        type=Path,
        default=cache_folder() / "bench-search-quality",
        help="kept (%(default)s)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
