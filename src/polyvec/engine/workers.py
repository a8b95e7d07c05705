"""Threads that compute batches side by side, one core each.

Two batches on one core each are up to a third faster than one batch on both: nothing waits for the
slower half of every operation (dev/LOG.md).
"""

import ctypes
import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def start_threads(count: int, name: str) -> ThreadPoolExecutor:
    """Start threads whose operators stay on one core each."""
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, name, _compute_alone)
    together = threading.Barrier(count)
    list(pool.map(lambda _: together.wait(), range(count)))  # so that all have begun
    # Told to torch for the calling thread, MKL takes it for every thread: put it back.
    torch.set_num_threads(before)
    return pool


def _compute_alone() -> None:
    """Keep a thread's operators to one core.

    torch takes the process's number over the thread's when the thread first asks for it, so it has
    to ask before it is told. And torch tells MKL for all threads, so MKL is told for this one where
    torch has it. Else a worker's operators start threads of their own; OpenMP, having more of them
    than cores, stops spinning, and a query on all cores takes twice as long from there on
    (dev/LOG.md).
    """
    torch.get_num_threads()
    torch.set_num_threads(1)
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    if library.exists():
        tell = getattr(ctypes.CDLL(str(library)), "MKL_Set_Num_Threads_Local", None)
        if tell is not None:
            tell(1)


def workers(count: int) -> ThreadPoolExecutor:
    """Return the process's threads for ``count`` batches at once."""
    return _workers(count, os.getpid())


@functools.cache
def _workers(count: int, _process: int) -> ThreadPoolExecutor:
    return start_threads(count, "polyvec-batches")


def map_ahead(
    pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], ahead: int
) -> Generator[R, None, None]:
    """Give results in the order of items, with at most ``ahead`` items begun and not given."""
    begun: deque[Future[R]] = deque()
    try:
        for item in items:
            begun.append(pool.submit(function, item))
            if len(begun) >= ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        for future in begun:
            future.cancel()


def ahead(function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """Give results in order; the next one is made by a thread while one is used."""
    if len(items) < 2:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(1, "polyvec-tokens") as pool:
        yield from map_ahead(pool, function, items, 2)
