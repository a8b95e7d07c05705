"""A scripted chat endpoint in OpenAI's shape: it answers rightly, or fails as told."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]


@dataclass
class Step:
    """How one request is answered."""

    text: str | None = None
    """What the model says; None: whatever the schema wants."""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """Sent instead of a completion."""
    cut: bool = False
    """The connection ends in the middle of the answer."""
    wait_s: float = 0.0
    finish: str = "stop"


@dataclass
class Seen:
    """A request as it came."""

    body: Json
    key: str | None
    time_s: float

    @property
    def prompt(self) -> str:
        return str(self.body["messages"][0]["content"])


def fitting(schema: Json, number: int) -> Any:
    """Return a value that fits a schema; its texts have the request's number in them."""
    if schema["type"] == "object":
        parts = schema["properties"].items()
        return {name: fitting(part, number + 1000 * n) for n, (name, part) in enumerate(parts)}
    if schema["type"] == "array":
        count = max(2, schema.get("minItems", 1))
        count = min(count, schema.get("maxItems", count))
        return [f"{fitting(schema['items'], number)} {word}" for word in "abc"[:count]]
    if schema["type"] == "boolean":
        return True
    spelled = " ".join(WORDS[int(digit)] for digit in f"{number % 10000:04}")
    return f"{spelled} {number:x}{number * 7919 % 9973:x}"


WORDS = ("amber", "birch", "cedar", "dune", "ember", "fjord", "glade", "heath", "islet", "jungle")


def schema_of(body: Json) -> Json:
    """Find the schema where a request has it."""
    form = body.get("response_format") or {}
    schema = form.get("json_schema", {}).get("schema") or form.get("schema")
    assert isinstance(schema, dict), "the request asks for no schema, so a step needs a text"
    return schema


@dataclass
class ChatServer:
    """What a test says to the server, and what the server saw."""

    url: str
    steps: list[Step] = field(default_factory=list)
    """Used one by one; after them every request is answered rightly."""
    seen: list[Seen] = field(default_factory=list)
    answer: Callable[[Json, int], Step] | None = None


def _handler(server: ChatServer, lock: threading.Lock) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                key = self.headers.get("Authorization")
                server.seen.append(Seen(body, key, time.monotonic()))
                number = len(server.seen)
                step = server.steps.pop(0) if server.steps else None
            if step is None:
                step = server.answer(body, number) if server.answer else Step()
            time.sleep(step.wait_s)
            self._reply(step, body, number)

        def _reply(self, step: Step, body: Json, number: int) -> None:
            raw = step.body
            if raw is None and step.status == 200:
                text = step.text or json.dumps(fitting(schema_of(body), number))
                raw = completion(text, step.finish)
            raw = raw or b'{"error": {"message": "told to fail"}}'
            self.send_response(step.status)
            for name, value in step.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            with suppress(BrokenPipeError):  # the client waited no longer
                self.wfile.write(raw[: len(raw) // 2] if step.cut else raw)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def completion(text: str, finish: str = "stop") -> bytes:
    """Return a chat completion."""
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
    usage = {"prompt_tokens": 100, "completion_tokens": 20}
    return json.dumps({"choices": [choice], "usage": usage}).encode()


@contextmanager
def chatting(steps: Sequence[Step] = ()) -> Iterator[ChatServer]:
    """Serve on a free port of this machine."""
    state = ChatServer("", list(steps))
    handler = _handler(state, threading.Lock())
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
