"""Clients for a server under test: closed loop, over kept connections, as little work as can be.

Requests are bytes made beforehand and answers are not parsed (a few are checked before the timing),
so that what is measured on a small machine is the server and not its clients.
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import orjson


@dataclass
class Latencies:
    """Seconds of each request, and when they were made."""

    seconds: list[float] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)
    ended: float = 0.0
    failures: int = 0

    @property
    def per_s(self) -> float:
        """Requests a second."""
        return len(self.seconds) / max(self.ended - self.started, 1e-9)

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile in milliseconds."""
        if len(self.seconds) < 2:
            return self.seconds[0] * 1000 if self.seconds else float("nan")
        return (
            statistics.quantiles(self.seconds, n=1000, method="inclusive")[
                min(998, int(percent * 10) - 1)
            ]
            * 1000
        )


def request_bytes(url: str, body: object) -> bytes:
    """Return a whole HTTP/1.1 POST of JSON."""
    parts, raw = urlsplit(url), orjson.dumps(body)
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
    )
    return head.encode() + raw


class Connection:
    """One kept connection."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname, parts.port
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request and return the status and the body."""
        if self.writer is None or self.reader is None:
            self.reader, self.writer = await asyncio.open_connection(
                self.host, self.port, limit=2**26
            )
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        status = int(lines[0].split()[1])
        sizes = [int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")]
        body = await self.reader.readexactly(sizes[0]) if sizes else await self._chunks()
        if b"connection: close" in head.lower():
            self.close()
        return status, body

    async def _chunks(self) -> bytes:
        assert self.reader is not None
        parts = []
        while size := int(await self.reader.readline(), 16):
            parts.append(await self.reader.readexactly(size))
            await self.reader.readline()
        await self.reader.readline()
        return b"".join(parts)

    def close(self) -> None:
        """Hang up."""
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


async def load(
    url: str, requests: Sequence[bytes], clients: int, seconds: float, pause_s: float = 0.0
) -> Latencies:
    """Ask from several clients at once, each the next request as soon as it has an answer."""
    result, end = Latencies(), time.perf_counter() + seconds

    async def client(number: int) -> None:
        connection, turn = Connection(url), number
        while time.perf_counter() < end:
            started = time.perf_counter()
            status, _ = await connection.ask(requests[turn % len(requests)])
            result.seconds.append(time.perf_counter() - started)
            result.failures += status != 200
            turn += clients
            if pause_s:
                await asyncio.sleep(pause_s)
        connection.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    result.ended = time.perf_counter()
    return result


async def lone_under_load(
    url: str, single: Sequence[bytes], bulk: Sequence[bytes], clients: int, seconds: float
) -> tuple[Latencies, Latencies]:
    """Ask short queries one at a time, with pauses, while other clients send batches."""
    loading = asyncio.create_task(load(url, bulk, clients, seconds))
    await asyncio.sleep(min(1.0, seconds / 4))
    lone = await load(url, single, 1, seconds * 0.7, pause_s=0.02)
    return lone, await loading


async def once(url: str, body: object, read: Callable[[bytes], object]) -> object:
    """Ask once and return what is read of the answer."""
    connection = Connection(url)
    try:
        status, raw = await connection.ask(request_bytes(url, body))
    finally:
        connection.close()
    if status != 200:
        raise SystemExit(f"{url} answered {status}: {raw[:300]!r}")
    return read(raw)
