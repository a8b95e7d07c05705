"""The process that computes for one model. Its parent decides what; this one only computes.

A process of its own, because its memory goes back to the system when it ends, because a crash in it
is no crash of the server, and because the server's Python does not hold up the model's.
"""

import os
from collections import deque
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from polyvec.engine.plan import WeightsWanted
from polyvec.errors import PolyvecError
from polyvec.spec import Attention, Pooling

if TYPE_CHECKING:
    from polyvec.engine.embedder import Embedder


@dataclass(frozen=True)
class Source:
    """What to load, and how: the arguments of :func:`polyvec.load`."""

    model: str
    precision: str = "auto"
    device: str = "auto"
    attention: Attention | None = None
    pooling: Pooling | None = None
    max_tokens: int | None = None
    weights: WeightsWanted = "auto"
    memory_bytes: int | None = None
    threads: int | None = None
    """Threads of the computation; None is torch's own choice."""


@dataclass(frozen=True)
class Ready:
    """The model is loaded."""

    precision: str
    where: str
    max_batch_tokens: int
    memory_bytes: int


@dataclass(frozen=True)
class Refused:
    """The model could not be loaded; the error is one polyvec foresaw."""

    error: PolyvecError


@dataclass(frozen=True)
class Order:
    """Compute a batch."""

    number: int
    texts: list[npt.NDArray[np.int32]]
    urgent: bool
    states: bool


@dataclass(frozen=True)
class Answer:
    """A batch's arrays, one a text, or why there are none."""

    number: int
    rows: list[npt.NDArray[np.float32]]
    problem: str | None = None


def work(connection: Connection, source: Source) -> None:
    """Load a model, then answer orders until the parent closes the connection."""
    if hasattr(os, "setsid"):
        os.setsid()  # or Ctrl-C would end this process while the parent still answers requests
    try:
        embedder = _load(source)
    except PolyvecError as error:
        connection.send(Refused(error))
        return
    ready = Ready(
        embedder.precision, embedder.where, embedder.together_tokens, resident_bytes(os.getpid())
    )
    connection.send(ready)
    try:
        _Worker(connection, embedder).run()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent has closed the connection, or is gone


def _load(source: Source) -> "Embedder":
    import torch

    import polyvec

    if source.threads is not None:
        torch.set_num_threads(source.threads)
    embedder = polyvec.load(
        source.model,
        precision=source.precision,
        device=source.device,
        attention=source.attention,
        pooling=source.pooling,
        max_tokens=source.max_tokens,
        weights=source.weights,
        memory_bytes=source.memory_bytes,
    )
    embedder.pooled([[0] * 16])  # the first batch of a process is slow; it is nobody's
    return embedder


class _Worker:
    def __init__(self, connection: Connection, embedder: "Embedder") -> None:
        self.connection, self.embedder = connection, embedder
        self.urgent: deque[Order] = deque()
        self.bulk: deque[Order] = deque()

    def run(self) -> None:
        while True:
            self._receive()
            while self.urgent or self.bulk:
                self._compute_urgent()
                if self.bulk:
                    self._compute(self.bulk.popleft())

    def _receive(self) -> None:
        order: Order = self.connection.recv()
        (self.urgent if order.urgent else self.bulk).append(order)

    def _compute_urgent(self) -> None:
        """Let short queries overtake; called between layers of bulk work, too."""
        while self.connection.poll():
            self._receive()
        while self.urgent:
            self._compute(self.urgent.popleft())

    def _compute(self, order: Order) -> None:
        between = None if order.urgent else self._compute_urgent
        texts = [ids.tolist() for ids in order.texts]
        rows, problem = [], None
        try:
            if order.states:
                rows = self.embedder.token_states(texts, between)
            else:
                rows = list(self.embedder.pooled(texts, between))
        except (MemoryError, RuntimeError) as error:  # torch's own, out of memory among them
            problem = f"{type(error).__name__}: {error}"
        self.connection.send(Answer(order.number, rows, problem))


def resident_bytes(pid: int) -> int:
    """Return a process's resident memory; 0 where the system does not say (no /proc)."""
    try:
        with open(f"/proc/{pid}/statm") as file:  # noqa: PTH123 (a file of the kernel)
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
