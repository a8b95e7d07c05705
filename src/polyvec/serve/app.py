"""The server as an ASGI app: routes of all dialects, put together with what they share."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response

import polyvec
from polyvec.errors import InputError
from polyvec.serve import cohere, documents, ollama, openai, tei
from polyvec.serve.batcher import Batcher
from polyvec.serve.catalogue import fresh_prices
from polyvec.serve.encode import dumps
from polyvec.serve.exchange import Body, Exchanges, Record, endpoint
from polyvec.serve.failures import Dialect, Kind, dialect_of, error_body, status_of
from polyvec.serve.guard import OPEN_PATHS, Guard
from polyvec.serve.keys import read_keys
from polyvec.serve.library import Library
from polyvec.serve.lines import LINES_TYPE
from polyvec.serve.logs import LOG, log_request
from polyvec.serve.metrics import CONTENT_TYPE, Metrics
from polyvec.serve.models import Models, ServedModel, keep_alive_seconds, open_served
from polyvec.serve.pages import PAGE_PATHS, add_pages
from polyvec.serve.reading import HEADERS
from polyvec.serve.service import Service
from polyvec.serve.settings import ServeSettings, split_name
from polyvec.serve.shapes import ANSWERS, ERRORS, body_schema
from polyvec.serve.tracing import Tracing
from polyvec.serve.worker import Source

LOOPBACK = ("127.0.0.1", "localhost", "::1")

_DESCRIPTION = (
    "Embeddings in the shapes of OpenAI, Ollama, text-embeddings-inference and Cohere. A text is "
    f"read as a query or a document by {tei.ROLE_HELP}. Texts that were cut are counted in the "
    "header X-Polyvec-Truncated of every answer with vectors."
)


@dataclass(frozen=True)
class Route:
    """A path, who answers it, and in which dialect."""

    dialect: Dialect
    method: str
    path: str
    body: type[Body]
    handler: Callable[..., Any]
    media_type: str = "application/json"
    """Of the answer."""
    parameters: type[BaseModel] | None = None
    """In the address."""


ROUTES = (
    Route("openai", "POST", "/v1/embeddings", openai.EmbeddingsBody, openai.embeddings),
    Route("openai", "GET", "/v1/models", Body, openai.list_models),
    Route("openai", "GET", "/v1/models/{model}", Body, openai.show_model),
    Route("ollama", "POST", "/api/embed", ollama.EmbedBody, ollama.embed),
    Route("ollama", "POST", "/api/embeddings", ollama.EmbeddingsBody, ollama.embeddings),
    Route("ollama", "POST", "/api/show", ollama.ShowBody, ollama.show),
    Route("ollama", "GET", "/api/tags", Body, ollama.tags),
    Route("ollama", "GET", "/api/ps", Body, ollama.running),
    Route("ollama", "GET", "/api/version", Body, ollama.version),
    Route("tei", "POST", "/embed", tei.EmbedBody, tei.embed),
    Route("tei", "POST", "/embed_all", tei.EmbedAllBody, tei.embed_all),
    Route("tei", "POST", "/similarity", tei.SimilarityBody, tei.similarity),
    Route("tei", "POST", "/rerank", tei.RerankBody, tei.rerank),
    Route("tei", "POST", "/tokenize", tei.TokenizeBody, tei.tokenize),
    Route("tei", "POST", "/decode", tei.DecodeBody, tei.decode),
    Route("tei", "POST", "/", tei.CompatBody, tei.compat),
    Route("tei", "GET", "/info", Body, tei.info),
    Route("tei", "GET", "/health", Body, tei.health),
    Route("cohere", "POST", "/v2/embed", cohere.EmbedBody, cohere.embed),
    Route("search", "GET", "/search/indexes", Body, documents.indexes),
    Route("search", "POST", "/search", documents.SearchBody, documents.search),
    Route("search", "POST", "/search/update", documents.UpdateBody, documents.update),
    Route(
        "search",
        "GET",
        "/search/chunk",
        Body,
        documents.chunk,
        parameters=documents.ChunkParameters,
    ),
    Route("search", "POST", "/ask", documents.AskBody, documents.answer, LINES_TYPE),
)


class Server:
    """Everything behind the routes: models, queue, metrics. Made once, run in one event loop."""

    def __init__(self, settings: ServeSettings) -> None:
        """Open the models' files and the keys.

        Raises:
            PolyvecError: A model cannot be opened, a key file cannot be read, a setting is wrong.
        """
        self.settings = settings
        self.keys = read_keys(Path(settings.api_key_file)) if settings.api_key_file else None
        self.metrics = Metrics()
        self.tracing = Tracing(settings.otlp_endpoint)
        self.batcher = Batcher(self.metrics.on_batch)
        limit = settings.max_memory_gb
        self.models = Models(
            open_models(settings),
            self.batcher,
            None if limit is None else int(limit * 1e9),
            self._on_model,
        )
        self.library = Library(settings, self.models)
        self.service = Service(settings, self.models, self.batcher)
        self.exchanges = Exchanges(self.service, settings, self._on_end)
        self.metrics.watch(self.batcher, self.models, self.exchanges)
        self.app = _app(self)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Load models, and unload everything at the end.

        All are loaded unless memory is limited; then the first is, others when they are asked for.

        Raises:
            PolyvecError: A model cannot be loaded.
        """
        sweeper = asyncio.create_task(self.models.sweep())
        try:
            first = self.models.all if self.settings.max_memory_gb is None else self.models.all[:1]
            for model in first:
                await self.service.load(model, model.keep_alive_s or None)
            with fresh_prices(self.settings.rental_prices):
                yield
        finally:
            sweeper.cancel()
            await self.models.close()
            self.service.close()
            self.library.close()
            self.tracing.close()

    def _on_end(self, record: Record) -> None:
        self.metrics.on_end(record)
        self.tracing.on_end(record)
        log_request(record)

    def _on_model(self, event: str, model: ServedModel) -> None:
        self.metrics.on_model(event, model)
        LOG.info(f"model {event}", extra={"fields": {"model": model.name}})


