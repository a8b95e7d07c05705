"""Which tokens are computed next: one queue for all requests, in two lanes. Knows no HTTP.

A job is a request's texts, tokenized. Batches are filled from the queue up to a budget of tokens;
texts of several jobs share a batch, and a job of many texts takes turns with the others. A short
job goes into the *urgent* lane, whose batches a worker computes between two layers of a bulk batch.
While bulk work waits, the urgent lane spends *credit*, which only bulk batches earn: so bulk work
gets at least ``1 / (1 + URGENT_SHARE)`` of the tokens, however many short queries come.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from polyvec.errors import PolyvecError

Lane = Literal["urgent", "bulk"]
Ids = Sequence[int]
Rows = list[npt.NDArray[np.float32]]
Done = Callable[[Rows | PolyvecError], None]

URGENT_SHARE = 4
"""Urgent tokens that a bulk token earns."""
MAX_CREDIT_TOKENS = 8_192
"""Urgent tokens that may overtake at a stretch: a burst of some 400 short queries."""
_RATE_MEMORY = 0.8


class Engine(Protocol):
    """Computes batches of one model."""

    max_batch_tokens: int

    def start(self, texts: Sequence[Ids], lane: Lane, states: bool, done: Done) -> None:
        """Compute a batch and call ``done`` from any thread, with one array a text or an error.

        An urgent batch overtakes a bulk batch that is being computed. With ``states`` the arrays
        are token states ``[tokens, D]`` instead of pooled vectors ``[D]``.
        """


@dataclass(eq=False)
class Job:
    """A request's texts in the queue, and what became of them."""

    engine: Engine
    texts: Sequence[Ids]
    lane: Lane
    states: bool
    future: "Future[Rows]" = field(default_factory=Future)
    results: dict[int, npt.NDArray[np.float32]] = field(default_factory=dict)
    waiting: deque[int] = field(default_factory=deque)
    """Indices of texts that are in no batch yet, longest first."""
    queued_at: float = field(default_factory=time.perf_counter)
    started_at: float | None = None

    def __post_init__(self) -> None:
        order = sorted(range(len(self.texts)), key=lambda i: -len(self.texts[i]))
        self.waiting = deque(order)

    @property
    def waiting_tokens(self) -> int:
        """Tokens that are in no batch yet."""
        return sum(len(self.texts[i]) for i in self.waiting)


@dataclass(frozen=True)
class Batch:
    """Texts of several jobs that are computed together."""

    engine: Engine
    lane: Lane
    states: bool
    rows: list[tuple[Job, int]]
    tokens: int
    started_at: float = field(default_factory=time.perf_counter)

    @property
    def fill(self) -> float:
        """How much of the budget was used; over 1 for one long text."""
        return self.tokens / self.engine.max_batch_tokens


