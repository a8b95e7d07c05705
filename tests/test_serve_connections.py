"""Connections: heads that do not come or do not end, too many clients, too few files."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from polyvec.serve import connections
from polyvec.serve.connections import MAX_HEAD_BYTES
from tests.live import Live, serving

HEAD = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"
WHOLE = HEAD + b"\r\n"
TIMEOUT_S = 0.4
LIMIT = 6


@pytest.fixture(scope="module")
def hasty(tiny_folder: Path) -> Iterator[Live]:
    """A server that waits for a head as long as for a body, and shortly."""
    with serving(f"tiny={tiny_folder}", body_timeout_s=TIMEOUT_S) as live:
        yield live


@pytest.fixture(scope="module")
def narrow(tiny_folder: Path) -> Iterator[Live]:
    """A server that takes six connections."""
    with serving(f"tiny={tiny_folder}", max_connections=LIMIT) as live:
        live.http.close()  # its kept connection would be one of the six
        yield live


def connect(live: Live, sent: bytes = b"") -> socket.socket:
    host, port = live.url.removeprefix("http://").split(":")
    sock = socket.create_connection((host, int(port)), timeout=20)
    if sent:
        sock.sendall(sent)
    return sock


def rest(sock: socket.socket) -> bytes:
    """Read until the server closes."""
    with sock:
        got = b""
        try:
            while part := sock.recv(65_536):
                got += part
        except ConnectionResetError:  # it closed while more was sent to it
            pass
        return got


def answer(sock: socket.socket) -> bytes:
    """Read one answer of /health."""
    got = b""
    while not got.endswith(b'{"status":"ok"}'):
        part = sock.recv(65_536)
        assert part, got
        got += part
    return got


def healthy(live: Live) -> bool:
    with httpx.Client(trust_env=False) as client:
        return client.get(f"{live.url}/health").status_code == 200


@pytest.mark.parametrize("sent", [HEAD, b"G", HEAD + b"X-Long: abc"])
def test_half_a_head_is_a_timeout(hasty: Live, sent: bytes) -> None:
    got = rest(connect(hasty, sent))
    assert got.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert got.endswith(b"The head of the request had not arrived after 0.4 s.")


@pytest.mark.parametrize("sent", [b"", b"\r\n\r\n"])
def test_who_asks_nothing_is_answered_nothing(hasty: Live, sent: bytes) -> None:
    assert rest(connect(hasty, sent)) == b""


def test_a_head_that_trickles_is_late_too(hasty: Live) -> None:
    sock = connect(hasty, HEAD)
    started = time.monotonic()
    with pytest.raises((ConnectionError, TimeoutError)):
        while time.monotonic() - started < 10:
            sock.sendall(b"X-A: b\r\n")
            time.sleep(0.02)
        raise TimeoutError("it was never closed")
    assert time.monotonic() - started < 10
    sock.close()


def test_a_second_head_on_a_connection_is_waited_for_as_long(hasty: Live) -> None:
    sock = connect(hasty, WHOLE)
    assert answer(sock).startswith(b"HTTP/1.1 200")
    time.sleep(1.5 * TIMEOUT_S)  # idle: that is allowed for keep_connection_s
    sock.sendall(WHOLE)
    assert answer(sock).startswith(b"HTTP/1.1 200")
    sock.sendall(HEAD)
    assert rest(sock).startswith(b"HTTP/1.1 408")


def test_a_head_in_pieces_is_a_head(hasty: Live) -> None:
    sock = connect(hasty)
    for byte in WHOLE:
        sock.sendall(bytes([byte]))
    assert answer(sock).startswith(b"HTTP/1.1 200")
    sock.close()


def test_an_endless_head_is_refused(hasty: Live) -> None:
    sock = connect(hasty, HEAD)
    time.sleep(0.05)  # so that the head is not all of what arrives first
    try:
        for _ in range(MAX_HEAD_BYTES // 1000 + 400):
            sock.sendall(b"X-A: " + b"b" * 993 + b"\r\n")
    except ConnectionError:
        pass
    got = rest(sock)
    assert got == b"" or got.startswith(b"HTTP/1.1 431")
    assert healthy(hasty)


def test_a_long_instruction_is_no_endless_head(live: Live) -> None:
    instruction = {"X-Polyvec-Instruction": "%20x" * 10_000}
    answered = live.http.post(
        "/api/embed", json={"model": "tiny", "input": "a"}, headers=instruction
    )
    assert answered.status_code == 400  # understood, and refused by the model
    assert "instruction" in answered.text


def whole_answer(live: Live, pause_s: float, part_bytes: int) -> bool:
    """Ask for more than the system's buffers hold, take it in parts; whether all of it came."""
    body = b'{"inputs": [%b]}' % b",".join([b'"%b"' % (b"fox " * 50)] * 400)
    head = b"POST /embed_all HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    got, size = b"", None
    with connect(live, head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)) as sock:
        try:
            while len(got) != size and (part := sock.recv(part_bytes)):
                got += part
                if size is None and b"\r\n\r\n" in got:
                    before, _, _ = got.lower().partition(b"\r\n\r\n")
                    length = before.split(b"content-length: ")[1].split(b"\r\n")[0]
                    size = len(before) + 4 + int(length)
                    assert size > 8_000_000, "it fits into the buffers"
                time.sleep(pause_s)
        except ConnectionResetError:
            return False
    return len(got) == size


