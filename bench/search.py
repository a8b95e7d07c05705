"""Search in 100,000 passages of 4,096 numbers: recall, milliseconds, megabytes.

Run from the repository's root, with the development dependencies. What was embedded and built is
kept in a folder, so a run that was stopped goes on, and a second one only asks::

    python bench/search.py                          # everything; half an hour on two quiet cores
    python bench/search.py --sets clustered         # vectors made up: no model, no downloads
    python bench/search.py --index ~/Documents      # what indexing a folder costs, and a second run

* ``dense``: :mod:`search_corpus`'s real passages, and made-up clusters. An index as ``polyvec
  index`` makes it, asked through :class:`polyvec.search.store.Store`, against numpy on every
  vector: recall@10 is the share of the ten nearest passages that are among the ten found.
* ``text``: polyvec's full text, sqlite's FTS5 and bm25s on the same passages. ``found`` is the
  share of one-line descriptions with a paragraph of their package, in their language, among ten.
* ``hybrid``: whole searches through :class:`polyvec.search.retrieve.Searcher` without embedding
  the question.

Building runs in a process of its own, whose peak memory is told. Questions come one after another
from one thread, after a warm-up. The last line of standard output is one JSON document.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any, TypeVar, get_args

import numpy as np
from rich.console import Console
from rich.table import Table

import search_corpus as data
import search_engines as engines
from polyvec.engine.cpu import cpu_name
from polyvec.hub import cache_folder
from polyvec.search.retrieve import Mode, Searcher, SearchSettings
from polyvec.search.store import Store

SETS = ("real", "clustered")
WARM_UP = 30
LEAST_RECALL, MOST_P50_MS = 0.99, 30.0
CONSOLE = Console(width=130, highlight=False)

Asked = TypeVar("Asked")


def main() -> None:
    """Measure what the flags ask for, show tables, print one line of JSON."""
    options = _options()
    if options.step:
        print(json.dumps(_STEPS[options.step](options, options.name)))
        return
    figures: dict[str, Any] = {"machine": _machine()}
    CONSOLE.print(", ".join(f"{name} {value}" for name, value in figures["machine"].items()))
    if options.index:
        figures["index"] = [_run("index", str(options.index), options, keep=False)]
        figures["index"].append(_run("index", str(options.index), options, keep=False))
        CONSOLE.print(_index_table(figures["index"]))
    else:
        figures |= _searches(options)
        tables = {"dense": _dense_table, "text": _text_table, "hybrid": _hybrid_table}
        CONSOLE.print(*(show(figures) for part, show in tables.items() if figures[part]))
    print(json.dumps(figures))


def _searches(options: argparse.Namespace) -> dict[str, Any]:
    figures: dict[str, Any] = {"dense": {}, "text": {}, "hybrid": {}}
    for name in options.sets:
        built = _run("build", name, options, keep=True)
        exact = _run("exact", name, options, keep=False)
        figures["dense"][name] = built | exact | _run("ask", name, options, keep=False)
    if "real" in options.sets:
        for name in engines.TEXT_ENGINES:
            built = _run("build-text", name, options, keep=True)
            figures["text"][name] = built | _run("ask-text", name, options, keep=False)
        figures["hybrid"] = _run("hybrid", "real", options, keep=False)
    return figures


def _run(step: str, name: str, options: argparse.Namespace, *, keep: bool) -> dict[str, Any]:
    """Run a step in a process of its own and return its figures; kept ones are not made again."""
    place = options.folder / f"{step}-{name}-{options.passages}-{options.dimension}.json"
    if keep and place.exists():
        found: dict[str, Any] = json.loads(place.read_text())
        return found
    CONSOLE.print(f"{step} {name} ...", style="dim")
    command = [sys.executable, __file__, "--step", step, "--name", name]
    command += ["--folder", str(options.folder), "--passages", str(options.passages)]
    command += ["--dimension", str(options.dimension), "--model", options.model]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    if keep:
        place.write_text(json.dumps(found))
    return found


# Steps


def _build(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """Write the rows and make the indexes, as ``polyvec index`` does."""
    folder = options.folder / f"store-{name}-{options.passages}-{options.dimension}"
    shutil.rmtree(folder, ignore_errors=True)
    passages = _passages(options, name)
    wide = _vectors(options, name)[0]
    begun = monotonic()
    store = Store.create(str(folder), engines.info(options.dimension))
    parts = (data.rows(wide, part) for part in engines.blocks(options.passages))
    engines.fill(store, passages, parts)
    written = monotonic()
    with engines.watched_indexes(str(folder)) as made:
        store.refresh()
    return {
        "write_s": written - begun,
        "indexes_s": monotonic() - written,
        "made": made,
        "rows_mb": wide.stat().st_size / 1e6,
        "peak_mb": _peak_mb(),
    }


def _exact(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """Compare with every vector in numpy; keep the hundred nearest of each question."""
    wide_path, asked_path = _vectors(options, name)
    wide, asked = np.load(wide_path), np.load(asked_path)
    path = _nearest(wide_path)
    if not path.exists():
        scores_QN = asked @ wide.T
        np.save(path, np.argsort(-scores_QN, axis=1)[:, :100])
    few = asked[: WARM_UP + 20]
    _, ms = timed(few, lambda v: np.argpartition(-(wide @ v), 10)[:10])
    return {"numpy": spread(ms)}


def _ask(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """Ask for the ten nearest, by the index and without it."""
    wide_path, asked_path = _vectors(options, name)
    asked, exact = np.load(asked_path), np.load(_nearest(wide_path))
    store = Store.open(str(options.folder / wide_path.stem.replace("wide", "store")))
    found, ms = timed(asked, lambda v: [int(h.chunk.chunk_id) for h in store.search_dense(v, 10)])
    asking_mb = _peak_mb()
    few = asked[: WARM_UP + 20]
    _, all_ms = timed(few, lambda v: store.search_dense(v, 10, exact=True))
    return {
        "recall": recall(found, exact[WARM_UP:, :10]),
        "dense": spread(ms),
        "without index": spread(all_ms),
        "asking_mb": asking_mb,
    }


def _build_text(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """Make one text index."""
    shutil.rmtree(options.folder / engines.PLACES[name], ignore_errors=True)
    passages = data.corpus(options.folder, options.passages).passages
    begun, before_mb = monotonic(), _peak_mb()
    engines.TEXT_ENGINES[name](options.folder, passages, build=True)
    size = engines.tree_bytes(options.folder / engines.PLACES[name])
    seconds = monotonic() - begun
    return {"build_s": seconds, "peak_mb": _peak_mb() - before_mb, "mb": size / 1e6}


def _ask_text(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """Ask one text index every question."""
    questions = data.corpus(options.folder, options.passages).questions
    ask = engines.TEXT_ENGINES[name](options.folder, [], build=False)
    found, ms = timed([question.text for question in questions], ask)
    return {"found": found_share(found, questions[WARM_UP:]), "text": spread(ms)}


def _hybrid(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """Search as people do, the question's vector given."""
    questions = data.corpus(options.folder, options.passages).questions
    wide_path, asked_path = _vectors(options, name)
    vectors = dict(zip((q.text for q in questions), np.load(asked_path), strict=True))
    store = Store.open(str(options.folder / wide_path.stem.replace("wide", "store")))
    searcher = Searcher(store, vectors.__getitem__)
    figures: dict[str, Any] = {}
    for mode in get_args(Mode):
        found, ms = timed([q.text for q in questions], _asking(searcher, mode))
        figures[mode] = {"found": found_share(found, questions[WARM_UP:]), "ms": spread(ms)}
    return figures | {"asking_mb": _peak_mb()}


