"""A small HTTP server that embeds with one of our models, in the shape of another's API."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Embed = Callable[[list[str]], list[list[float]]]
Answer = Callable[[dict[str, Any], Embed], Any]


def openai(body: dict[str, Any], embed: Embed) -> Any:
    assert body["encoding_format"] == "float"
    vectors = enumerate(embed(body["input"]))
    # Out of order, as the API allows: only `index` says which text a vector is of.
    return {"data": [{"index": n, "embedding": v} for n, v in reversed(list(vectors))]}


def ollama(body: dict[str, Any], embed: Embed) -> Any:
    return {"model": body["model"], "embeddings": embed(body["input"])}


def tei(body: dict[str, Any], embed: Embed) -> Any:
    return embed(body["inputs"])


def cohere(body: dict[str, Any], embed: Embed) -> Any:
    prefix = {"search_query": "Instruct: Find it\nQuery: ", "search_document": ""}
    texts = [prefix[body["input_type"]] + text for text in body["texts"]]
    return {"embeddings": {"float": embed(texts)}}


GETS: dict[str, dict[str, Any]] = {
    "openai": {"/v1/models": {"data": [{"id": "tiny"}]}},
    "ollama": {"/api/version": {"version": "0.13"}, "/api/tags": {"models": [{"name": "tiny"}]}},
    "tei": {"/info": {"model_id": "tiny"}},
    "cohere": {},
}
POSTS: dict[str, tuple[str, Answer]] = {
    "openai": ("/v1/embeddings", openai),
    "ollama": ("/api/embed", ollama),
    "tei": ("/embed", tei),
    "cohere": ("/v2/embed", cohere),
}


@contextmanager
def serving(dialect: str, embed: Embed, gets: dict[str, Any] | None = None) -> Iterator[str]:
    """Serve on a free port of this machine; gives the address."""
    known = GETS[dialect] if gets is None else gets
    path, answer = POSTS[dialect]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(known.get(self.path))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.reply(answer(body, embed) if self.path == path else None)

        def reply(self, value: Any) -> None:
            raw = b"no such path" if value is None else json.dumps(value).encode()
            self.send_response(404 if value is None else 200)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