def test_who_takes_nothing_of_an_answer_is_cut_off(hasty: Live) -> None:
    started = time.monotonic()
    assert not whole_answer(hasty, 5 * TIMEOUT_S, part_bytes=4_000_000)
    assert time.monotonic() - started < 20
    assert healthy(hasty)


def test_who_takes_an_answer_slowly_gets_all_of_it(hasty: Live) -> None:
    started = time.monotonic()
    assert whole_answer(hasty, TIMEOUT_S / 8, part_bytes=400_000)
    assert time.monotonic() - started > 2 * TIMEOUT_S, "it was slow"


def until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def test_with_too_many_the_one_that_waited_longest_makes_room(narrow: Live) -> None:
    socks = [connect(narrow, HEAD) for _ in range(LIMIT)]
    last = connect(narrow, WHOLE)
    assert answer(last).startswith(b"HTTP/1.1 200")
    assert rest(socks[0]) == b""
    for sock in socks[1:]:
        sock.sendall(b"\r\n")
        assert answer(sock).startswith(b"HTTP/1.1 200")
    for sock in (*socks[1:], last):
        sock.close()
    until(lambda: healthy(narrow), "there is room again")


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="stops a process")
def test_with_all_at_work_a_new_one_is_refused(narrow: Live) -> None:
    worker = narrow.server.models.all[0].worker
    assert worker is not None
    assert worker.process.pid is not None
    body = b'{"model": "tiny", "input": "fox"}'
    whole = b"POST /api/embed HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    whole += b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    os.kill(worker.process.pid, signal.SIGSTOP)
    try:
        socks = [connect(narrow, whole) for _ in range(LIMIT)]
        until(lambda: narrow.server.exchanges.active == LIMIT, "all are at work")
        got = rest(connect(narrow, WHOLE))
    finally:
        os.kill(worker.process.pid, signal.SIGCONT)
    assert got.startswith(b"HTTP/1.1 503 Service Unavailable")
    assert got.endswith(b"Too many connections are busy.")
    assert all(rest(sock).startswith(b"HTTP/1.1 200") for sock in socks)
    assert healthy(narrow)


@pytest.mark.parametrize(
    ("limits", "raised", "room"),
    [
        ((1024, 1_048_576), (65_536, 1_048_576), (2_048, 128)),
        ((1024, 4096), (4096, 4096), (2_048, 128)),
        ((1024, 1024), None, (512, 64)),
        ((128, 128), None, (64, 8)),
        ((-1, -1), None, (2_048, 128)),
        ((1024, -1), (65_536, -1), (2_048, 128)),
    ],
)
def test_connections_fit_below_the_limit_of_files(
    limits: tuple[int, int],
    raised: tuple[int, int] | None,
    room: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resource = pytest.importorskip("resource")
    if -1 in limits and resource.RLIM_INFINITY != -1:
        pytest.skip("another number is infinity here")
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, value: set_to.append(value))
    found = connections.make_room(2_048)
    assert (found.connections, found.accepted_at_once) == room
    assert set_to == ([] if raised is None else [raised])
