"""How fast polyvec embeds, beside sentence-transformers on the same model folder and machine.

Run from the repository's root, with the development dependencies installed::

    python bench/encode.py                      # everything, some 6 minutes on 2 cores
    python bench/encode.py --quick              # fewer texts and rounds: does it still run?
    python bench/encode.py --only layer,startup --rounds 9

What it measures:

* ``mixed``: 400 real texts in many languages, 8 to 300 tokens (Django's translations, fetched
  with pip). ``uniform``: 16 texts of 128 tokens. ``query``: one 16-token query, its median
  latency. Each through both libraries' public calls, tokenization included. In ``mixed`` much of
  the ratio is padding: sentence-transformers fills up batches of 32 texts sorted by characters,
  and across scripts characters say little about tokens. How many tokens it so computes is
  printed. ``uniform`` needs no padding and compares the computing alone.
* ``layer``: one layer of the 8B model's shape in bf16; ``share`` is the time its four products
  take on this machine when nothing else is done (the fastest of several ways), divided by the
  layer's time. 1 would be perfect.
* ``startup``: wall time of fresh processes.

How: every peer has a process of its own, and rounds go peer by peer in turn, so that a busy
machine slows all of them alike. ``ratio`` is the median over rounds of (sentence-transformers'
seconds / the peer's seconds) in that round: 2 is twice as fast as sentence-transformers in fp32 at
its defaults. Where other programs keep the cores busy, threads that wait for each other distort
that; then run ``--threads 1`` and read the CPU time column, which others' work changes least. Peak
memory is each process's own. Before any timing, fp32 vectors must agree with
sentence-transformers' (cosine > 0.99999), so both embed the same tokens by the same model.

The last line of standard output is one JSON document with all figures.
"""

import argparse
import json
import platform
import statistics
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import startup
from contenders import BASELINE, PEERS, Peer, Timing, Worker
from report import show
from texts import Workloads

PARTS = ("mixed", "uniform", "query", "layer", "startup")
REPEATS = {"mixed": 1, "uniform": 3, "query": 20}
"""Runs of a workload by one peer within a round; their median counts."""
LAYER_TOKENS = (2048, 4096)
MIN_COSINE = 0.99999


class Preparation:
    """Writes the model folder and chooses the texts, in a process that may use torch."""

    def __init__(self, threads: int | None) -> None:
        import torch

        self.threads = threads or torch.get_num_threads()

    def machine(self) -> dict[str, object]:
        """Describe what the figures hold for."""
        from polyvec.engine.cpu import cpu_name, has_fast_bf16

        packages = ("polyvec", "torch", "sentence-transformers", "transformers")
        return {
            "cpu": cpu_name(),
            "fast_bf16": has_fast_bf16(),
            "system": platform.platform(),
            "python": platform.python_version(),
            "threads": self.threads,
            **{package: version(package) for package in packages},
        }

    def workloads(self, folder: Path, quick: bool) -> Workloads:
        """Write the default model to ``folder/model`` unless it is there; choose the texts."""
        from polyvec.hub import resolve
        from polyvec.model.files import open_model
        from polyvec.model.save import save_folder
        from texts import prepare

        place = resolve("default")
        files = open_model(place.path, place.facts)
        if not (folder / "model").exists():
            save_folder(files, folder / "model")
        return prepare(files, folder, quick)


def main() -> None:
    """Measure what the flags ask for, show a table, print one line of JSON."""
    options = _options()
    preparation = Worker(Preparation, options.threads)
    machine: dict[str, Any] = preparation("machine")
    figures: dict[str, Any] = {"machine": machine, "rounds": options.rounds}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        workloads = [part for part in options.only if part in PARTS[:3]]
        if workloads:
            texts: Workloads = preparation("workloads", folder, options.quick)
        preparation.stop()
        if workloads:
            figures |= _compare(folder / "model", texts, workloads, options.rounds, machine)
    if "layer" in options.only:
        figures["layer"] = _layer(machine["threads"], options.rounds)
    if "startup" in options.only:
        figures["startup"] = startup.measure(options.rounds)
    show(figures)
    print(json.dumps(figures))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, help="of each measurement (5; with --quick 2)")
    parser.add_argument("--quick", action="store_true", help="a fifth of the texts, fewer rounds")
    parser.add_argument("--threads", type=int, help="for every peer (what torch picks)")
    parser.add_argument("--only", default=",".join(PARTS), help="of %(default)s")
    parser.add_argument(
        "--folder", type=Path, help="keeps the model folder and wheel for next time"
    )
    options = parser.parse_args()
    options.only = options.only.split(",")
    options.rounds = options.rounds or (2 if options.quick else 5)
    if unknown := set(options.only) - set(PARTS):
        parser.error(f"--only takes {', '.join(PARTS)}; not {', '.join(sorted(unknown))}")
    return options


