"""The loop of a contender in a Python of its own, where polyvec and torch may be missing.

Commands come as lines of JSON on standard input, answers go as lines of JSON to what was standard
output; what the library prints there goes to standard error instead. Vectors go through a file.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class Engine(Protocol):
    """What a contender offers."""

    def embed(self, texts: list[str]) -> Any:  # noqa: ANN401 (an array or lists)
        """Return a vector for each text; prefixes are in the text already."""


def serve(make: Callable[..., Engine], arguments: Sequence[str]) -> None:
    """Make the engine from the command line's arguments and answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    started = time.perf_counter()
    engine = make(*arguments)
    contender = _Contender(engine, round(time.perf_counter() - started, 2))
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        method, given = json.loads(line)
        print(json.dumps(getattr(contender, method)(*given)), file=answers, flush=True)


class _Contender:
    def __init__(self, engine: Engine, load_s: float) -> None:
        self.engine, self.load_s, self.loaded_mb = engine, load_s, _peak_mb()
        self.workloads: dict[str, list[str]] = {}

    def prepare(self, workloads: dict[str, list[str]]) -> None:
        self.workloads = workloads

    def facts(self) -> dict[str, float]:
        return {"load_s": self.load_s, "loaded_mb": self.loaded_mb, "peak_mb": _peak_mb()}

    def embed(self, texts: list[str], output: str) -> None:
        """Save the vectors of texts that carry their prefix."""
        np.save(Path(output), np.asarray(self.engine.embed(texts), dtype=np.float32))

    def timings(self, workload: str, times: int) -> list[tuple[float, float]]:
        """Return wall and CPU seconds of each run."""
        return [self._timing(self.workloads[workload]) for _ in range(times)]

    def _timing(self, texts: list[str]) -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        self.engine.embed(texts)
        return time.perf_counter() - wall, time.process_time() - cpu


def _peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // 10**6
