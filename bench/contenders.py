"""The contenders that run in this Python: sentence-transformers, and polyvec at each precision.

Each has a process of its own so that peak memory is its own. The parent sends a command over a
pipe and waits for the answer, so only one process works at a time. The parent stays small (no
torch): Linux counts a parent's size into its child's peak.
"""

import inspect
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from texts import Workloads

if TYPE_CHECKING:
    from polyvec.engine.embedder import Embedder

Vectors = npt.NDArray[np.float32]

BASELINE = "sentence-transformers fp32"
PRECISIONS = ("fp32", "bf16", "int8")
OURS = tuple(f"polyvec {precision}" for precision in PRECISIONS)


class UnavailableError(Exception):
    """This contender cannot run here; the message says why and what would help."""


class Timing(NamedTuple):
    """What a run took."""

    wall_s: float
    cpu_s: float
    """Of all threads together, waiting in a loop for each other included."""


class Model(Protocol):
    """What both libraries offer."""

    def encode_document(self, texts: list[str], /) -> Any:  # noqa: ANN401 (two libraries' types)
        """Embed documents."""

    def encode_query(self, texts: list[str], /) -> Any:  # noqa: ANN401
        """Embed queries."""


class Peer:
    """A loaded model and the workloads, in a worker process."""

    def __init__(self, name: str, folder: Path, threads: int, workloads: Workloads) -> None:
        started = time.perf_counter()
        self.model, self.workloads = _load(name, folder, threads), workloads
        self.load_seconds = time.perf_counter() - started
        self.loaded_mb = peak_mb()

    def facts(self) -> dict[str, float]:
        """Return seconds to import and load, the peak then, and the peak up to now."""
        seconds = round(self.load_seconds, 2)
        return {"load_s": seconds, "loaded_mb": self.loaded_mb, "peak_mb": peak_mb()}

    def vectors(self, texts: list[str]) -> Vectors:
        """Embed documents as a user would."""
        return np.asarray(self.model.encode_document(texts), dtype=np.float32)

    def query_vectors(self, texts: list[str]) -> Vectors:
        """Embed queries as a user would."""
        return np.asarray(self.model.encode_query(texts), dtype=np.float32)

    def timings(self, workload: str, times: int) -> list[Timing]:
        """Run a workload ``times`` times and return what each took."""
        return [timed(lambda: self._run(workload)) for _ in range(times)]

    def _run(self, workload: str) -> None:
        if workload == "query":
            self.model.encode_query([self.workloads.query])
        else:
            self.model.encode_document(getattr(self.workloads, workload))


def _load(name: str, folder: Path, threads: int) -> Model:
    import torch

    torch.set_num_threads(threads)
    library, precision = name.split()
    if library == "polyvec":
        return load_ours(folder, precision=precision)
    return _load_sentence_transformers(folder)


def load_ours(folder: Path, **options: Any) -> "Embedder":  # noqa: ANN401 (passed on to load)
    """Load polyvec with options that this version or machine may not have.

    Raises:
        UnavailableError: It has not got them.
    """
    import polyvec
    from polyvec.errors import DeviceError

    if unknown := set(options) - set(inspect.signature(polyvec.load).parameters):
        raise UnavailableError(f"this polyvec's load() takes no {', '.join(sorted(unknown))}")
    try:
        return polyvec.load(str(folder), **options)
    except DeviceError as error:
        raise UnavailableError(str(error)) from error


def _load_sentence_transformers(folder: Path) -> Model:
    """Load at the library's defaults, and refuse a model that computes something else."""
    import torch

    try:
        from sentence_transformers import SentenceTransformer
    except ModuleNotFoundError as error:
        raise UnavailableError("pip install sentence-transformers") from error

    model: Any = SentenceTransformer(str(folder), device="cpu")
    if model.tokenizer.chat_template is not None:
        raise SystemExit("The peer's tokenizer has a chat template: it would embed other tokens.")
    if model[0].auto_model.config.is_causal is not False:
        raise SystemExit("The peer is not bidirectional: config.is_causal is not False.")
    if any(parameter.dtype != torch.float32 for parameter in model.parameters()):
        raise SystemExit("The peer is not in fp32.")
    loaded: Model = model
    return loaded


def timed(run: Callable[[], None]) -> Timing:
    """Run it and return what it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return Timing(time.perf_counter() - wall, time.process_time() - cpu)


def peak_mb() -> int:
    """Return this process's peak resident memory so far, in MB (10^6 bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 10**6


class Worker:
    """An object of class ``make`` in a process of its own; call its methods by name.

    Raises:
        UnavailableError: The object says it cannot be made here.
    """

    def __init__(self, make: Callable[..., object], *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
        self.process.start()
        theirs.close()
        refusal = self._receive()
        if refusal is not None:
            self.process.join()
            raise UnavailableError(refusal)

    def __call__(self, method: str, *arguments: object) -> Any:  # noqa: ANN401 (as the method)
        """Call a method there and wait for its result."""
        self.connection.send((method, arguments))
        return self._receive()

    def _receive(self) -> Any:  # noqa: ANN401
        try:
            return self.connection.recv()
        except EOFError:
            raise SystemExit("A worker process died; its error is above.") from None

    def stop(self) -> None:
        """End the process."""
        self.connection.close()
        self.process.join()


def _serve(connection: Connection, make: Callable[..., object], arguments: Sequence[Any]) -> None:
    try:
        target = make(*arguments)
    except UnavailableError as error:
        connection.send(str(error))
        return
    connection.send(None)
    while True:
        try:
            method, given = connection.recv()
        except EOFError:
            return
        connection.send(getattr(target, method)(*given))
