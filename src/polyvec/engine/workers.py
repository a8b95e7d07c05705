"""Threads that compute batches side by side, one core each.

Two batches on one core each are up to a third faster than one batch on both: nothing waits for the
slower half of every operation (dev/LOG.md).
"""

import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def start_threads(count: int, name: str) -> ThreadPoolExecutor:
    """Start threads whose operators stay on one core each."""
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, name, torch.set_num_threads, (1,))
    together = threading.Barrier(count)
    list(pool.map(lambda _: together.wait(), range(count)))  # so that all have begun
    # Told to torch for the calling thread, MKL takes it for every thread: put it back.
    torch.set_num_threads(before)
    return pool


def workers(count: int) -> ThreadPoolExecutor:
    """Return the process's threads for ``count`` batches at once."""
    return _workers(count, os.getpid())


@functools.cache
def _workers(count: int, _process: int) -> ThreadPoolExecutor:
    return start_threads(count, "polyvec-batches")


def map_ahead(
    pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], ahead: int
) -> Iterator[R]:
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
