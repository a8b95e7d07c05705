"""The contest: every contender in turn on the same texts, against sentence-transformers."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contenders import BASELINE, Peer, Timing, UnavailableError, Worker
from fidelity import Vectors
from foreign import ENGINES, Foreign
from polyvec.metrics import fidelity
from texts import UNIFORM_TOKENS, Workloads

Contender = Worker | Foreign
WORKLOADS = ("mixed", "uniform", "query")
REPEATS = {"mixed": 1, "uniform": 3, "query": 20}
"""Runs of a workload by one contender within a round; their median counts."""
MIN_COSINE = 0.99999
CEILINGS = {"llama.cpp Q8_0": "int8"}
"""The precision in which a contender multiplies, where its name does not end in it."""


def compare(
    names: Sequence[str],
    folder: Path,
    texts: Workloads,
    parts: Sequence[str],
    rounds: int,
    threads: int,
) -> dict[str, Any]:
    """Load every contender, check that they compute the same, and time them in turn."""
    figures: dict[str, Any] = {"texts": _describe(texts), "skipped": {}}
    workers: dict[str, Contender] = {}
    for name in dict.fromkeys((BASELINE, *names)):
        try:
            workers[name] = _start(name, folder, texts, threads)
        except UnavailableError as error:
            figures["skipped"][name] = str(error)
    if BASELINE not in workers:
        raise SystemExit(
            f"{BASELINE} is what all are compared with: {figures['skipped'][BASELINE]}"
        )
    figures["cosine"] = _cosines(workers, texts)
    figures["workloads"] = {part: _time(workers, part, rounds) for part in parts}
    figures["memory"] = {name: worker("facts") for name, worker in workers.items()}
    for worker in workers.values():
        worker.stop()
    return figures


def add_shares(figures: dict[str, Any], operations_per_token: int) -> None:
    """Add each contender's share of its precision's ceiling: what products it achieved."""
    tokens = {"mixed": figures["texts"]["tokens"], "uniform": figures["texts"]["uniform_tokens"]}
    for part, contenders in figures["workloads"].items():
        for name, timing in contenders.items():
            ceiling = figures["ceiling"].get(CEILINGS.get(name, name.split()[-1]))
            if part in tokens and ceiling:
                achieved = operations_per_token * tokens[part] / timing["median_s"] / 1e9
                timing["share"] = round(achieved / ceiling["gflops"], 3)


def _start(name: str, folder: Path, texts: Workloads, threads: int) -> Contender:
    if name in ENGINES:
        foreign = Foreign(ENGINES[name], folder, threads, texts.query_prefix)
        foreign.prepare(texts)
        return foreign
    return Worker(Peer, name, folder / "model", threads, texts)


def _describe(texts: Workloads) -> dict[str, Any]:
    tokens = texts.mixed_tokens
    return {
        "mixed": len(tokens),
        "languages": texts.languages,
        "tokens": sum(tokens),
        "mean_tokens": round(statistics.mean(tokens), 1),
        "min_tokens": min(tokens),
        "max_tokens": max(tokens),
        "uniform_tokens": len(texts.uniform) * UNIFORM_TOKENS,
        "padded_tokens": texts.padded_tokens,
        "padded_tokens_at_best": texts.padded_tokens_at_best,
        "query_tokens_with_instruction": texts.query_tokens,
    }


def _cosines(workers: dict[str, Contender], texts: Workloads) -> dict[str, Any]:
    """Return each contender's fidelity to the baseline; refuse fp32 vectors that differ."""
    sample = texts.mixed[:64] + texts.uniform[:4]
    expected = _vectors(workers[BASELINE], sample, texts.query)
    cosines: dict[str, Any] = {}
    for name, worker in workers.items():
        found = fidelity(_vectors(worker, sample, texts.query), expected)
        cosines[name] = {key: round(value, 6) for key, value in found._asdict().items()}
        if name.endswith("fp32") and found.lowest <= MIN_COSINE:
            raise SystemExit(f"{name} does not compute what {BASELINE} does: {cosines[name]}")
    return cosines


def _vectors(worker: Contender, documents: list[str], query: str) -> Vectors:
    return np.concatenate((worker("vectors", documents), worker("query_vectors", [query])))


def _time(workers: dict[str, Contender], part: str, rounds: int) -> dict[str, Any]:
    """Time one workload, peer by peer within each round."""
    timings: dict[str, list[Timing]] = {name: [] for name in workers}
    for worker in workers.values():
        worker("timings", "query" if part == "query" else "uniform", 1)  # warms up
    for _ in range(rounds):
        for name, worker in workers.items():
            timings[name].append(_median(worker("timings", part, REPEATS[part])))
    return {name: _summary(spent, timings) for name, spent in timings.items()}


def _median(timings: list[Timing]) -> Timing:
    wall, cpu = (statistics.median(column) for column in zip(*timings, strict=True))
    return Timing(wall, cpu)


def _summary(spent: list[Timing], everyone: dict[str, list[Timing]]) -> dict[str, Any]:
    """Sum up one contender's rounds; ``against`` is how many times as fast it is as each other."""
    ratios = _ratios(everyone[BASELINE], spent)
    pairs = zip(everyone[BASELINE], spent, strict=True)
    against = {name: statistics.median(_ratios(theirs, spent)) for name, theirs in everyone.items()}
    return {
        "median_s": round(_median(spent).wall_s, 5),
        "ratio": round(statistics.median(ratios), 3),
        "cpu_ratio": round(statistics.median(t.cpu_s / o.cpu_s for t, o in pairs), 3),
        "ratio_rounds": [round(ratio, 2) for ratio in ratios],
        "seconds_rounds": [round(timing.wall_s, 4) for timing in spent],
        "against": {name: round(ratio, 3) for name, ratio in against.items()},
    }


def _ratios(theirs: list[Timing], ours: list[Timing]) -> list[float]:
    return [their.wall_s / our.wall_s for their, our in zip(theirs, ours, strict=True)]
