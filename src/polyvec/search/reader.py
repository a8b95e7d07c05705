"""Files read in a process with limits, ahead of the embedding that uses them."""

import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

import orjson
import tokenizers

from polyvec import errors
from polyvec.search.kinds import kind_of
from polyvec.search.rows import ChunkSettings
from polyvec.search.settings import ReadSettings
from polyvec.search.worker import Reading, read_frame, write_frame

SLOWEST_BYTES_S = 50_000
"""A large file has a second more for so many bytes."""
_AHEAD_FILES = 32
_START_TIMEOUT_S = 60.0
"""Added to the first file's time: the process starts with it."""


class Reader:
    """Reads files of a folder, one at a time; a process that hangs or dies is replaced."""

    def __init__(
        self,
        root: Path,
        tokenizer: tokenizers.Tokenizer,
        chunking: ChunkSettings,
        settings: ReadSettings,
    ) -> None:
        self.root, self.settings = root, settings
        self._greeting = orjson.dumps(
            {
                "root": str(root),
                "tokenizer": tokenizer.to_str(),
                "chunking": asdict(chunking),
                "read": asdict(settings),
            }
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._replies: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def read_all(self, wanted: Iterable[tuple[str, str]]) -> Iterator[tuple[str, Reading]]:
        """Yield (path, reading) of (path, known document id), some files ahead of their use."""
        with ThreadPoolExecutor(1) as thread:
            coming: deque[tuple[str, Future[Reading]]] = deque()
            try:
                for path, known_id in wanted:
                    coming.append((path, thread.submit(self.read, path, known_id)))
                    if len(coming) > _AHEAD_FILES:
                        path, future = coming.popleft()
                        yield path, future.result()
                while coming:
                    path, future = coming.popleft()
                    yield path, future.result()
            finally:
                thread.shutdown(wait=False, cancel_futures=True)
                if coming:
                    self._stop()  # so that the file being read is not waited for

    def read(self, path: str, known_id: str = "") -> Reading:
        """Read one file; what goes wrong with it is said in the reading.

        Raises:
            MissingExtraError: A library is not installed.
        """
        timeout_s = self._timeout_s(path)
        if self._process is None:
            self._start()
            timeout_s += _START_TIMEOUT_S
        process = self._process
        if process is None or process.stdin is None:
            raise RuntimeError("the reading process was stopped while it was asked")
        try:
            write_frame(process.stdin, orjson.dumps({"path": path, "known_id": known_id}))  # type: ignore[arg-type]
            reply = self._replies.get(timeout=timeout_s)
        except queue.Empty:
            self._stop()
            return _failed(path, f"reading it took more than {timeout_s:,.0f} seconds")
        except BrokenPipeError:
            reply = None
        if reply is None:
            return self._died(path, process)
        answer = orjson.loads(reply)
        if "error" in answer:
            name, message = answer["error"]
            raise getattr(errors, name)(message)
        return Reading.of(answer["reading"])

    def _timeout_s(self, path: str) -> float:
        try:
            size = (self.root / path).stat().st_size
        except OSError:
            size = 0  # gone: the reader says so
        return self.settings.read_timeout_s + size / SLOWEST_BYTES_S

    def _died(self, path: str, process: "subprocess.Popen[bytes]") -> Reading:
        self._stop()
        megabytes = f"{self.settings.read_memory_mb:,}"
        return _failed(
            path,
            f"the process that read it ended ({_ended(process.returncode)}); it may have wanted "
            f"more than {megabytes} MB of memory",
        )

    def _start(self) -> None:
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS"), "1")
        environment = {**os.environ, **one_thread, "TOKENIZERS_PARALLELISM": "false"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "polyvec.search.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C is the parent's to handle
        )
        self._replies = queue.SimpleQueue()
        listener = threading.Thread(
            target=_listen, args=(self._process, self._replies), daemon=True
        )
        listener.start()
        write_frame(self._process.stdin, self._greeting)  # type: ignore[arg-type]

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            if process.stdin is not None:
                with suppress(OSError):  # what was not sent is not wanted any more
                    process.stdin.close()


def _listen(process: "subprocess.Popen[bytes]", replies: "queue.SimpleQueue[bytes | None]") -> None:
    """Put replies in a queue, and None when there will be no more."""
    if process.stdout is not None:
        with process.stdout as stream:
            while (reply := read_frame(stream)) is not None:  # type: ignore[arg-type]
                replies.put(reply)
    replies.put(None)


def _failed(path: str, problem: str) -> Reading:
    kind = kind_of(path)
    return Reading(file_type=kind.file_type if kind else "", problem=problem)


def _ended(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
