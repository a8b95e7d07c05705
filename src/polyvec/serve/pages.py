"""What a browser sees: two pages and their files, ``/docs``, ``/models``; what is open to all."""

import hashlib
import importlib.resources
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from polyvec.serve.catalogue import CataloguePage
from polyvec.serve.docs import docs_page, style_hash
from polyvec.serve.reading import HEADERS

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
PAGES = {"index.html": "/", "search.html": "/search"}
"""Which file is the page at which path."""
FILES = (
    "index.html",
    "search.html",
    "style.css",
    "icon.svg",
    "theme.js",
    "theme-choice.js",
    "app.js",
    "api.js",
    "elements.js",
    "files.js",
    "form.js",
    "geometry.js",
    "heatmap.js",
    "results.js",
    "scatter.js",
    "answer.js",
    "passages.js",
    "search-api.js",
    "search.css",
    "search.js",
    "signs.js",
    "snippets.js",
    "update.js",
    "worker.js",
)
"""Everything in ``web/``: plain files, served as they are."""

_FOLDER = "/web/"
PAGE_PATHS = frozenset(
    {
        *PAGES.values(),
        "/docs",
        "/models",
        "/openapi.json",
        *(_FOLDER + name for name in FILES if name not in PAGES),
    }
)
"""Answered without an API key: they say nothing of this server's models or users, and the page asks
with the key that a user types in."""

_CLOSED = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
PAGE_POLICY = (
    f"{_CLOSED}; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; require-trusted-types-for 'script'; trusted-types polyvec"
)
"""Only this server's files, and requests to it; no inline script or style, no HTML from strings."""

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # asked for again each time; 304 if it is the same
}

_Endpoint = Callable[[Request], Awaitable[Response]]


def add_pages(app: FastAPI) -> None:
    """Add the pages, their files, ``/docs`` and ``/models``: GET and HEAD; POST is the API's."""
    folder = importlib.resources.files("polyvec.serve") / "web"
    for name in FILES:
        path = PAGES.get(name, _FOLDER + name)
        kind = _TYPES["." + name.rpartition(".")[2]]
        _add(app, path, _file((folder / name).read_bytes(), kind))
    _add(app, "/docs", _docs(app))
    _add(app, "/models", _models())


def _add(app: FastAPI, path: str, endpoint: _Endpoint) -> None:
    app.add_api_route(path, endpoint, methods=["GET", "HEAD"], include_in_schema=False)


def _file(content: bytes, kind: str) -> _Endpoint:
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**_HEADERS, "Content-Security-Policy": PAGE_POLICY, "ETag": tag}

    async def file(request: Request) -> Response:
        """Give the file, or 304 to who has it."""
        known = request.headers.get("if-none-match", "")
        if tag in (each.strip().removeprefix("W/") for each in known.split(",")):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=kind)

    return file


def _docs(app: FastAPI) -> _Endpoint:
    policy = f"{_CLOSED}; style-src 'sha256-{style_hash()}'"
    headers = {**_HEADERS, "Content-Security-Policy": policy}

    async def docs(_request: Request) -> Response:
        """Describe every path."""
        document: dict[str, Any] = app.openapi()
        page = docs_page(document | {"info": document["info"] | {"x-headers": HEADERS}})
        return Response(page, headers=headers, media_type=_TYPES[".html"])

    return docs


def _models() -> _Endpoint:
    catalogue = CataloguePage()

    async def models(_request: Request) -> Response:
        """Show what is known of embedding models, not of those that are served."""
        text, style, script = await run_in_threadpool(catalogue.text)
        policy = f"{_CLOSED}; style-src '{style}'; script-src '{script}'"
        headers = {**_HEADERS, "Content-Security-Policy": policy}
        return Response(text, headers=headers, media_type=_TYPES[".html"])

    return models