def open_models(settings: ServeSettings) -> list[ServedModel]:
    """Open the files of every model that is to be served."""
    keep_alive_s = keep_alive_seconds(settings.keep_alive)
    assert keep_alive_s is not None, "a setting is never None"
    models: dict[str, ServedModel] = {}
    for text in settings.models:
        name, model = _named(text)
        if name in models:
            raise InputError(f"Two models are to be served as {name!r}. Name one: NAME={model}")
        source = Source(
            model,
            settings.precision,
            settings.device,
            weights=settings.weights,
            memory_bytes=_bytes_of(settings.model_memory_gb),
            threads=settings.threads,
        )
        models[name] = open_served(name, source, settings.max_batch_tokens, keep_alive_s)
    return list(models.values())


def _bytes_of(gigabytes: float | None) -> int | None:
    return None if gigabytes is None else int(gigabytes * 1e9)


def _named(text: str) -> tuple[str, str]:
    """Split ``NAME=MODEL``; a model without a name has its own."""
    name, model = split_name(text)
    return name or _short(model), model


def _short(model: str) -> str:
    """Return the name a model is served under when none is given: a path's last part."""
    path = Path(model).expanduser()
    return path.resolve().name.removesuffix(".gguf") if path.exists() else model


def _app(server: Server) -> FastAPI:
    app = FastAPI(
        title="polyvec",
        version=polyvec.__version__,
        description=_DESCRIPTION,
        docs_url=None,  # FastAPI's page loads its scripts from elsewhere; ours is in pages.py
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    app.state.exchanges, app.state.library = server.exchanges, server.library
    for route in ROUTES:
        _add(app, route)
    _add_own(app, server)
    add_pages(app)
    _add_errors(app)
    app.add_middleware(
        Guard,
        keys=server.keys,
        open_paths=OPEN_PATHS | PAGE_PATHS,
    )
    if server.settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(server.settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["*"],
        )
    if server.keys is None and server.settings.host in LOOPBACK:
        # A web page could otherwise reach us under a name of its own (DNS rebinding).
        app.add_middleware(
            TrustedHostMiddleware,
            allowed_hosts=["localhost", "*.localhost", "127.0.0.1", "[::1]"],
        )
    return app


def _add(app: FastAPI, route: Route) -> None:
    extra: dict[str, Any] = {}
    if route.method == "POST":
        content = {"application/json": {"schema": body_schema(route.body)}}
        extra["requestBody"] = {"required": True, "content": content}
    if hasattr(route.body, "model_fields") and _embeds(route):
        extra["parameters"] = [
            {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}
            for name, text in HEADERS.items()
        ]
    if "{model}" in route.path:
        name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
        extra["parameters"] = [name]
    if route.parameters is not None:
        extra["parameters"] = _in_address(route.parameters)
    app.add_api_route(
        route.path.replace("{model}", "{model:path}"),  # hf:org/name has a slash
        endpoint(route.dialect, route.body, route.handler),
        methods=[route.method],
        tags=[route.dialect],
        response_class=Response,
        responses=_responses(route),
        openapi_extra=extra,
        operation_id=f"{route.dialect}_{route.handler.__name__}",
    )


_SEARCH_KINDS: dict[Kind, str] = {
    "forbidden": "A page of another site asks, or the server may not do it",
    "unknown_index": "No such index or passage",
    "mismatch": "The index has vectors of a model that is not served",
    "remote": "The chat endpoint did not answer",
}


def _embeds(route: Route) -> bool:
    own = ("/api/show", "/decode")
    return route.method == "POST" and route.path not in own and route.dialect != "search"


def _in_address(kind: type[BaseModel]) -> list[dict[str, Any]]:
    schema = body_schema(kind)
    required = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": field}
        | {"description": field.get("description", "")}
        for name, field in schema["properties"].items()
    ]


