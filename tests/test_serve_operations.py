"""Keys, hosts, origins, metrics, logs, traces, the docs page, memory."""

import asyncio
import hashlib
import io
import json
import logging
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from polyvec.errors import InputError
from polyvec.serve import logs
from polyvec.serve.app import Server, open_models
from polyvec.serve.failures import ServeError
from polyvec.serve.keys import read_keys
from polyvec.serve.models import keep_alive_seconds
from polyvec.serve.settings import ServeSettings
from tests.live import Live, serving, write_tiny

FOX = {"model": "tiny", "input": "fox"}
KEY, OTHER = "k" * 20 + "1", "k" * 20 + "2"


# --- Keys -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def locked(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server that asks for a key and lets one origin's pages in."""
    file = tmp_path_factory.mktemp("keys") / "keys.txt"
    file.write_text(f"# team a\n{KEY}\n\nsha256:{hashlib.sha256(OTHER.encode()).hexdigest()}\n")
    origin = "https://app.example"
    with serving(
        f"tiny={tiny_folder}", api_key_file=str(file), cors_origins=(origin,), host="0.0.0.0"
    ) as live:
        yield live


@pytest.mark.parametrize("key", [KEY, OTHER])
def test_keys_plain_and_hashed_let_in(locked: Live, key: str) -> None:
    answer = locked.post("/api/embed", FOX, Authorization=f"Bearer {key}")
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": f"Bearer {KEY}x"}, {"Authorization": f"Basic {KEY}"},
                {"Authorization": "Bearer"}, {"Authorization": f"Bearer {KEY[:-1]}"}]
)  # fmt: skip
@pytest.mark.parametrize(
    "path", ["/v1/embeddings", "/api/embed", "/embed", "/v2/embed", "/metrics", "/", "/health"]
)
def test_without_a_key_nothing_is_read(locked: Live, path: str, headers: dict[str, str]) -> None:
    answer = httpx.post(locked.url + path, content=b"{", headers=headers, trust_env=False)
    assert answer.status_code == 401
    assert "Authorization: Bearer KEY" in answer.text
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_health_needs_no_key(locked: Live) -> None:
    assert locked.get("/health").status_code == 200
    assert locked.get("/").status_code == 200
    assert locked.get("/info").status_code == 401


def test_a_key_is_not_kept(locked: Live) -> None:
    assert KEY not in repr(vars(locked.server.keys))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "has no API key"),
        ("# only a comment\n", "has no API key"),
        ("short\n", "Key 1 in .* has 5 characters; 16 are the least"),
        ("sha256:abc\n", "Key 1 in .* is no hash"),
    ],
)
def test_key_files_are_checked(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "keys").write_text(content)
    with pytest.raises(InputError, match=said):
        read_keys(tmp_path / "keys")


def test_a_key_file_that_is_not_there() -> None:
    with pytest.raises(InputError, match="no file nowhere with API keys"):
        ServeSettings(api_key_file="nowhere")


# --- Browsers ---------------------------------------------------------------------------------


def test_other_origins_are_not_let_in(live: Live, locked: Live) -> None:
    headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    for server, allowed in ((live, None), (locked, "https://app.example")):
        answer = httpx.options(f"{server.url}/api/embed", headers=headers, trust_env=False)
        assert answer.headers.get("Access-Control-Allow-Origin") == allowed
    evil = headers | {"Origin": "https://evil.example"}
    answer = httpx.options(f"{locked.url}/api/embed", headers=evil, trust_env=False)
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_a_page_cannot_reach_us_under_a_name_of_its_own(live: Live) -> None:
    answer = httpx.get(f"{live.url}/api/tags", headers={"Host": "evil.example"}, trust_env=False)
    assert answer.status_code == 400
    port = live.url.rsplit(":", 1)[1]
    headers = {"Host": f"localhost:{port}"}
    assert httpx.get(f"{live.url}/api/tags", headers=headers, trust_env=False).status_code == 200