def _compare(
    model: Path, texts: Workloads, parts: list[str], rounds: int, machine: dict[str, Any]
) -> dict[str, Any]:
    """Load every peer, check that they compute the same, and time them in turn."""
    workers = {name: Worker(Peer, name, model, machine["threads"], texts) for name in PEERS}
    figures: dict[str, Any] = {"texts": _describe(texts), "cosine": _cosines(workers, texts)}
    figures["workloads"] = {part: _time(workers, part, rounds) for part in parts}
    figures["memory"] = {name: worker("facts") for name, worker in workers.items()}
    for worker in workers.values():
        worker.stop()
    return figures


def _describe(texts: Workloads) -> dict[str, Any]:
    tokens = texts.mixed_tokens
    return {
        "mixed": len(tokens),
        "languages": texts.languages,
        "tokens": sum(tokens),
        "mean_tokens": round(statistics.mean(tokens), 1),
        "min_tokens": min(tokens),
        "max_tokens": max(tokens),
        "padded_tokens": texts.padded_tokens,
        "padded_tokens_at_best": texts.padded_tokens_at_best,
        "query_tokens_with_instruction": texts.query_tokens,
    }


def _cosines(workers: dict[str, Worker], texts: Workloads) -> dict[str, Any]:
    """Return each peer's cosines to the baseline; refuse fp32 vectors that differ."""
    sample = texts.mixed[:64] + texts.uniform[:4]
    expected = _vectors(workers[BASELINE], sample, texts.query)
    cosines: dict[str, Any] = {}
    for name, worker in workers.items():
        cosine = (_vectors(worker, sample, texts.query) * expected).sum(1)
        cosines[name] = {"mean": round(cosine.mean(), 6), "min": round(cosine.min(), 6)}
        if name.endswith("fp32") and cosine.min() <= MIN_COSINE:
            raise SystemExit(f"{name} does not compute what {BASELINE} does: {cosines[name]}")
    return cosines


def _vectors(worker: Worker, documents: list[str], query: str) -> np.ndarray[Any, Any]:
    vectors = np.concatenate((worker("vectors", documents), worker("query_vectors", [query])))
    vectors = vectors.astype(np.float64)
    unit: np.ndarray[Any, Any] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _time(workers: dict[str, Worker], part: str, rounds: int) -> dict[str, Any]:
    """Time one workload, peer by peer within each round."""
    timings: dict[str, list[Timing]] = {name: [] for name in workers}
    for worker in workers.values():
        worker("timings", "query" if part == "query" else "uniform", 1)  # warms up
    for _ in range(rounds):
        for name, worker in workers.items():
            timings[name].append(_median(worker("timings", part, REPEATS[part])))
    return {name: _summary(spent, timings[BASELINE]) for name, spent in timings.items()}


def _median(timings: list[Timing]) -> Timing:
    wall, cpu = (statistics.median(column) for column in zip(*timings, strict=True))
    return Timing(wall, cpu)


def _summary(timings: list[Timing], baseline: list[Timing]) -> dict[str, Any]:
    pairs = list(zip(baseline, timings, strict=True))
    ratios = [theirs.wall_s / ours.wall_s for theirs, ours in pairs]
    return {
        "median_s": round(_median(timings).wall_s, 5),
        "ratio": round(statistics.median(ratios), 3),
        "cpu_ratio": round(statistics.median(t.cpu_s / o.cpu_s for t, o in pairs), 3),
        "ratio_rounds": [round(ratio, 2) for ratio in ratios],
        "seconds_rounds": [round(timing.wall_s, 4) for timing in timings],
    }


def make_layer_bench(threads: int) -> object:
    """Make the layer's worker; imported there, since this process stays without torch."""
    from layer import LayerBench

    return LayerBench(threads)


def _layer(threads: int, rounds: int) -> list[dict[str, Any]]:
    worker = Worker(make_layer_bench, threads)
    figures = [worker("measure", tokens, rounds) for tokens in LAYER_TOKENS]
    worker.stop()
    return figures


if __name__ == "__main__":
    main()