def _responses(route: Route) -> dict[int | str, dict[str, Any]]:
    error = {"application/json": {"schema": ERRORS[route.dialect]}}
    kinds: dict[Kind, str] = {
        "invalid": "Something in it cannot be used",
        "malformed": "It is no JSON",
        "unauthorized": "No API key, or an unknown one",
        "unknown_model": "No such model",
        "slow_body": "Its body took too long",
        "too_large": "It is too long, or its body too large",
        "overloaded": "Too busy; Retry-After says when to try again",
        "engine": "The model could not embed it",
        "unavailable": "The model cannot be loaded now",
        "timeout": "It took too long",
    }
    if route.dialect == "search":
        kinds |= _SEARCH_KINDS
    statuses = {status_of(kind, route.dialect): text for kind, text in kinds.items()}
    errors: dict[int | str, dict[str, Any]] = {
        s: {"description": text, "content": error} for s, text in statuses.items()
    }
    answer = {route.media_type: {"schema": ANSWERS[route.path]}}
    return {200: {"description": "The answer", "content": answer}, **errors}


def _add_own(app: FastAPI, server: Server) -> None:
    async def metrics(_request: Request) -> Response:
        """Give Prometheus metrics."""
        return Response(server.metrics.page(), media_type=CONTENT_TYPE)

    app.add_api_route("/metrics", metrics, tags=["server"], response_class=Response)


def _add_errors(app: FastAPI) -> None:
    async def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kind: Kind = "wrong_method" if error.status_code == 405 else "unknown_path"
        method, path = request.method, request.url.path
        message = f"{method} {path}: {error.detail}. What is answered here is at /docs."
        return _plain_error(request, kind, message, dict(error.headers or {}))

    async def of_bug(request: Request, _error: Exception) -> Response:
        return _plain_error(request, "internal", "A bug in polyvec; its log says more.", {})

    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(Exception, of_bug)


def _plain_error(request: Request, kind: Kind, message: str, headers: dict[str, str]) -> Response:
    dialect = dialect_of(request.url.path)
    body = dumps(error_body(kind, message, dialect))
    return Response(body, status_of(kind, dialect), headers, media_type="application/json")
