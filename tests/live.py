"""A real server on a free port of this machine, in a thread, with tiny models."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import numpy as np
import pytest

from tests.tiny import shape, weights, write_model

if TYPE_CHECKING:
    from polyvec.engine.embedder import Embedder
    from polyvec.serve.app import Server

T = TypeVar("T")

QUERY, PASSAGE = "query: ", "passage: "
MAX_TOKENS = 64


@dataclass
class Live:
    """A running server, and ways to ask it."""

    url: str
    server: "Server"
    loop: asyncio.AbstractEventLoop
    http: httpx.Client
    stop: Callable[[], None]

    def post(self, path: str, body: object, **headers: str) -> httpx.Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.post(path, json=body, headers=names)

    def get(self, path: str) -> httpx.Response:
        return self.http.get(path)

    def metric(self, line: str) -> float:
        """Return the value of a line of /metrics; 0 if there is none."""
        values = [x.rsplit(" ", 1)[1] for x in self.get("/metrics").text.splitlines() if line in x]
        return sum(map(float, values))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)


@contextmanager
def serving(*models: str, **settings: Any) -> Iterator[Live]:
    """Serve on a free port; ends with everything unloaded."""
    import uvicorn

    from polyvec.serve.app import Server
    from polyvec.serve.run import address, http_config, listening
    from polyvec.serve.settings import ServeSettings

    defaults: dict[str, Any] = {"precision": "fp32", "threads": 1, "host": "127.0.0.1", "port": 0}
    server = Server(ServeSettings(models=models, **(defaults | settings)))
    http, loop, ready = (
        uvicorn.Server(http_config(server)),
        asyncio.new_event_loop(),
        threading.Event(),
    )

    async def main(sock: Any) -> None:
        async with server.running():
            task = asyncio.create_task(http.serve(sockets=[sock]))
            while not http.started:
                await asyncio.sleep(0.01)
            ready.set()
            await task

    with listening("127.0.0.1", 0) as sock:
        thread = threading.Thread(target=loop.run_until_complete, args=(main(sock),))
        thread.start()
        try:
            while not ready.wait(0.05):
                assert thread.is_alive(), "the server did not start"
            url = address(sock)
            with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
                yield Live(url, server, loop, client, lambda: setattr(http, "should_exit", True))
        finally:
            http.should_exit = True
            thread.join(60)
            loop.close()


def write_tiny(folder: Path, dimensions: list[int] | None = None, seed: int = 0) -> Path:
    """Write a small model with a query and a document prefix, which reads 64 tokens."""
    config = shape(
        is_causal=False, max_position_embeddings=MAX_TOKENS, matryoshka_dimensions=dimensions
    )
    prompts = {"query": QUERY, "document": PASSAGE}
    return write_model(folder, config, prompts=prompts, tensors=weights(config, seed))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("served") / "tiny")


@pytest.fixture(scope="session")
def live(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server of two models: ``tiny``, and ``nested``, which is Matryoshka."""
    nested = write_tiny(tmp_path_factory.mktemp("served") / "nested", [16, 24], seed=1)
    with serving(f"tiny={tiny_folder}", f"nested={nested}") as server:
        yield server


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> "Embedder":
    """The model ``tiny`` in this process, to compare with."""
    from polyvec.engine.embedder import load

    return load(str(tiny_folder), precision="fp32")


def close(a: Any, b: Any) -> bool:
    """Whether two sets of vectors are the same but for rounding."""
    left, right = np.asarray(a, dtype=np.float32), np.asarray(b, dtype=np.float32)
    return left.shape == right.shape and float(np.abs(left - right).max(initial=0)) < 1e-5
