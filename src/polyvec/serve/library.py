"""The indexes a server searches: opened when asked for, each with the model that made it."""

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from polyvec.errors import (
    IndexMismatchError,
    IndexMissingError,
    InputError,
    MissingExtraError,
    PolyvecError,
    StorageError,
)
from polyvec.search.chat import (
    MODEL_VARIABLE,
    URL_VARIABLE,
    ChatSettings,
    chat_settings,
    httpx_module,
)
from polyvec.search.place import index_name, stated_index
from polyvec.search.rows import IndexInfo
from polyvec.search.storage import is_object_store, stated_options, storage_options
from polyvec.search.store import Store
from polyvec.serve.failures import ServeError
from polyvec.serve.models import Models, ServedModel
from polyvec.serve.settings import ServeSettings, split_name
from polyvec.serve.updates import Updates

T = TypeVar("T")

_FACTS_KEPT_S = 2.0
"""Opening an index takes 25 ms; after that another process may have migrated it."""
NO_INDEX = (
    "This server has no index. Make one of a folder, and name it when the server is started: "
    "polyvec index FOLDER; polyvec serve --index FOLDER"
)


@dataclass(eq=False)
class ServedIndex:
    """An index under a name. Its methods run in the library's threads."""

    name: str
    uri: str
    storage_options: dict[str, str] = field(default_factory=dict, repr=False)
    """Of an object store, as stated; what its file says comes beside."""
    _store: Store | None = None
    _opened_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def info(self) -> IndexInfo:
        """Return the index's facts, not older than two seconds."""
        return self._open(fresh=False).info

    def read(self, work: Callable[[Store], T], fingerprint: str | None = None) -> T:
        """Do something with the index, once more if another process has replaced its table.

        Args:
            work: What reads.
            fingerprint: Of the model whose vectors ``work`` has; None if it has none.

        Raises:
            ServeError: The index cannot be read, or was migrated meanwhile.
            PolyvecError: What ``work`` or opening raises.
        """
        problem: Exception | None = None
        for again in (False, True):
            try:
                store = self._open(fresh=again)
                if fingerprint not in (None, store.info.fingerprint):
                    raise ServeError("unavailable", self._migrated(), retry_after_s=1)
                return work(store)
            except StorageError as error:  # the same, from a store that is no folder
                problem = error
            except PolyvecError:
                raise
            except (RuntimeError, ValueError, OSError) as error:  # what LanceDB raises
                problem = error
        raise self._unreadable(problem) from problem

    def guarded(self, events: Iterator[T]) -> Iterator[T]:
        """Pass on what is made from the index bit by bit.

        Raises:
            ServeError: The index cannot be read any more.
        """
        try:
            yield from events
        except PolyvecError:
            raise
        except (RuntimeError, ValueError, OSError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, problem: Exception | None) -> ServeError:
        return ServeError(
            "unavailable",
            f"The index {self.name} cannot be read: {str(problem)[:300]}. Bring it up to date: "
            f"polyvec index FOLDER --index {self.uri}",
        )

    def _migrated(self) -> str:
        return f"The index {self.name} was moved to another model just now. Ask again."

    def _open(self, fresh: bool) -> Store:
        with self._lock:
            is_old = time.monotonic() - self._opened_at > _FACTS_KEPT_S
            if self._store is None or is_old or fresh:
                self._store = Store.open(self.uri, None, self.storage_options)
                self._opened_at = time.monotonic()
            return self._store


