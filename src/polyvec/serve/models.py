"""The models a server has: found by name, loaded when needed, unloaded when not."""

import asyncio
import difflib
import math
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from polyvec.hub import resolve
from polyvec.serve.batcher import Batcher
from polyvec.serve.failures import ServeError, WorkerLostError
from polyvec.serve.process import WorkerProcess
from polyvec.serve.worker import Source
from polyvec.spec import Role

if TYPE_CHECKING:
    from polyvec.model.files import ModelFiles

FOREVER = -1.0
_LONGEST_S = 100 * 365 * 86_400.0
"""A model that is to stay longer stays for ever; its end could not be written as a date."""
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_NUMBER = re.compile(r"\d+(\.\d*)?|\.\d+", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)", re.ASCII)
_SWEEP_S = 0.5
_PROCESS_BYTES = 300 * 2**20
"""What a worker needs beside the weights: Python, torch, buffers. Only for a first estimate."""

_ROLES: dict[str, Role] = {"query": "query", "document": "document"}


@dataclass(eq=False)
class ServedModel:
    """A model under a name: its files opened, and its worker while it is loaded."""

    name: str
    source: Source
    files: "ModelFiles"
    max_batch_tokens: int | None
    keep_alive_s: float
    size_bytes: int
    """Of the weight files."""
    modified_s: float
    """When they were changed last, seconds since 1970."""
    worker: WorkerProcess | None = None
    num_uses: int = 0
    """Requests that need the worker now."""
    used_at: float = 0.0
    expires_at: float | None = None
    """On the monotonic clock; None: it stays."""
    loaded_bytes: int = 0
    """What it took when it was loaded last; 0: never was."""
    loading: "asyncio.Task[None] | None" = None

    @property
    def expected_bytes(self) -> int:
        """Memory that loading it will take."""
        return self.loaded_bytes or self.size_bytes + _PROCESS_BYTES

    @property
    def memory_bytes(self) -> int:
        """Memory it takes now."""
        return self.worker.memory_bytes if self.worker is not None else 0


def open_served(
    name: str, source: Source, max_batch_tokens: int | None, keep_alive_s: float
) -> ServedModel:
    """Open a model's files, tokenizer and spec included; its weights are not read.

    Raises:
        PolyvecError: As :func:`polyvec.load`.
    """
    from polyvec.model.files import open_model

    place = resolve(source.model)
    stated = {k: getattr(source, k) for k in ("attention", "pooling", "max_tokens")}
    given = {k: v for k, v in stated.items() if v is not None}
    files = open_model(place.path, {**place.facts, **given})
    stats = [path.stat() for path in files.weights.files]
    size, modified_s = sum(s.st_size for s in stats), max(s.st_mtime for s in stats)
    return ServedModel(name, source, files, max_batch_tokens, keep_alive_s, size, modified_s)


