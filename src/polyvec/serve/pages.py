"""What a browser sees at ``/``: the one place that adds pages, and says which paths are open."""

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

PAGE_PATHS = frozenset({"/"})
"""Answered without an API key: they hold no data and ask with the key that a user types in."""


def add_pages(app: FastAPI) -> None:
    """Add the page at ``/`` (GET and HEAD; POST is TEI's)."""

    async def home(_request: Request) -> Response:
        """Say that the server runs."""
        return PlainTextResponse("polyvec is running. What it answers is at /docs.\n")

    app.add_api_route("/", home, methods=["GET", "HEAD"], include_in_schema=False)
