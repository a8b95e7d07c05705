"""What the text-mode interface does off its own thread: opening, searching, asking."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from textual.message import Message

from polyvec.errors import PolyvecError
from polyvec.search.answer import Event, ask
from polyvec.search.chat import Chat, ChatSettings
from polyvec.search.retrieve import Result, Searcher, SearchSettings
from polyvec.search.rows import Vectors
from polyvec.search.where import Where


@dataclass
class Opened(Message):
    """The index and its model are open."""

    searcher: Searcher


@dataclass
class Unopened(Message):
    """They cannot be opened."""

    error: PolyvecError


@dataclass
class Found(Message):
    """A search's results."""

    question: str
    results: list[Result]
    seconds: float


@dataclass
class Around(Message):
    """What stands before and after a passage in its document."""

    chunk_id: str
    before: str
    after: str


@dataclass
class Asked(Message):
    """The next part of an answer."""

    event: Event


@dataclass
class Failed(Message):
    """A job that did not succeed, and why."""

    kind: str
    reason: str


class Poster(Protocol):
    """Where messages go: an app, from any thread."""

    def post_message(self, message: Message) -> bool:
        """Put a message in its queue."""


class Jobs:
    """Jobs in threads of their own; a newer one of a kind makes older ones' results void.

    The threads are daemons, so that a chat endpoint that is silent does not hold up the exit.
    """

    def __init__(self, poster: Poster) -> None:
        self._poster, self._newest, self._lock = poster, Counter[str](), threading.Lock()
        self.searcher: Searcher | None = None

    def open(self, opener: Callable[[], Searcher]) -> None:
        """Open the index and its model."""

        def job() -> Iterator[Message]:
            try:
                searcher = opener()
            except PolyvecError as error:
                yield Unopened(error)
                return
            self.searcher = Searcher(searcher.store, self._one_at_a_time(searcher))
            yield Opened(self.searcher)

        self._start("open", job)

    def find(self, question: str, settings: SearchSettings, where: Where) -> None:
        """Search."""
        searcher = self._opened()

        def job() -> Iterator[Message]:
            begun = time.monotonic()
            results = searcher.search(question, settings, where)
            yield Found(question, results, time.monotonic() - begun)

        self._start("find", job)

    def look_around(self, result: Result) -> None:
        """Read the neighbours of a passage."""
        store, chunk = self._opened().store, result.chunk

        def job() -> Iterator[Message]:
            near = {one.ordinal: one.text for one in store.chunks_around(chunk, 1, 1)}
            before, after = near.get(chunk.ordinal - 1, ""), near.get(chunk.ordinal + 1, "")
            before = before[: len(before) - repeated(before, chunk.text)]
            yield Around(chunk.chunk_id, before, after[repeated(chunk.text, after) :])

        self._start("around", job)

    def ask(self, question: str, chat: ChatSettings, search: SearchSettings, where: Where) -> None:
        """Have a question answered."""
        searcher = self._opened()

        def job() -> Iterator[Message]:
            for event in ask(question, searcher, Chat(chat), search=search, where=where):
                yield Asked(event)

        self._start("ask", job)

    def void(self, kind: str) -> None:
        """Let the running job of a kind come to nothing."""
        self._newest[kind] += 1

    def _opened(self) -> Searcher:
        if self.searcher is None:
            raise RuntimeError("the index is not open yet")
        return self.searcher

    def _one_at_a_time(self, searcher: Searcher) -> Callable[[str], Vectors] | None:
        embed = searcher.embed_query
        if embed is None:
            return None

        def locked(text: str) -> Vectors:
            with self._lock:
                return embed(text)

        return locked

    def _start(self, kind: str, job: Callable[[], Iterator[Message]]) -> None:
        self._newest[kind] += 1
        number = self._newest[kind]
        threading.Thread(target=self._run, args=(kind, number, job), daemon=True).start()

    def _run(self, kind: str, number: int, job: Callable[[], Iterator[Message]]) -> None:
        try:
            for message in job():
                if self._newest[kind] != number:
                    return
                self._poster.post_message(message)
        except (PolyvecError, OSError, RuntimeError, ValueError) as error:
            if self._newest[kind] == number:
                self._poster.post_message(Failed(kind, str(error) or type(error).__name__))


def repeated(before: str, after: str) -> int:
    """Return how many characters at the end of a chunk the next one begins with: the overlap."""
    for length in range(min(len(before), len(after), _MOST_OVERLAP), 0, -1):
        if before.endswith(after[:length]):
            return length
    return 0


_MOST_OVERLAP = 2_000
"""Characters looked at."""
