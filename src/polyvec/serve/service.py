"""A request's way through the server: tokens, model, queue, vectors. Knows no HTTP."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import partial
from typing import ParamSpec, TypeVar

import numpy as np

from polyvec.serve.batcher import Batcher, Job, Lane, Rows
from polyvec.serve.failures import ServeError, WorkerLostError
from polyvec.serve.models import Models, ServedModel
from polyvec.serve.reading import Reading
from polyvec.serve.settings import ServeSettings
from polyvec.serve.texts import Inputs, Prepared, Tokenization, Vectors, finish, prepare

P = ParamSpec("P")
T = TypeVar("T")

_ATTEMPTS = 2
"""A request whose worker died is tried once more: the next one may have more memory."""


@dataclass(frozen=True)
class Call:
    """What a request asks for."""

    model: ServedModel
    inputs: Inputs
    reading: Reading
    dimensions: int | None = None
    normalize: bool | None = None
    """None: as the model does."""
    max_tokens: int | None = None
    """Read fewer tokens of a text than the model can."""
    keep_alive_s: float | None = None


@dataclass
class Timings:
    """Where a request's time went, in seconds."""

    tokenize_s: float = 0.0
    load_s: float = 0.0
    queue_s: float = 0.0
    compute_s: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What a request gets."""

    vectors: Vectors
    counts: list[int]
    """Tokens that were read of each text."""
    cut: list[int]
    """Indices of texts that were cut."""
    timings: Timings
    states: Rows = field(default_factory=list)
    """Each token's state, where they were asked for; then there are no vectors."""

    @property
    def num_tokens(self) -> int:
        """Tokens that were read."""
        return sum(self.counts)


def together(first: Outcome, second: Outcome) -> Outcome:
    """Return how two calls of one request went: the first's texts, then the second's."""
    names = [each.name for each in fields(Timings)]
    sums = {name: getattr(first.timings, name) + getattr(second.timings, name) for name in names}
    return Outcome(
        np.concatenate([first.vectors, second.vectors]),
        first.counts + second.counts,
        [*first.cut, *(len(first.counts) + index for index in second.cut)],
        Timings(**sums),
    )


class Service:
    """Answers calls of any dialect. Its coroutines run on one event loop."""

    def __init__(self, settings: ServeSettings, models: Models, batcher: Batcher) -> None:
        self.settings, self.models, self.batcher = settings, models, batcher
        self.tokenization = Tokenization(settings.tokenization_threads)

    async def embed(self, call: Call, *, states: bool = False) -> Outcome:
        """Embed a call's inputs.

        Args:
            call: What is asked for.
            states: Give every token's state instead of vectors.

        Raises:
            ServeError: Too many texts or tokens, or the queue is full.
            InputError: An input or an argument cannot be used.
            PolyvecError: The model cannot be loaded, or failed.
        """
        call.model.files.spec.check_dimensions(call.dimensions)
        self.check_number(len(call.inputs))
        timings = Timings()
        started = time.perf_counter()
        prepared = await self.in_tokenizer(
            prepare, call.model.files, call.inputs, call.reading, call.max_tokens
        )
        timings.tokenize_s = time.perf_counter() - started
        self.check_tokens(prepared.num_tokens)
        rows = await self._rows(call, prepared, states, timings)
        return self._outcome(call, prepared, rows, states, timings)

    async def load(self, model: ServedModel, keep_alive_s: float | None) -> None:
        """Load a model, or unload it (0), without embedding anything."""
        async with self.models.use(model, keep_alive_s):
            pass

    async def in_tokenizer(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function in the tokenizer's threads."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self.tokenization.pool, partial(function, *args, **kwargs)
        )

    def close(self) -> None:
        """End the tokenizer's threads."""
        self.tokenization.close()

    def check_number(self, number: int) -> None:
        """Refuse more texts than a request may have."""
        limit = self.settings.max_texts
        if number > limit:
            raise ServeError(
                "over_limit",
                f"{number:,} texts in one request; this server takes {limit:,} (--max-texts). "
                "Send them in several requests.",
            )

    def check_tokens(self, tokens: int) -> None:
        """Refuse what is too much for ever, and what is too much now."""
        limit = self.settings.max_request_tokens
        if tokens > limit:
            raise ServeError(
                "over_limit",
                f"{tokens:,} tokens in one request; this server takes {limit:,} "
                "(--max-request-tokens). Send them in several requests.",
            )
        queued = self.batcher.queued_tokens("urgent") + self.batcher.queued_tokens("bulk")
        if queued and queued + tokens > self.settings.max_queue_tokens:
            raise self.overloaded(f"{queued:,} tokens wait already")

    def overloaded(self, why: str) -> ServeError:
        """Return the error that asks a client to come back later, with when."""
        wait_s = min(60, max(1, round(self.batcher.wait_s())))
        return ServeError(
            "overloaded",
            f"The server is busy: {why}. Try again in {wait_s} s.",
            retry_after_s=wait_s,
        )

    async def _rows(self, call: Call, prepared: Prepared, states: bool, timings: Timings) -> Rows:
        if not prepared.ids:
            return []
        for attempt in range(_ATTEMPTS):
            started = time.perf_counter()
            try:
                async with self.models.use(call.model, call.keep_alive_s) as worker:
                    timings.load_s += time.perf_counter() - started
                    lane = call.reading.lane or self._lane(prepared)
                    job = self.batcher.submit(worker, prepared.ids, lane, states=states)
                    return await self._wait(job, timings)
            except WorkerLostError as error:
                if attempt + 1 == _ATTEMPTS:
                    raise ServeError(
                        "unavailable",
                        f"{error} The request was tried {_ATTEMPTS} times. If it does that again, "
                        "send fewer or shorter texts, or give the server more memory.",
                        retry_after_s=5,
                    ) from error
        raise AssertionError("the last attempt returns or raises")

    async def _wait(self, job: Job, timings: Timings) -> Rows:
        try:
            rows = await asyncio.wrap_future(job.future)
        finally:
            if not job.future.done() or job.future.cancelled():
                self.batcher.cancel(job)
        now, started = time.perf_counter(), job.started_at or job.queued_at
        timings.queue_s += started - job.queued_at
        timings.compute_s += now - started
        return rows

    def _lane(self, prepared: Prepared) -> Lane:
        return "urgent" if prepared.num_tokens <= self.settings.urgent_tokens else "bulk"

    def _outcome(
        self, call: Call, prepared: Prepared, rows: Rows, states: bool, timings: Timings
    ) -> Outcome:
        spec = call.model.files.spec
        counts = _read_counts(prepared)
        vectors = np.zeros((0, spec.dimension), dtype=np.float32)
        if states:
            return Outcome(vectors, counts, prepared.cut, timings, rows)
        if rows:
            vectors = finish(rows, prepared, spec, call.dimensions, call.normalize)
        return Outcome(vectors, counts, prepared.cut, timings)


def _read_counts(prepared: Prepared) -> list[int]:
    if len(prepared.ids) == len(prepared.pieces):
        return [len(ids) for ids in prepared.ids]
    return prepared.counts
