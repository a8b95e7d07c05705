"""A scripted chat endpoint that streams, or fails as told."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Turn:
    """How one request is answered."""

    text: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    """Sent as the events."""
    break_after: int | None = None
    """The connection ends after so many pieces."""
    wait_s: float = 0.0
    is_whole: bool = False
    """No stream: one JSON object."""
    finish: str = "stop"


@dataclass
class StreamingChat:
    """What a test says to the server, and what the server saw."""

    url: str
    turns: list[Turn]
    seen: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)

    @property
    def prompt(self) -> str:
        """The last request's texts."""
        return "\n".join(message["content"] for message in self.seen[-1]["messages"])


def pieces(text: str) -> list[str]:
    return [text[start : start + 7] for start in range(0, len(text), 7)]


def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def _handler(chat: StreamingChat) -> type[BaseHTTPRequestHandler]:  # noqa: C901 (its methods count)
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            chat.seen.append(body)
            chat.keys.append(self.headers.get("Authorization"))
            turn = chat.turns.pop(0) if len(chat.turns) > 1 else chat.turns[0]
            time.sleep(turn.wait_s)
            with suppress(BrokenPipeError, ConnectionResetError):
                self.answer(turn)

        def answer(self, turn: Turn) -> None:
            kind = "application/json" if turn.is_whole else "text/event-stream"
            self.send_response(turn.status)
            self.send_header("Content-Type", kind if turn.status == 200 else "application/json")
            for name, value in turn.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if turn.status != 200:
                self.wfile.write(json.dumps({"error": {"message": turn.text or "told"}}).encode())
            elif turn.is_whole:
                choice = {"message": {"content": turn.text}, "finish_reason": turn.finish}
                self.wfile.write(json.dumps({"choices": [choice]}).encode())
            else:
                self.wfile.write(turn.raw if turn.raw is not None else b"")
                if turn.raw is None:
                    self.events(turn)

        def events(self, turn: Turn) -> None:
            self.wfile.write(b": comment\n\n" + event({"role": "assistant"}))
            shown: Sequence[str] = pieces(turn.text)[: turn.break_after]
            for piece in shown:
                self.wfile.write(event({"content": piece}))
            if turn.break_after is None:
                self.wfile.write(event({}, turn.finish) + b"data: [DONE]\n\n")

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@contextmanager
def streaming(*turns: Turn | str) -> Iterator[StreamingChat]:
    """Answer requests with turns, the last one for ever."""
    given = [turn if isinstance(turn, Turn) else Turn(turn) for turn in turns]
    chat = StreamingChat("", given)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(chat))
    server.daemon_threads = True
    chat.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield chat
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