class Models:
    """All models of a server. Its coroutines run on one event loop."""

    def __init__(
        self,
        models: Sequence[ServedModel],
        batcher: Batcher,
        max_memory_bytes: int | None = None,
        on_event: Callable[[str, ServedModel], None] | None = None,
    ) -> None:
        self._models = {model.name: model for model in models}
        self._batcher = batcher
        self._max_memory_bytes = max_memory_bytes
        self._on_event = on_event or (lambda _event, _model: None)
        self._room = asyncio.Lock()

    @property
    def all(self) -> list[ServedModel]:
        """Every model, the default one first."""
        return list(self._models.values())

    def find(self, name: str) -> tuple[ServedModel, Role | None]:
        """Return the model of a name and the role its suffix chooses.

        An empty name is the first model. ``:latest``, which Ollama's clients add, is nothing.

        Raises:
            ServeError: There is none; the message lists those there are.
        """
        if not name:
            return self.all[0], None
        bare = name.removesuffix(":latest")
        for candidate, role in ((name, None), (bare, None), _without_role(bare)):
            if candidate in self._models:
                return self._models[candidate], role
        near = difflib.get_close_matches(bare, self._models, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ServeError(
            "unknown_model",
            f"No model {name!r} here.{hint} There is {', '.join(self._models)}; each may be "
            "followed by :query or :document. Others are named when the server is started.",
        )

    @asynccontextmanager
    async def use(
        self, model: ServedModel, keep_alive_s: float | None = None
    ) -> AsyncIterator[WorkerProcess]:
        """Load a model unless it is loaded, and keep it so meanwhile.

        Args:
            model: Which.
            keep_alive_s: How long it stays loaded afterwards: 0 unloads it at once, a negative
                number keeps it; None is the server's setting.

        Raises:
            PolyvecError: It cannot be loaded.
        """
        model.num_uses += 1
        try:
            yield model.worker or await self._loaded(model)
        finally:
            model.num_uses -= 1
            model.used_at = time.monotonic()
            stay_s = model.keep_alive_s if keep_alive_s is None else keep_alive_s
            model.expires_at = None if stay_s < 0 else model.used_at + stay_s
            if stay_s == 0:
                await self.unload_idle()

    async def _loaded(self, model: ServedModel) -> WorkerProcess:
        """Load a model once for all who wait; it goes on though all of them hang up."""
        if model.loading is None:
            model.loading = asyncio.create_task(self._load(model))
            model.loading.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(model.loading)
        if model.worker is None:
            raise WorkerLostError(f"The process of {model.name} ended as soon as it was ready.")
        return model.worker

    async def _load(self, model: ServedModel) -> None:
        try:
            async with self._room:  # one at a time, or two would count on the same memory
                await self._make_room(model)
                model.worker = await asyncio.to_thread(
                    WorkerProcess, model.source, model.max_batch_tokens, self._lost
                )
                model.loaded_bytes = model.worker.ready.memory_bytes
            self._on_event("loaded", model)
        finally:
            model.loading = None

    async def _make_room(self, model: ServedModel) -> None:
        """Unload models that were used longest ago until this one fits."""
        limit = self._max_memory_bytes
        if limit is None:
            return
        while (taken := sum(m.memory_bytes for m in self.all)) + model.expected_bytes > limit:
            idle = [m for m in self.all if m.worker is not None and m.num_uses == 0]
            if not idle:
                raise ServeError(
                    "unavailable",
                    f"{model.name} needs some {model.expected_bytes / 1e9:.1f} GB, the server may "
                    f"take {limit / 1e9:.1f} GB, and {taken / 1e9:.1f} GB are in use by models "
                    "at work. Try again later, or start it with a higher --max-memory-gb.",
                    retry_after_s=5 if taken else None,
                )
            await self._unload(min(idle, key=lambda m: m.used_at))

    async def _unload(self, model: ServedModel) -> None:
        worker, model.worker, model.expires_at = model.worker, None, None
        if worker is not None:
            await asyncio.to_thread(worker.close)
            self._on_event("unloaded", model)

    async def unload_idle(self) -> None:
        """Unload the models whose time is over."""
        now = time.monotonic()
        for model in self.all:
            over = model.expires_at is not None and model.expires_at <= now
            if over and model.num_uses == 0 and model.worker is not None:
                await self._unload(model)

    async def sweep(self) -> None:
        """Unload what expires, for ever."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            await self.unload_idle()

    async def close(self) -> None:
        """Unload everything."""
        for model in self.all:
            await self._unload(model)

    def _lost(self, worker: WorkerProcess, error: WorkerLostError) -> None:
        """Forget a worker that ended by itself; called in its reader's thread."""
        for model in self.all:
            if model.worker is worker:
                model.worker = None
                self._on_event("lost", model)
        self._batcher.fail(worker, error)


def _without_role(name: str) -> tuple[str, Role | None]:
    bare, _, suffix = name.rpartition(":")
    return (bare, _ROLES[suffix]) if suffix in _ROLES else (name, None)


def keep_alive_seconds(value: str | float | None) -> float | None:
    """Read Ollama's ``keep_alive``: seconds, or Go's durations like ``5m`` and ``1h30m``.

    Raises:
        ServeError: It is neither.
    """
    if value is None:
        return None
    seconds = _duration_s(value) if isinstance(value, str) else float(value)
    if math.isnan(seconds):
        raise ServeError(
            "invalid",
            f"keep_alive is {value!r:.60}; write seconds (300) or a duration ('5m', '1h30m'), 0 to "
            "unload at once, -1 to keep the model loaded.",
        )
    return FOREVER if seconds > _LONGEST_S else seconds


def _duration_s(text: str) -> float:
    """Read seconds or a duration of Go's; not a number if it is neither."""
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text)
    if _NUMBER.fullmatch(rest):
        return sign * float(rest)
    parts = _PART.findall(rest)
    if not parts or "".join(number + unit for number, unit in parts) != rest:
        return math.nan
    return sign * sum(float(number) * _UNITS_S[unit] for number, unit in parts)
