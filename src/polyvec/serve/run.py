"""From settings to a running server, and the check before one."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import uvicorn

from polyvec.errors import InputError
from polyvec.serve.app import LOOPBACK, Server
from polyvec.serve.connections import connection_type, make_room
from polyvec.serve.logs import set_up_logs
from polyvec.serve.reading import Reading
from polyvec.serve.service import Call
from polyvec.serve.settings import ServeSettings

_POLL_S = 0.02


def serve(settings: ServeSettings, on_ready: Callable[[str, Server], None]) -> None:
    """Serve until a signal says stop; then answer what is being answered, and end.

    Args:
        settings: What to serve and how.
        on_ready: Called with the address and the server as soon as requests are taken.

    Raises:
        PolyvecError: The address is taken, or a model cannot be loaded.
    """
    _spin_less()
    with listening(settings.host, settings.port) as sock:
        set_up_logs(settings.log_format)
        server = Server(settings)
        # uvicorn drains at the first signal and sends it again at the end, when all is done.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        asyncio.run(_serve(server, sock, on_ready))


def _spin_less() -> None:
    """Let the workers' threads, which inherit this, wait for each other in a loop for less long.

    A server's cores also parse and write. With one of two cores busy otherwise, OpenMP's own
    setting (300,000 turns) makes a 20-token query take 240 to 320 ms instead of 24; with 15,000 it
    takes 100, and on free cores as long as ever. A user's own setting stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "15000")


async def _serve(
    server: Server, sock: socket.socket, on_ready: Callable[[str, Server], None]
) -> None:
    http = uvicorn.Server(http_config(server))
    async with server.running():
        task = asyncio.create_task(http.serve(sockets=[sock]))
        while not (http.started or task.done()):
            await asyncio.sleep(_POLL_S)
        if http.started:
            on_ready(address(sock), server)
        await task


def http_config(server: Server) -> uvicorn.Config:
    """Return uvicorn's settings for a server."""
    settings = server.settings
    room = make_room(settings.max_connections)
    return uvicorn.Config(
        server.app,
        http=connection_type(settings.body_timeout_s, room),
        backlog=room.accepted_at_once,
        lifespan="off",  # `Server.running` is it
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=max(1, int(settings.keep_connection_s)),
        timeout_graceful_shutdown=max(1, int(settings.shutdown_timeout_s)),
    )


@contextlib.contextmanager
def listening(host: str, port: int):  # type: ignore[no-untyped-def] # noqa: ANN201
    """Take the address before anything slow is done."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted connections have it too. Without it, an answer's head and body, two writes, wait
        # for each other: 40 ms a request, more than a short query takes.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            sock.bind((host, port))
        except OSError as error:
            hint = " Is Ollama running?" if port == 11434 else ""
            raise InputError(
                f"Cannot listen on {host} port {port}: {error.strerror}.{hint} Give another with "
                "--port, or --port 0 for a free one."
            ) from error
        yield sock


def address(sock: socket.socket) -> str:
    """Return the address of a listening socket as a URL."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    return host in LOOPBACK or host.startswith("127.")


@dataclass(frozen=True)
class Check:
    """What a model did when it was tried."""

    name: str
    precision: str
    where: str
    dimension: int
    load_s: float
    query_s: float
    memory_bytes: int


def check(settings: ServeSettings) -> list[Check]:
    """Do everything but serve: address, keys, and each model loaded and tried.

    Raises:
        PolyvecError: What would keep the server from starting, or an index from being searched.
    """
    _spin_less()
    with listening(settings.host, settings.port):
        server = Server(settings)
        return asyncio.run(_check(server))


async def _check(server: Server) -> list[Check]:
    checks, library = [], server.library
    async with server.running():
        for index in library.indexes.values():
            await library.in_thread(partial(library.model_of, index))
        for model in server.models.all:
            first = await server.service.embed(Call(model, ["polyvec"], Reading("document")))
            query = await server.service.embed(Call(model, ["polyvec"], Reading("query")))
            if not (np.isfinite(first.vectors).all() and np.isfinite(query.vectors).all()):
                raise InputError(f"{model.name} gives vectors that are no numbers.")
            assert model.worker is not None
            ready = model.worker.ready
            checks.append(
                Check(
                    model.name,
                    ready.precision,
                    ready.where,
                    model.files.spec.dimension,
                    round(first.timings.load_s, 3),
                    round(query.timings.compute_s, 4),
                    model.memory_bytes,
                )
            )
    return checks
