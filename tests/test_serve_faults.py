"""Overload, hang-ups, dead workers, missing files, broken requests: every fault has its answer."""

import os
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from polyvec.engine.embedder import Embedder
from polyvec.serve.worker import resident_bytes
from tests.live import Live, close, serving, write_tiny

FOX = {"model": "tiny", "input": "fox"}
pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="stops a process")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server with low limits, and a model whose files a test may take away."""
    folder = write_tiny(tmp_path_factory.mktemp("faults") / "tiny")
    with serving(
        str(folder),
        max_concurrent_requests=4,
        max_queue_tokens=300,
        max_request_tokens=400,
        max_texts=20,
        max_body_bytes=20_000,
        body_timeout_s=0.5,
        request_timeout_s=20.0,
    ) as live:
        yield live


def pid(live: Live) -> int:
    worker = live.server.models.all[0].worker
    assert worker is not None
    number = worker.process.pid
    assert number is not None
    return number


@contextmanager
def stopped(live: Live) -> Iterator[None]:
    """The worker computes nothing meanwhile."""
    process = pid(live)
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):  # a test may have killed it
            os.kill(process, signal.SIGCONT)


def until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def queued(live: Live) -> int:
    batcher = live.server.batcher
    return batcher.queued_tokens("urgent") + batcher.queued_tokens("bulk")


def ask(live: Live, body: object = FOX, path: str = "/api/embed") -> httpx.Response:
    """Ask over a connection of its own."""
    with httpx.Client(base_url=live.url, timeout=60, trust_env=False) as client:
        return client.post(path, json=body)


# --- Too much ---------------------------------------------------------------------------------


def test_more_requests_than_permits_are_asked_to_come_back(small: Live) -> None:
    with ThreadPoolExecutor(4) as pool:
        with stopped(small):
            waiting = [pool.submit(ask, small) for _ in range(4)]
            until(lambda: small.server.exchanges.active == 4, "four are being answered")
            refused = {path: ask(small, FOX, path) for path in ("/api/embed", "/v1/embeddings")}
        answers = [future.result() for future in waiting]
    assert [answer.status_code for answer in answers] == [200] * 4
    for answer in refused.values():
        assert answer.status_code == 429
        assert int(answer.headers["Retry-After"]) >= 1
    assert refused["/v1/embeddings"].json()["error"]["code"] == "rate_limit_exceeded"
    assert "4 requests are being answered already" in refused["/api/embed"].json()["error"]


def test_a_full_queue_is_refused_and_health_still_answers(small: Live) -> None:
    texts = ["the fox jumps over the lazy dog"] * 8
    with ThreadPoolExecutor(2) as pool:
        with stopped(small):
            first = pool.submit(ask, small)  # is with the worker
            until(lambda: small.server.exchanges.active == 1 and queued(small) == 0, "one runs")
            until(lambda: bool(small.server.batcher._running["urgent"]), "it computes")
            waiting = pool.submit(ask, small, FOX | {"input": texts})
            until(lambda: queued(small) > 150, "it waits")
            refused = ask(small, FOX | {"input": texts})
            assert small.get("/health").status_code == 200
            assert small.metric('polyvec_queued_tokens{lane="urgent"}') > 0
        assert [f.result().status_code for f in (first, waiting)] == [200, 200]
    assert refused.status_code == 429
    assert re.search(r"\d+ tokens wait already", refused.json()["error"])
    assert queued(small) == 0


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["fox"] * 21, r"21 texts in one request; this server takes 20 \(--max-texts\)"),
        (["the fox jumps over the lazy dog " * 4] * 19, r"this server takes 400 \(--max-request"),
    ],
)
def test_requests_over_a_limit_for_ever_are_no_429(
    small: Live, texts: list[str], said: str
) -> None:
    answer = ask(small, FOX | {"input": texts})
    assert answer.status_code == 400
    assert re.search(said, answer.json()["error"])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {"inputs": ["fox"] * 21}),
        ("/tokenize", {"inputs": "the fox jumps over the lazy dog " * 60}),
        ("/decode", {"ids": [[1]] * 21}),
        ("/decode", {"ids": [1] * 401}),
        ("/embed", {"inputs": ["fox"] * 21}),
    ],
)
def test_limits_hold_where_nothing_is_embedded_and_are_said_as_tei_does(
    small: Live, path: str, body: object
) -> None:
    answer = ask(small, body, path)
    assert answer.status_code == 413
    assert "this server takes" in answer.json()["error"]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_huge_body_is_refused_without_being_read(small: Live, chunked: bool) -> None:
    body = b'{"model": "tiny", "input": "' + b"x" * 1_000_000
    content: Any = iter([body]) if chunked else body
    answer = httpx.post(f"{small.url}/v1/embeddings", content=content, trust_env=False)
    assert answer.status_code == 413
    assert "this server takes 20,000" in answer.json()["error"]["message"]
    assert ask(small).status_code == 200


# --- Clients ----------------------------------------------------------------------------------


def test_a_client_that_hangs_up_leaves_the_queue(small: Live) -> None:
    gone = small.metric('status="499"')
    texts = ["the fox jumps over the lazy dog"] * 8
    with ThreadPoolExecutor(1) as pool:
        with stopped(small):
            first = pool.submit(ask, small)
            until(lambda: bool(small.server.batcher._running["urgent"]), "it computes")
            with pytest.raises(httpx.ReadTimeout), httpx.Client(trust_env=False) as client:
                client.post(f"{small.url}/api/embed", json=FOX | {"input": texts}, timeout=0.5)
            until(lambda: queued(small) == 0, "its texts are dropped")
            until(lambda: small.server.exchanges.active == 1, "its permit is free")
        assert first.result().status_code == 200
    assert small.metric('polyvec_requests_total{dialect="ollama",path="/api/embed",status="499"}')
    assert small.metric('status="499"') > gone


def test_a_body_that_does_not_come_is_a_timeout(small: Live) -> None:
    host, port = small.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as sock:
        sock.sendall(b"POST /api/embed HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")
        answer = sock.recv(65536)
        while chunk := sock.recv(65536):
            answer += chunk  # the server closes the connection
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"had not arrived after 0.5 s" in answer


def test_slow_senders_hold_nobody_up(small: Live) -> None:
    host, port = small.url.removeprefix("http://").split(":")
    socks = [socket.create_connection((host, int(port))) for _ in range(20)]
    try:
        for sock in socks:
            sock.sendall(b"POST /api/embed HTTP/1.1\r\nHost: 127.0")
        assert ask(small).status_code == 200
    finally:
        for sock in socks:
            sock.close()


@pytest.mark.parametrize(
    "raw", [b"{", b"[" * 15_000, b"\xff\xfe", b'"x"', b"null", b'{"input": "\\ud800"}', b"nan"]
)
@pytest.mark.parametrize("path", ["/v1/embeddings", "/api/embed", "/embed", "/v2/embed"])
def test_broken_json_is_the_clients_error(small: Live, path: str, raw: bytes) -> None:
    answer = httpx.post(small.url + path, content=raw, trust_env=False)
    assert answer.status_code in (400, 422)
    assert answer.json()


def test_paths_and_methods_that_are_not_there(small: Live) -> None:
    for path, status in (("/v1/chat/completions", 404), ("/nothing", 404), ("/v1/models", 405)):
        answer = ask(small, {}, path)
        assert answer.status_code == status
        assert "/docs" in answer.text


# --- The worker -------------------------------------------------------------------------------


def test_a_worker_that_is_killed_is_replaced_and_its_request_answered(
    small: Live, tiny: Embedder
) -> None:
    with ThreadPoolExecutor(1) as pool:
        before = pid(small)
        with stopped(small):
            waiting = pool.submit(ask, small)
            until(lambda: bool(small.server.batcher._running["urgent"]), "it computes")
            os.kill(before, signal.SIGKILL)
            until(lambda: resident_bytes(before) == 0 or not _alive(before), "it is dead")
        answer = waiting.result()
    assert answer.status_code == 200
    assert close(answer.json()["embeddings"], tiny.encode_document(["fox"]))
    assert pid(small) != before
    assert small.metric('polyvec_model_events_total{event="lost",model="tiny"}') >= 1


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_worker_that_dies_again_and_again_is_a_503(
    small: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polyvec.serve.failures import WorkerLostError
    from polyvec.serve.process import WorkerProcess

    def lost(self: WorkerProcess, *arguments: Any) -> None:
        arguments[-1](WorkerLostError("The process that computes ended with code -9."))

    monkeypatch.setattr(WorkerProcess, "start", lost)
    answer = ask(small)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
    assert "ended with code -9. The request was tried 2 times" in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [("/api/embed", FOX, 500), ("/embed", {"inputs": "fox"}, 424)],
)
def test_a_batch_that_fails_is_an_error_and_the_next_one_works(
    small: Live, monkeypatch: pytest.MonkeyPatch, path: str, body: object, status: int
) -> None:
    from polyvec.serve.failures import EngineError
    from polyvec.serve.process import WorkerProcess

    def failing(self: WorkerProcess, *arguments: Any) -> None:
        arguments[-1](EngineError("The model could not embed a batch: MemoryError"))

    with monkeypatch.context() as patch:
        patch.setattr(WorkerProcess, "start", failing)
        answer = ask(small, body, path)
    assert answer.status_code == status
    assert "MemoryError" in answer.json()["error"]
    assert ask(small, body, path).status_code == 200


def test_a_model_whose_file_is_gone_is_a_503_until_it_is_back(small: Live) -> None:
    folder = Path(small.server.models.all[0].source.model)
    assert ask(small, FOX | {"input": "", "keep_alive": 0}).status_code == 200
    weights, aside = folder / "model.safetensors", folder / "aside"
    shutil.move(weights, aside)
    try:
        answer = ask(small)
        assert answer.status_code == 503
        assert "safetensors" in answer.json()["error"]
        assert small.get("/health").status_code == 200
        assert small.get("/api/ps").json()["models"] == []
    finally:
        shutil.move(aside, weights)
    assert ask(small, FOX | {"keep_alive": -1}).status_code == 200


def test_a_request_that_takes_too_long_is_a_504(tiny_folder: Path) -> None:
    with (
        serving(f"tiny={tiny_folder}", request_timeout_s=0.3) as live,
        stopped(live),
    ):
        answer = ask(live)
        assert answer.status_code == 504
        assert "not answered within 0.3 s" in answer.json()["error"]
        assert live.server.exchanges.active == 0


def test_a_stopping_server_answers_what_it_has(tiny_folder: Path) -> None:
    answers: list[httpx.Response] = []
    with serving(f"tiny={tiny_folder}") as live:
        with stopped(live):
            asking = threading.Thread(target=lambda: answers.append(ask(live)))
            asking.start()
            until(lambda: live.server.exchanges.active == 1, "it is being answered")
            live.stop()
            until(lambda: _refuses(live), "no new request is taken")
        asking.join(30)
    assert [answer.status_code for answer in answers] == [200]


def _refuses(live: Live) -> bool:
    host, port = live.url.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except ConnectionError:
        return True
    return False


def test_nothing_of_a_server_is_left_when_it_ends(tiny_folder: Path) -> None:
    threads = threading.active_count()
    with serving(f"tiny={tiny_folder}") as live:
        process = pid(live)
        ask(live)
    assert not _alive(process)
    until(lambda: threading.active_count() <= threads, "its threads end")