class Library:
    """All indexes of a server, the threads that search them, and the chat endpoint."""

    def __init__(self, settings: ServeSettings, models: Models) -> None:
        """Find the indexes; none is opened.

        Raises:
            IndexMissingError: No index is where one was named.
            InputError: Two have one name, or an option or the chat endpoint cannot be used.
            MissingExtraError: An index or an endpoint is named, and what reads it is not installed.
        """
        self.indexes = _named_indexes(settings.index, settings.storage_option)
        self.chat = _chat(settings) if self.indexes else None
        self.updates = Updates(settings.allow_updates)
        self._models = models
        self._fingerprints: dict[str, str] = {}
        self._hashing = threading.Lock()
        self._answers = threading.BoundedSemaphore(settings.max_answers)
        self._pool = ThreadPoolExecutor(
            settings.search_threads, thread_name_prefix="polyvec-search"
        )

    def find(self, name: str | None) -> ServedIndex:
        """Return the index of a name, the first one without a name.

        Raises:
            IndexMissingError: There is none.
        """
        if not self.indexes:
            raise IndexMissingError(NO_INDEX)
        if name is None:
            return next(iter(self.indexes.values()))
        if name not in self.indexes:
            raise IndexMissingError(
                f"No index {name!r:.100} here. There is {', '.join(self.indexes)}."
            )
        return self.indexes[name]

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Do something in one of the threads that search."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def model_of(self, index: ServedIndex) -> tuple[ServedModel, str]:
        """Return the served model that made an index, and its fingerprint. Reads weight files once.

        Raises:
            IndexMismatchError: None of them did; the message has the command that migrates.
            PolyvecError: The index cannot be opened.
        """
        info = index.info()
        for model in self._models.all:
            if self._fingerprint(model) == info.fingerprint:
                return model, info.fingerprint
        raise _mismatch(index, info, self._models.all)

    def _fingerprint(self, model: ServedModel) -> str:
        with self._hashing:
            if model.name not in self._fingerprints:
                self._fingerprints[model.name] = model.files.fingerprint()
            return self._fingerprints[model.name]

    def facts(self, index: ServedIndex) -> dict[str, Any]:
        """Return what is in an index, and why it cannot be searched if it cannot."""
        empty = {"documents": 0, "unread": 0, "chunks": 0, "file_types": {}, "languages": {}}
        facts: dict[str, Any] = {"name": index.name, "model": "", "problem": None, **empty}
        facts["update"] = None  # where a client may not ask for one
        try:
            facts |= index.read(_contents)
            if self.updates.can(index.info().root):
                facts["update"] = self.updates.facts(index.name)
            facts["model"] = self.model_of(index)[0].name
        except PolyvecError as error:
            facts["problem"] = str(error)
        return facts

    def update(self, index: ServedIndex) -> dict[str, Any]:
        """Begin to bring an index up to date with its folder; return how that stands.

        Raises:
            ServeError: This server does not do it.
            InputError: The folder is not on this machine.
            PolyvecError: The index cannot be opened.
        """
        if not self.updates.is_allowed:
            raise ServeError(
                "forbidden",
                "This server does not bring indexes up to date for its clients. Let it when it is "
                "started: --allow-updates",
            )
        root = index.info().root
        if not self.updates.can(root):
            raise InputError(
                f"The folder of the index {index.name} is not on the server's machine. Bring it up "
                "to date where it is: polyvec index FOLDER --index PLACE"
            )
        self.updates.start(index.name, root, index.uri)
        return self.updates.facts(index.name)

    def begin_answer(self) -> Callable[[], None]:
        """Count an answer in; the caller calls what is returned when it ends.

        Raises:
            ServeError: So many are being made already.
        """
        if not self._answers.acquire(blocking=False):
            raise ServeError(
                "overloaded",
                "The server is busy: it waits for as many answers as it may (--max-answers). Try "
                "again in 5 s.",
                retry_after_s=5,
            )
        return self._answers.release

    def close(self) -> None:
        """End the threads."""
        self.updates.close()
        self._pool.shutdown(wait=True, cancel_futures=True)


def _contents(store: Store) -> dict[str, Any]:
    documents = store.documents()
    kinds = Counter(document.file_type for document in documents if document.state == "indexed")
    return {
        "model": Path(store.info.model).name,  # not where it lies on this machine
        "documents": kinds.total(),
        "unread": sum(document.state == "failed" for document in documents),
        "chunks": store.count(),
        "file_types": dict(kinds.most_common()),
        "languages": store.language_counts(),
    }


def _named_indexes(stated: tuple[str, ...], flags: tuple[str, ...]) -> dict[str, ServedIndex]:
    if stated and find_spec("lancedb") is None:
        raise MissingExtraError(
            "An index is to be served (--index), and LanceDB, which reads it, is not installed: "
            "pip install 'polyvec[search]'"
        )
    indexes: dict[str, ServedIndex] = {}
    options = stated_options(flags)
    for text in stated:
        name, place = split_name(text)
        uri = stated_index(place)
        name = name or index_name(uri)
        if name in indexes:
            raise InputError(
                f"Two indexes are to be served as {name!r}. Name one: --index NAME={place}"
            )
        own = options if is_object_store(uri) else {}
        storage_options(uri, own)  # a wrong one is told when the server starts
        indexes[name] = ServedIndex(name, uri, own)
    if options and not any(is_object_store(index.uri) for index in indexes.values()):
        raise InputError(
            "--storage-option is for an index in an object store, and none is served: give "
            "--index s3://bucket/prefix."
        )
    return indexes


def _chat(settings: ServeSettings) -> ChatSettings | None:
    stated = (settings.chat_url, settings.chat_model)
    if not any((*stated, os.environ.get(URL_VARIABLE), os.environ.get(MODEL_VARIABLE))):
        return None
    httpx_module()
    return chat_settings(*stated)


def _mismatch(index: ServedIndex, info: IndexInfo, models: list[ServedModel]) -> IndexMismatchError:
    names = ", ".join(model.name for model in models)
    first = models[0].source.model
    place = str(Path(first).absolute()) if Path(first).exists() else first
    return IndexMismatchError(
        f"The index {index.name} has vectors of {info.model} (fingerprint {info.fingerprint}), "
        f"which is not what is served ({names}). Serve that model too (polyvec serve "
        f"{info.model} --index ...), or embed the index anew with the served one: polyvec index "
        f"{info.root or 'FOLDER'} --index {index.uri} --model {place} --migrate. Meanwhile it can "
        "be searched by words (mode text)."
    )
