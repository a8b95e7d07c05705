"""An answer in a thread of its own, read event by event on the event loop."""

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Iterator

from polyvec.errors import PolyvecError
from polyvec.search.answer import Event
from polyvec.serve.failures import ServeError

_Item = Event | PolyvecError | None
"""None: nothing more comes."""


class Answering:
    """One answer that is being made.

    Its thread waits for a chat endpoint, minutes perhaps, and nothing can wake it from that: so
    it is a daemon, which no shutdown waits for, and notices between two events that nobody reads.
    """

    def __init__(self, events: Callable[[], Iterator[Event]], on_end: Callable[[], None]) -> None:
        """Begin. Made on the event loop that reads.

        Args:
            events: Called in the thread, and read there.
            on_end: Called in the thread when it ends.
        """
        self._events, self._on_end = events, on_end
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[_Item] = asyncio.Queue()
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name="polyvec-answer", daemon=True).start()

    async def next(self) -> Event | None:
        """Return the next event; None after the last.

        Raises:
            PolyvecError: What kept the answer from going on.
        """
        item = await self._queue.get()
        if isinstance(item, PolyvecError):
            raise item
        return item

    def stop(self) -> None:
        """Let the thread end: nobody reads any more."""
        self._stopped.set()

    def _run(self) -> None:
        try:
            for event in self._events():
                if self._stopped.is_set():
                    break
                self._put(event)
        except PolyvecError as error:
            self._put(error)
        except concurrent.futures.CancelledError:
            self._put(ServeError("unavailable", "The server is being stopped."))
        finally:  # a bug ends here too: it is written to the log, and the reader does not wait on
            self._put(None)
            self._on_end()

    def _put(self, item: _Item) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server has ended
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)