class Batcher:
    """The queue. Every method may be called from any thread."""

    def __init__(self, on_batch: Callable[[Batch, float], None] | None = None) -> None:
        self._on_batch = on_batch
        self._lock = threading.RLock()
        self._lanes: dict[Lane, deque[Job]] = {"urgent": deque(), "bulk": deque()}
        self._running: dict[Lane, Batch | None] = {"urgent": None, "bulk": None}
        self._credit = MAX_CREDIT_TOKENS
        self._queued: dict[Lane, int] = {"urgent": 0, "bulk": 0}
        self.tokens_per_s = 0.0
        """Of late, over both lanes; 0 before the first batch."""

    def submit(
        self, engine: Engine, texts: Sequence[Ids], lane: Lane, *, states: bool = False
    ) -> Job:
        """Put a request's texts into the queue.

        Args:
            engine: What computes them.
            texts: Token ids, at least one text, none of them empty.
            lane: ``urgent`` overtakes ``bulk``.
            states: Give token states, not pooled vectors.

        Returns:
            A job whose ``future`` gets one array a text, in their order, or the engine's error.
        """
        job = Job(engine, texts, lane, states)
        with self._lock:
            self._lanes[lane].append(job)
            self._queued[lane] += job.waiting_tokens
        self._pump()
        return job

    def cancel(self, job: Job) -> None:
        """Take a job's waiting texts out of the queue; nobody wants them any more."""
        with self._lock:
            self._drop(job)
        job.future.cancel()

    def fail(self, engine: Engine, error: PolyvecError) -> None:
        """Give up on all jobs that wait for an engine which is no more."""
        with self._lock:
            lost = [job for q in self._lanes.values() for job in q if job.engine is engine]
            for job in lost:
                self._drop(job)
        for job in lost:
            _resolve(job, error)

    def queued_tokens(self, lane: Lane) -> int:
        """Return how many tokens of a lane are in no batch yet."""
        return self._queued[lane]

    def queued_jobs(self, lane: Lane) -> int:
        """Return how many jobs of a lane have texts in no batch yet."""
        return len(self._lanes[lane])

    def wait_s(self) -> float:
        """Estimate how long what is queued now will take."""
        queued = sum(self._queued.values())
        return queued / self.tokens_per_s if self.tokens_per_s else 1.0

    def _pump(self) -> None:
        """Start what can be started."""
        for lane in self._lanes:
            with self._lock:
                batch = self._next(lane)
            if batch is not None:
                self._start(batch)

    def _start(self, batch: Batch) -> None:
        texts = [job.texts[index] for job, index in batch.rows]

        def done(outcome: Rows | PolyvecError) -> None:
            self._finish(batch, outcome)

        batch.engine.start(texts, batch.lane, batch.states, done)

    def _next(self, lane: Lane) -> Batch | None:
        queue = self._lanes[lane]
        if self._running[lane] is not None or not queue:
            return None
        if not self._bulk_is_waiting():
            self._credit = MAX_CREDIT_TOKENS
        if lane == "urgent" and self._credit <= 0:
            return None
        batch = _fill(queue, lane)
        self._queued[lane] -= batch.tokens
        self._running[lane] = batch
        if lane == "urgent":
            self._credit -= batch.tokens
        return batch

    def _bulk_is_waiting(self) -> bool:
        return bool(self._lanes["bulk"]) or self._running["bulk"] is not None

    def _finish(self, batch: Batch, outcome: Rows | PolyvecError) -> None:
        seconds = time.perf_counter() - batch.started_at
        with self._lock:
            self._running[batch.lane] = None
            if batch.lane == "bulk":
                earned = self._credit + URGENT_SHARE * batch.tokens
                self._credit = min(MAX_CREDIT_TOKENS, earned)
            rate = batch.tokens / max(seconds, 1e-9)
            old = self.tokens_per_s or rate
            self.tokens_per_s = _RATE_MEMORY * old + (1 - _RATE_MEMORY) * rate
            complete = self._deliver(batch, outcome)
        self._pump()  # first, so that the engine works while answers are written
        if self._on_batch is not None:
            self._on_batch(batch, seconds)
        for job in complete:
            _resolve(job, outcome)

    def _deliver(self, batch: Batch, outcome: Rows | PolyvecError) -> list[Job]:
        if isinstance(outcome, PolyvecError):
            failed = list({id(job): job for job, _ in batch.rows}.values())
            for job in failed:
                self._drop(job)
            return failed
        complete = []
        for (job, index), row in zip(batch.rows, outcome, strict=True):
            job.results[index] = row
            if len(job.results) == len(job.texts):
                complete.append(job)
        return complete

    def _drop(self, job: Job) -> None:
        self._queued[job.lane] -= job.waiting_tokens
        job.waiting.clear()
        if job in self._lanes[job.lane]:
            self._lanes[job.lane].remove(job)


def _fill(queue: deque[Job], lane: Lane) -> Batch:
    """Take texts of one model from a lane up to its budget.

    A job that needs more than another whole batch goes last; one that is nearly done stays first.
    """
    first = queue[0]
    rows: list[tuple[Job, int]] = []
    left = budget = first.engine.max_batch_tokens
    unfinished = []
    for job in list(queue):
        if (job.engine, job.states) != (first.engine, first.states):
            continue
        left = _take(job, rows, left, is_first=left == budget)
        if not job.waiting:
            queue.remove(job)
        elif job.waiting_tokens > budget:
            unfinished.append(job)
        if left <= 0:
            break
    for job in unfinished:
        queue.remove(job)
        queue.append(job)
    rows.sort(key=lambda row: -len(row[0].texts[row[1]]))
    tokens = sum(len(job.texts[index]) for job, index in rows)
    return Batch(first.engine, lane, first.states, rows, tokens)


def _take(job: Job, rows: list[tuple[Job, int]], left: int, *, is_first: bool) -> int:
    while job.waiting and (is_first or len(job.texts[job.waiting[0]]) <= left):
        index = job.waiting.popleft()
        rows.append((job, index))
        left -= len(job.texts[index])
        is_first = False
        job.started_at = job.started_at or time.perf_counter()
    return left


def _resolve(job: Job, outcome: Rows | PolyvecError) -> None:
    if not job.future.set_running_or_notify_cancel():
        return
    if isinstance(outcome, PolyvecError):
        job.future.set_exception(outcome)
    else:
        job.future.set_result([job.results[index] for index in range(len(job.texts))])
