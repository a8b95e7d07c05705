"""TCP connections: a request's head comes in time and is not endless, and there are only so many.

uvicorn waits for ever for a head that was begun, and takes connections until the system gives no
more files; then asyncio tries again without a pause and logs every try (40,000 lines a second were
seen). So connections are counted here, below the system's limit. When there are as many as may be,
the one that has waited longest for its head makes room.
"""

import asyncio
import sys
from dataclasses import dataclass
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 2**10
"""Four times what nginx and Apache take; an instruction, percent-encoded, is in it."""
_RESERVED_FILES = 1_024
"""For models, workers' pipes, and connections that were accepted and are not closed yet."""
_ACCEPTED_SHARE = 8
"""asyncio accepts the kernel's whole queue, and again, before it closes any: a part of those."""
_MOST_FILES = 65_536


class Connection(HttpToolsProtocol):
    """uvicorn's protocol, with limits; :func:`connection_type` states them."""

    head_timeout_s: ClassVar[float]
    max_connections: ClassVar[int]
    waiting: ClassVar["dict[Connection, asyncio.TimerHandle]"]
    """Connections whose next head is awaited, the oldest first."""

    answer_timeout_s: ClassVar[float]
    """A client that takes nothing of its answer for so long is cut off."""

    _in_head = False
    _head_bytes = 0
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a head, or refuse the connection."""
        super().connection_made(transport)  # type: ignore[arg-type]
        if len(self.connections) > self.max_connections and not self._close_oldest():
            self._answer(b"503 Service Unavailable", b"Too many connections are busy.")
            return
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        self._flows_again()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass data on; count what belongs to a head that has no end yet."""
        if self.transport.is_closing():
            return
        if self not in self.waiting and (self.cycle is None or self.cycle.response_complete):
            self._wait_for_head()
        was_in_head = self._in_head
        super().data_received(data)
        if was_in_head and self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                said = f"The head of a request may have {MAX_HEAD_BYTES:,} bytes."
                self._answer(b"431 Request Header Fields Too Large", said.encode())

    def on_message_begin(self) -> None:
        """Note that a head begins."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Note that it ended."""
        self._in_head = False
        self._stop_waiting()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """Watch a client that does not take its answer; it would hold memory for ever."""
        super().pause_writing()
        self._watch_answer(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Stop watching."""
        self._flows_again()
        super().resume_writing()

    def _watch_answer(self, waiting_bytes: int) -> None:
        self._stalled = self.loop.call_later(
            self.answer_timeout_s, self._check_answer, waiting_bytes
        )

    def _check_answer(self, before_bytes: int) -> None:
        waiting_bytes = self.transport.get_write_buffer_size()
        if waiting_bytes < before_bytes:  # it is slow, and takes something
            self._watch_answer(waiting_bytes)
        else:
            self.transport.abort()

    def _flows_again(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _wait_for_head(self) -> None:
        self.waiting[self] = self.loop.call_later(self.head_timeout_s, self._head_is_late)

    def _stop_waiting(self) -> None:
        timer = self.waiting.pop(self, None)
        if timer is not None:
            timer.cancel()

    def _head_is_late(self) -> None:
        if self._in_head:
            said = f"The head of the request had not arrived after {self.head_timeout_s:g} s."
            self._answer(b"408 Request Timeout", said.encode())
        else:  # nothing was asked, so nothing is answered
            self._stop_waiting()
            self.transport.close()

    def _close_oldest(self) -> bool:
        """Close the connection that has waited longest; False if all are at work."""
        oldest = next(iter(self.waiting), None)
        if oldest is None:
            return False
        oldest._stop_waiting()
        oldest.transport.close()
        return True

    def _answer(self, status: bytes, said: bytes) -> None:
        self._stop_waiting()
        head = b"HTTP/1.1 %b\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n" % (
            status,
            len(said),
        )
        self.transport.write(head + b"Connection: close\r\n\r\n" + said)
        self.transport.close()


@dataclass(frozen=True)
class Room:
    """How many connections there may be, and how many may wait in the kernel to be accepted."""

    connections: int
    accepted_at_once: int


def make_room(max_connections: int) -> Room:
    """Raise the limit of open files, and return how many connections fit below it."""
    file_limit = _raise_file_limit()
    reserved = min(_RESERVED_FILES, file_limit // 2)
    return Room(min(max_connections, file_limit - reserved), max(1, reserved // _ACCEPTED_SHARE))


def connection_type(timeout_s: float, room: Room) -> type[Connection]:
    """Return the protocol of one server, with its limits and its own list of who waits.

    Args:
        timeout_s: For a head to arrive, and for something of an answer to be taken.
        room: How many connections there may be.
    """
    facts: dict[str, Any] = {
        "head_timeout_s": timeout_s,
        "answer_timeout_s": timeout_s,
        "max_connections": room.connections,
        "waiting": {},
    }
    return type("ServerConnection", (Connection,), facts)


def _raise_file_limit() -> int:
    """Let this process have as many open files as the system allows; return how many those are."""
    if sys.platform == "win32":
        return _MOST_FILES  # sockets are no files there
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MOST_FILES
    allowed = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(soft, allowed)