def _asking(searcher: Searcher, mode: Mode) -> engines.Ask:
    settings = SearchSettings(mode=mode)
    return lambda text: [result.chunk.path for result in searcher.search(text, settings)]


def _index(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """Index a folder with the model, or bring its index up to date."""
    from polyvec.engine.embedder import load
    from polyvec.search.index import open_index, update
    from polyvec.search.settings import ReadSettings

    begun = monotonic()
    embedder = load(options.model)
    store = open_index(Path(name), embedder, options.model, str(options.folder / "folder-index"))
    loaded = monotonic()
    report = update(store, embedder, ReadSettings())
    facts = report.facts()
    facts["failed"] = len(report.failed)
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    size = engines.tree_bytes(options.folder / "folder-index") / 1e6
    facts |= {"load_s": loaded - begun, "peak_mb": _peak_mb(), "reader_peak_mb": children}
    return facts | {"index_mb": size, "cpu_s": _cpu_s()}


_STEPS: dict[str, Callable[[argparse.Namespace, str], dict[str, Any]]] = {
    "build": _build,
    "exact": _exact,
    "ask": _ask,
    "build-text": _build_text,
    "ask-text": _ask_text,
    "hybrid": _hybrid,
    "index": _index,
}


# Data


def _passages(options: argparse.Namespace, name: str) -> list[data.Passage]:
    if name == "real":
        return data.corpus(options.folder, options.passages).passages
    return [data.Passage(f"{n}", 0, "", "") for n in range(options.passages)]


def _vectors(options: argparse.Namespace, name: str) -> tuple[Path, Path]:
    """Return the files of the passages' and the questions' vectors, made if need be."""
    ending = f"{name}-{options.passages}-{options.dimension}.npy"
    wide, asked = (options.folder / f"{kind}-{ending}" for kind in ("wide", "asked"))
    if not (wide.exists() and asked.exists()):
        options.folder.mkdir(parents=True, exist_ok=True)
        if name == "real":
            drawn = data.corpus(options.folder, options.passages)
            narrow, questions = data.embedded(drawn, options.folder, options.model)
            made = data.widened(narrow, options.dimension, 1)
            queries = data.widened(questions, options.dimension, 2)
        else:
            made, queries = data.clustered(options.passages, data.QUERIES, options.dimension)
        np.save(asked, queries)
        np.save(wide.with_suffix(".partial.npy"), made)
        wide.with_suffix(".partial.npy").rename(wide)
    return wide, asked


def _nearest(wide: Path) -> Path:
    return wide.with_name(wide.name.replace("wide", "nearest"))


# Measures


def timed(
    asked: Sequence[Asked] | data.Vectors, ask: Callable[[Any], Any]
) -> tuple[list[Any], list[float]]:
    """Ask one after another; return answers and milliseconds of those after the warm-up."""
    answers, milliseconds = [], []
    for number, each in enumerate(asked):
        begun = perf_counter()
        answer = ask(each)
        if number >= WARM_UP:
            milliseconds.append((perf_counter() - begun) * 1e3)
            answers.append(answer)
    return answers, milliseconds


def recall(found: Sequence[Sequence[int]], right: np.ndarray) -> float:
    """Return the share of each row of ``right`` that was found, mean over rows."""
    pairs = zip(found, right.tolist(), strict=True)
    return float(np.mean([len(set(ours) & set(theirs)) / len(theirs) for ours, theirs in pairs]))


def found_share(found: Sequence[Sequence[str]], questions: Sequence[data.Question]) -> float:
    """Return the share of questions whose path is among those found."""
    pairs = zip(found, questions, strict=True)
    return float(np.mean([question.path in paths for paths, question in pairs]))


def spread(milliseconds: Sequence[float]) -> dict[str, float]:
    """Return median, 99th percentile and least."""
    median, high = np.quantile(milliseconds, [0.5, 0.99])
    return {"p50": float(median), "p99": float(high), "least": float(min(milliseconds))}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _cpu_s() -> float:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    used = [resource.getrusage(kind) for kind in kinds]
    return sum(u.ru_utime + u.ru_stime for u in used)


def _machine() -> dict[str, Any]:
    load = os.getloadavg()[0]
    return {"cpu": cpu_name(), "cores": os.cpu_count(), "load at the start": round(load, 1)}


# Tables


def _dense_table(figures: dict[str, Any]) -> Table:
    table = Table("vectors", title="Dense, ten nearest, one question at a time (ms)")
    for heading in ("recall@10", "p50", "p99", "least", "no index p50", "numpy p50", "rows written",
                    "vector index", "its size", "peak, building", "peak, asking"):  # fmt: skip
        table.add_column(heading, justify="right")
    for name, found in figures["dense"].items():
        ms, made = found["dense"], found["made"].get("vector", {"seconds": 0, "mb": 0})
        good = (found["recall"] >= LEAST_RECALL, ms["p50"] < MOST_P50_MS)
        cells = [_judged(f"{found['recall']:.4f}", good[0]), _judged(f"{ms['p50']:.1f}", good[1])]
        cells += [f"{ms['p99']:.1f}", f"{ms['least']:.1f}", f"{found['without index']['p50']:.0f}"]
        cells += [f"{found['numpy']['p50']:.0f}", f"{found['write_s']:.0f} s"]
        cells += [
            f"{made['seconds']:.0f} s",
            f"{made['mb']:,.0f} MB",
            f"{found['peak_mb']:,.0f} MB",
        ]
        table.add_row(name, *cells, f"{found['asking_mb']:,.0f} MB")
    return table


def _text_table(figures: dict[str, Any]) -> Table:
    table = Table("full text", title="Words, ten best (ms)")
    for heading in ("found", "p50", "p99", "build", "size", "peak, building"):
        table.add_column(heading, justify="right")
    for name, found in figures["text"].items():
        ms = found["text"]
        cells = [f"{found['found']:.1%}", f"{ms['p50']:.1f}", f"{ms['p99']:.1f}"]
        cells += [f"{found['build_s']:.0f} s", f"{found['mb']:,.0f} MB"]
        table.add_row(name, *cells, f"{found['peak_mb']:,.0f} MB")
    return table


def _hybrid_table(figures: dict[str, Any]) -> Table:
    table = Table("whole searches", "found", "p50", "p99", "least", title="Searcher (ms)")
    for mode in ("dense", "text", "hybrid"):
        found = figures["hybrid"][mode]
        ms = [f"{found['ms'][key]:.1f}" for key in ("p50", "p99", "least")]
        table.add_row(mode, f"{found['found']:.1%}", *ms)
    return table


def _index_table(runs: list[dict[str, Any]]) -> Table:
    table = Table("run", title="Indexing a folder")
    for heading in ("files read", "unchanged", "failed", "chunks", "tokens", "seconds", "CPU s",
                    "files/s", "tokens/s", "peak", "reader's", "index"):  # fmt: skip
        table.add_column(heading, justify="right")
    for name, run in zip(("first", "again"), runs, strict=True):
        read = run["added"] + run["changed"] + run["moved"]
        cells = [f"{x:,}" for x in (read, run["unchanged"], run["failed"], run["chunks"])]
        cells += [f"{run['tokens']:,}", f"{run['seconds']:.1f}", f"{run['cpu_s']:.1f}"]
        cells += [f"{run['files_per_s']:,}", f"{run['tokens_per_s']:,}"]
        cells += [f"{run[key]:,.0f} MB" for key in ("peak_mb", "reader_peak_mb", "index_mb")]
        table.add_row(name, *cells)
    return table


def _judged(text: str, good: bool) -> str:
    return text if good else f"[red]{text}[/red]"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--passages", type=int, default=100_000, help="%(default)s")
    parser.add_argument("--dimension", type=int, default=4_096, help="%(default)s")
    parser.add_argument("--sets", default=",".join(SETS), help="of %(default)s")
    parser.add_argument("--model", default="default", help="that embeds (%(default)s)")
    parser.add_argument("--index", type=Path, help="a folder to index instead, twice")
    parser.add_argument(
        "--folder", type=Path, default=cache_folder() / "bench-search", help="kept (%(default)s)"
    )
    parser.add_argument("--step", choices=sorted(_STEPS), help=argparse.SUPPRESS)
    parser.add_argument("--name", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.sets = options.sets.split(",")
    if unknown := set(options.sets) - set(SETS):
        parser.error(f"--sets takes {', '.join(SETS)}; not {', '.join(sorted(unknown))}")
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.index and not options.step:
        shutil.rmtree(options.folder / "folder-index", ignore_errors=True)
    return options


if __name__ == "__main__":
    main()
