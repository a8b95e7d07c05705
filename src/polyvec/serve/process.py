"""The parent's side of a worker: starts it, sends batches, hands answers on, notices its end."""

import contextlib
import itertools
import multiprocessing
import threading
from collections.abc import Callable, Sequence

import numpy as np

from polyvec.errors import PolyvecError
from polyvec.serve.batcher import Done, Ids, Lane
from polyvec.serve.failures import EngineError, WorkerLostError
from polyvec.serve.worker import Answer, Order, Ready, Refused, Source, resident_bytes, work

_STOP_S = 5.0


class WorkerProcess:
    """A loaded model in a process of its own; a :class:`polyvec.serve.batcher.Engine`."""

    def __init__(
        self,
        source: Source,
        max_batch_tokens: int | None = None,
        on_lost: Callable[["WorkerProcess", WorkerLostError], None] | None = None,
    ) -> None:
        """Start the process and wait until the model is loaded: seconds.

        Raises:
            PolyvecError: What :func:`polyvec.load` raised there.
            WorkerLostError: It ended while it loaded.
        """
        self._on_lost = on_lost
        self._numbers = itertools.count()
        self._pending: dict[int, Done] = {}
        self._lock = threading.Lock()
        self._lost: WorkerLostError | None = None
        self._closing = False
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, source), daemon=True)
        self.process.start()
        theirs.close()
        self.ready = self._wait_until_ready(source)
        self.max_batch_tokens = max_batch_tokens or self.ready.max_batch_tokens
        self._reader = threading.Thread(target=self._read, name="polyvec-worker-reader")
        self._reader.start()

    def _wait_until_ready(self, source: Source) -> Ready:
        try:
            answer = self._connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            raise WorkerLostError(
                f"The process that loads {source.model} ended with code {self.process.exitcode}; "
                "the server's standard error says why, unless the system killed it for memory."
            ) from None
        if isinstance(answer, Refused):
            self.process.join()
            self._connection.close()
            raise answer.error
        ready: Ready = answer
        return ready

    @property
    def memory_bytes(self) -> int:
        """Resident memory of the process now."""
        pid = self.process.pid
        return resident_bytes(pid) if pid is not None else 0

    def start(self, texts: Sequence[Ids], lane: Lane, states: bool, done: Done) -> None:
        """Send a batch; see :class:`polyvec.serve.batcher.Engine`."""
        ids = [np.asarray(text, dtype=np.int32) for text in texts]
        with self._lock:
            number = next(self._numbers)
            if self._lost is None:
                self._pending[number] = done
                # If it is gone, the reader sees the same and answers.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self._connection.send(Order(number, ids, lane == "urgent", states))
                return
        done(self._lost)

    def _read(self) -> None:
        while True:
            try:
                answer: Answer = self._connection.recv()
            except (EOFError, OSError):
                break
            done = self._pending.pop(answer.number)
            if answer.problem is None:
                done(answer.rows)
            else:
                done(EngineError(f"The model could not embed a batch: {answer.problem}"))
        self._lose()

    def _lose(self) -> None:
        """Answer everything that was pending with the process's end."""
        self.process.join()
        error = WorkerLostError(
            f"The process that computes ended with code {self.process.exitcode}."
        )
        with self._lock:
            self._lost = error
            pending, self._pending = list(self._pending.values()), {}
        if self._on_lost is not None and not self._closing:
            self._on_lost(self, error)
        outcome: PolyvecError = error
        for done in pending:
            done(outcome)
        self._connection.close()

    def close(self) -> None:
        """End the process, at once; batches that are pending fail."""
        self._closing = True
        self.process.terminate()
        self._reader.join(_STOP_S)
        if self._reader.is_alive():  # it does not end when it is told to
            self.process.kill()
            self._reader.join()
