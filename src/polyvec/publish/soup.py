"""Which checkpoints to average, and how much each counts, found on held-out records.

A candidate is averaged in memory and scored, never written; scores are kept in a file, so that an
interrupted search goes on where it was.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson
import torch

from polyvec.engine.embedder import Embedder
from polyvec.model.files import ModelFiles
from polyvec.publish.average import average
from polyvec.publish.held_out import HeldOut

Method = Literal["greedy", "search"]
Shares = tuple[float, ...]
Score = Callable[[Shares], float]

_FIRST_FACTOR, _LAST_FACTOR = 2.0, 1.15


@dataclass(frozen=True)
class Soup:
    """The shares found, and what else was tried."""

    method: Method
    shares: Shares
    score: float
    singles: tuple[float, ...]
    """Each model's own score."""
    equal: float
    """The equal average's score."""
    evaluations: int

    def facts(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def compared(self, score: Score) -> dict[str, Any]:
        """Return the scores by another measure, e.g. on records that the choice has not seen."""
        count = len(self.shares)
        return {
            "score": score(self.shares),
            "singles": [score(_single(i, count)) for i in range(count)],
            "equal": score(scaled([1.0] * count)),
        }


def cook(score: Score, count: int, method: Method, max_evaluations: int = 100) -> Soup:
    """Find shares that score high.

    *greedy*: models are added best first, each kept if the equal average of those chosen is no
    worse (Wortsman et al. 2022, "Model soups", recipe 1). *search*: from the best of singles,
    equal average and greedy soup, one share at a time is multiplied, divided or set to 0 while
    that helps, by smaller factors each round.

    Args:
        score: What a model with these shares, which sum to 1, scores; higher is better.
        count: How many models there are.
        method: ``greedy`` or ``search``.
        max_evaluations: A search stops after so many different candidates.
    """
    scored: dict[Shares, float] = {}

    def once(shares: Sequence[float]) -> float:
        key = scaled(shares)
        if key not in scored:
            scored[key] = score(key)
        return scored[key]

    singles = tuple(once(_single(i, count)) for i in range(count))
    equal = once([1.0] * count)
    best = _greedy(once, singles)
    if method == "search":
        best = _search(once, max(scored, key=lambda s: scored[s]), scored, max_evaluations)
    return Soup(method, best, once(best), singles, equal, len(scored))


def scaled(shares: Sequence[float]) -> Shares:
    """Return shares that sum to 1, to six places, so that equal ones are one candidate."""
    return tuple(round(share / sum(shares), 6) for share in shares)


def _single(number: int, count: int) -> Shares:
    return tuple(float(i == number) for i in range(count))


def _greedy(score: Callable[[Sequence[float]], float], singles: Sequence[float]) -> Shares:
    order = sorted(range(len(singles)), key=lambda i: -singles[i])
    chosen = [float(i == order[0]) for i in range(len(order))]
    for number in order[1:]:
        more = [*chosen]
        more[number] = 1.0
        if score(more) >= score(chosen):
            chosen = more
    return scaled(chosen)


def _search(
    score: Callable[[Sequence[float]], float],
    start: Shares,
    scored: dict[Shares, float],
    max_evaluations: int,
) -> Shares:
    best, factor = start, _FIRST_FACTOR
    while factor > _LAST_FACTOR:
        before = best
        for number in range(len(start)):
            for candidate in _neighbours(best, number, factor):
                if len(scored) >= max_evaluations:
                    return best
                if score(candidate) > score(best):
                    best = scaled(candidate)
        if best == before:
            factor **= 0.5
    return best


def _neighbours(shares: Shares, number: int, factor: float) -> list[list[float]]:
    """Return shares with one changed; one that is 0 becomes as much as the mean of the others."""
    own = shares[number]
    if own == 0:
        tries = [1 / (len(shares) * factor)]
    elif own == 1:
        tries = []
    else:
        tries = [own * factor, own / factor, 0.0]
    return [[t if i == number else s for i, s in enumerate(shares)] for t in tries]


class Kitchen:
    """Scores averages of models on held-out records, and remembers the scores in a file."""

    def __init__(
        self,
        sources: Sequence[ModelFiles],
        held_out: HeldOut,
        dtype: torch.dtype,
        precision: str,
        memory: Path,
        on_score: Callable[[Shares, float], None] | None = None,
    ) -> None:
        self.sources, self.held_out, self.dtype = sources, held_out, dtype
        self.precision, self.memory, self.on_score = precision, memory, on_score
        self._key = _key(sources, held_out, dtype, precision)
        self._known = _read(memory, self._key)

    def score(self, shares: Shares) -> float:
        """Return the held-out score of an average, from the file if it is there."""
        if shares not in self._known:
            self._known[shares] = self._taste(shares)
            _append(self.memory, {"key": self._key, "shares": shares, "score": self._known[shares]})
        if self.on_score is not None:
            self.on_score(shares, self._known[shares])
        return self._known[shares]

    def _taste(self, shares: Shares) -> float:
        files = average(self.sources, shares, self.dtype)
        return self.held_out.score(Embedder(files, self.precision))


def _key(
    sources: Sequence[ModelFiles], held_out: HeldOut, dtype: torch.dtype, precision: str
) -> str:
    digest = hashlib.sha256(f"{held_out.fingerprint} {dtype} {precision}".encode())
    for files in sources:
        for path in files.weights.files:
            facts = path.stat()
            digest.update(f"{path.absolute()} {facts.st_size} {facts.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def _read(path: Path, key: str) -> dict[Shares, float]:
    """Read what an earlier run scored; a line that was being written is passed over."""
    if not path.is_file():
        return {}
    known = {}
    for line in path.read_bytes().split(b"\n"):
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if row.get("key") == key:
            known[tuple(row["shares"])] = float(row["score"])
    return known


def _append(path: Path, row: dict[str, Any]) -> None:
    with path.open("ab") as file:
        file.write(b"\n" + orjson.dumps(row))  # first, so that a torn line spoils no other
        file.flush()
        os.fsync(file.fileno())
