"""Shards over processes and machines, by Dask.

Dask does what it is good at: giving a shard to whoever is free, and to another if a worker dies.
What is done is told by the files alone (:mod:`polyvec.engine.shards`), so any other scheduler
would do.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import polyvec
from polyvec.engine.bulk import BulkReport
from polyvec.engine.rows import Row
from polyvec.engine.shards import Shard, ShardJob, Shards, embed_shard
from polyvec.errors import InputError, MissingExtraError, RemoteError

if TYPE_CHECKING:
    from distributed import Client, Future

    from polyvec.engine.embedder import Progress

_CONNECT_TIMEOUT_S = 10
_AHEAD = 4
"""Shards given out per worker and not finished, so that none waits for the next."""


@contextmanager
def local_cluster(workers: int, cores: int | None = None) -> "Iterator[Client]":
    """Start processes on this machine, which share its cores evenly.

    Raises:
        InputError: Fewer than one.
        MissingExtraError: Dask is not installed.
    """
    if workers < 1:
        raise InputError(f"--workers is {workers}; it must be at least 1.")
    distributed, dask = _dask()
    threads = str(max(1, (cores or os.cpu_count() or 1) // workers))
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    config: dict[str, Any] = {"distributed.nanny.pre-spawn-environ": dict.fromkeys(names, threads)}
    config |= {
        "distributed.worker.memory.terminate": False,
        "distributed.worker.memory.pause": False,
    }
    with (
        dask.config.set(config),
        distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            dashboard_address=None,
            silence_logs=50,
            host="127.0.0.1",
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@contextmanager
def scheduler_at(address: str) -> "Iterator[Client]":
    """Use a scheduler that runs already, and whatever workers it has.

    Raises:
        RemoteError: It cannot be reached, has no worker, or a worker has another polyvec.
        MissingExtraError: Dask is not installed.
    """
    distributed, _ = _dask()
    try:
        client = distributed.Client(address, timeout=_CONNECT_TIMEOUT_S)
    except (OSError, ValueError) as error:
        raise RemoteError(
            f"There is no Dask scheduler at {address} ({str(error)[:200]}). Start one with `dask "
            "scheduler`, and workers with `dask worker HOST:PORT --nthreads 1`."
        ) from error
    with client:
        _check_workers(client, address)
        yield client


def embed_over(
    client: "Client", rows: Iterator[Row], shards: Shards, progress: "Progress | None" = None
) -> tuple[BulkReport, bool]:
    """Embed rows, a shard a task, and gather them.

    Args:
        client: Of :func:`local_cluster` or :func:`scheduler_at`.
        rows: The whole input, also when an earlier run was interrupted.
        shards: Of the output.
        progress: Called with (texts, tokens) as shards are finished.

    Returns:
        As :meth:`polyvec.engine.shards.Shards.gather`.

    Raises:
        InputError: A row cannot be read or embedded; what was finished is kept.
        RemoteError: A shard killed its worker again and again, or all workers are gone.
    """
    started, resumed = time.monotonic(), 0
    tell = progress or (lambda _texts, _tokens: None)
    waiting: dict[Future[dict[str, Any]], Shard] = {}
    try:
        for shard in shards.plan(rows):
            if shard.is_done:
                resumed += shard.rows
                tell(shard.rows, 0)
                continue
            waiting[_submit(client, shard, shards.job)] = shard
            if len(waiting) >= _AHEAD * max(1, len(client.nthreads())):
                resumed += _take_finished(waiting, tell)
        while waiting:
            resumed += _take_finished(waiting, tell)
    finally:
        client.cancel(list(waiting))
    return shards.gather(resumed, time.monotonic() - started)


def _submit(client: "Client", shard: Shard, job: ShardJob) -> "Future[dict[str, Any]]":
    paths = (str(shard.source.absolute()), str(shard.target.absolute()))
    return client.submit(embed_shard, *paths, job, key=f"embed-{shard.target}", pure=False)


def _take_finished(
    waiting: "dict[Future[dict[str, Any]], Shard]", tell: Callable[[int, int], None]
) -> int:
    """Wait for at least one shard; return the rows that an interrupted run had finished."""
    from distributed import wait
    from distributed.scheduler import KilledWorker

    resumed = 0
    for future in wait(list(waiting), return_when="FIRST_COMPLETED").done:
        shard = waiting.pop(future)
        try:
            done = future.result()
        except KilledWorker as error:
            raise RemoteError(
                f"Every worker that took {shard.source.name} was killed; memory is the usual "
                "reason. What was finished is kept: give the same command again, with fewer "
                "workers or with less memory for each (--weights streamed)."
            ) from error
        _check_shared(shard)
        resumed += shard.rows if done["was_done"] else 0
        tell(shard.rows, done["tokens"])
        future.release()
    return resumed


def _check_shared(shard: Shard) -> None:
    if not shard.target.exists():
        raise RemoteError(
            f"A worker finished {shard.target.name}, and it is not in {shard.target.parent} here: "
            "the output must be in a folder that all machines share, under the same path."
        )


def _check_workers(client: "Client", address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=_CONNECT_TIMEOUT_S)
    except TimeoutError as error:
        raise RemoteError(
            f"The scheduler at {address} has no workers. Start some, on machines with polyvec and "
            "the output's folder: `dask worker HOST:PORT --nthreads 1`."
        ) from error
    try:
        versions = set(client.run(_version).values())
    except ImportError as error:
        raise RemoteError(f"A worker of {address} has no polyvec: {error}.") from error
    if versions != {polyvec.__version__}:
        raise RemoteError(
            f"Workers of {address} have polyvec {', '.join(sorted(versions))}, and this is "
            f"{polyvec.__version__}. Install the same version everywhere."
        )


def _version() -> str:
    return polyvec.__version__


def _dask() -> tuple[Any, Any]:
    try:
        import dask
        import distributed
    except ImportError as error:
        raise MissingExtraError(
            "--workers and --scheduler need Dask, which is not installed: "
            "pip install 'polyvec[scale]'."
        ) from error
    return distributed, dask