def test_the_docs_page_lists_every_path_and_loads_nothing(live: Live) -> None:
    page = live.get("/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    document = live.get("/openapi.json").json()
    for path in document["paths"]:
        assert f"<code>{path}</code>" in page.text
    assert not re.search(r"<script|<link|<img|src=|url\(|https?://(?!127)", page.text)
    assert "X-Polyvec-Role" in page.text
    assert "encoding_format" in page.text


# --- What is measured and logged --------------------------------------------------------------


def test_metrics_count_texts_tokens_batches_and_errors(live: Live) -> None:
    lines = {
        "tokens": 'polyvec_tokens_total{model="tiny",role="document"}',
        "texts": 'polyvec_texts_total{model="tiny",role="document"}',
        "cut": 'polyvec_truncated_texts_total{model="tiny"}',
        "ok": 'polyvec_requests_total{dialect="ollama",path="/api/embed",status="200"}',
        "bad": 'polyvec_requests_total{dialect="ollama",path="/api/embed",status="400"}',
        "batches": "polyvec_batch_tokens_count",
        "fill": "polyvec_batch_fill_sum",
        "seconds": 'polyvec_request_seconds_count{dialect="ollama",path="/api/embed"}',
    }
    before = {name: live.metric(line) for name, line in lines.items()}
    answer = live.post("/api/embed", FOX | {"input": ["fox", "the lazy dog " * 60]}).json()
    live.post("/api/embed", FOX | {"input": 5})
    after = {name: live.metric(line) - before[name] for name, line in lines.items()}
    assert after["tokens"] == answer["prompt_eval_count"]
    assert (after["texts"], after["cut"], after["ok"], after["bad"]) == (2, 1, 1, 1)
    assert (after["batches"], after["seconds"]) == (1, 2)
    assert after["fill"] > 0
    assert live.metric('polyvec_model_loaded{model="tiny"}') == 1
    assert live.metric('polyvec_model_memory_bytes{model="tiny"}') > 10**7


def test_a_path_nobody_serves_makes_no_metric(live: Live) -> None:
    live.get("/a/path/of/an/attacker")
    assert "attacker" not in live.get("/metrics").text


SECRET = "the patient has a secret"


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_log_lines_have_numbers_and_no_text(
    live: Live, log_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(logs.sys, "stderr", stream)  # type: ignore[attr-defined]
    logger = logging.getLogger("polyvec.serve")
    saved = (logger.handlers, logger.propagate, logger.level)
    try:
        logs.set_up_logs(log_format)
        live.post("/api/embed", FOX | {"input": [SECRET, "fox"]})
        live.post("/api/embed", FOX | {"input": [SECRET, ""]})
        live.post("/api/embed", FOX | {"input": {SECRET: SECRET}})
        live.post(f"/api/{SECRET}", {})
    finally:
        logger.handlers, logger.propagate = saved[0], saved[1]
        logger.setLevel(saved[2])
    lines = stream.getvalue().splitlines()
    assert "patient" not in stream.getvalue()
    assert len(lines) == 3
    if log_format == "json":
        first, second, _ = (json.loads(line) for line in lines)
        assert first["event"] == "request"
        assert (first["status"], first["texts"], first["model"]) == (200, 2, "tiny")
        assert first["tokens"] > first["texts"]
        assert {"tokenize_ms", "queue_ms", "compute_ms", "ms", "time"} <= set(first)
        assert (second["status"], second["error"]) == (400, "invalid")
    else:
        assert re.match(r"\d\d:\d\d:\d\d info +request dialect=ollama path=/api/embed", lines[0])


def test_a_request_is_a_span(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = live.server.tracing
    monkeypatch.setattr(tracing, "_provider", provider)
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("test"), raising=False)
    live.post("/api/embed", FOX | {"input": SECRET})
    (span,) = exporter.get_finished_spans()
    assert span.name == "ollama /api/embed"
    assert span.attributes is not None
    assert span.attributes["http.response.status_code"] == 200
    assert span.attributes["polyvec.model"] == "tiny"
    assert span.end_time is not None
    assert span.start_time is not None
    assert span.end_time > span.start_time
    assert "patient" not in span.to_json()


def test_spans_are_sent_to_an_endpoint() -> None:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

    from polyvec.serve.exchange import Record
    from polyvec.serve.tracing import Tracing
    from tests.collector import collecting

    with collecting() as (url, received):
        tracing = Tracing(url)
        for status in (200, 400, 503):
            tracing.on_end(Record("ollama", "/api/embed", status=status, seconds=0.1))
        tracing.close()
    ((path, body),) = received
    assert path == "/v1/traces"
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    assert ("service.name", "polyvec") in {
        (each.key, each.value.string_value) for each in resource.resource.attributes
    }
    spans = resource.scope_spans[0].spans
    assert {span.kind for span in spans} == {Span.SPAN_KIND_SERVER}
    assert [span.status.code == Status.STATUS_CODE_ERROR for span in spans] == [False, False, True]


def test_a_collector_that_is_not_there_keeps_nobody_waiting(tiny_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        nowhere = f"http://127.0.0.1:{sock.getsockname()[1]}"
    with serving(f"tiny={tiny_folder}", otlp_endpoint=nowhere) as live:
        assert live.post("/api/embed", FOX).status_code == 200
        ended = time.monotonic()
    assert time.monotonic() - ended < 10


# --- Models -----------------------------------------------------------------------------------


def test_models_take_turns_in_a_limited_memory(tmp_path: Path) -> None:
    folders = [write_tiny(tmp_path / name, seed=n) for n, name in enumerate(("a", "b", "c"))]
    with serving(*map(str, folders)) as live:
        taken = [model.memory_bytes for model in live.server.models.all]
    limit = min(taken) * 2.9
    with serving(*map(str, folders), max_memory_gb=limit / 1e9) as live:

        def loaded() -> set[str]:
            return {model["model"] for model in live.get("/api/ps").json()["models"]}

        assert loaded() == {"a"}  # only the first one is loaded ahead
        for model, expected in (("b", {"a", "b"}), ("a", {"a", "b"}), ("c", {"a", "c"})):
            assert live.post("/api/embed", {"model": model, "input": "fox"}).status_code == 200
            assert loaded() == expected


def test_a_model_that_never_fits_is_an_error_with_numbers(tiny_folder: Path) -> None:
    server = Server(ServeSettings(models=(f"tiny={tiny_folder}",), max_memory_gb=0.1))

    async def start() -> None:
        async with server.running():
            pass

    with pytest.raises(ServeError, match=r"tiny needs some 0.3 GB, .*0.1 GB.*--max-memory-gb"):
        asyncio.run(start())


def test_names_come_from_paths_or_are_given(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "my-model")
    settings = ServeSettings(models=(str(folder), f"other={folder}"))
    assert [model.name for model in open_models(settings)] == ["my-model", "other"]
    with pytest.raises(InputError, match="Two models are to be served as 'my-model'"):
        open_models(ServeSettings(models=(str(folder), str(folder))))


@pytest.mark.parametrize(
    ("written", "seconds"),
    [(None, None), (0, 0), (-1, -1), (2.5, 2.5), ("300", 300), ("5m", 300), ("1h30m", 5400),
     ("500ms", 0.5), ("-1", -1), ("-1m", -60), ("1.5s", 1.5)],
)  # fmt: skip
def test_keep_alive_is_read_as_ollama_reads_it(written: Any, seconds: float | None) -> None:
    assert keep_alive_seconds(written) == seconds


@pytest.mark.parametrize("wrong", ["", "5 minutes", "m5", "1h 3m", "nan"])
def test_other_keep_alives_are_refused(wrong: str) -> None:
    with pytest.raises(Exception, match="write seconds"):
        keep_alive_seconds(wrong)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"models": ()}, "No model to serve"),
        ({"log_format": "xml"}, "allowed: text, json"),
        ({"max_texts": 0}, "max_texts is 0; it must be greater than 0"),
        ({"body_timeout_s": -1.0}, "body_timeout_s"),
        ({"port": "http"}, "port is 'http'; it must be a whole number"),
        ({"port": 70000}, "port is 70000"),
        ({"models": "default"}, "models is 'default'; write a list"),
        ({"max_texts": 1.5}, "max_texts is 1.5; it must be a whole number"),
    ],
)
def test_settings_are_checked(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ServeSettings(**changes)
