"""The door: keys are checked before anything of a request is read."""

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from polyvec.serve.encode import dumps
from polyvec.serve.failures import dialect_of, error_body, status_of
from polyvec.serve.keys import Keys

OPEN_PATHS = frozenset({"/health", "/api/version"})
"""What monitors ask, and which says nothing."""


class Guard:
    """Lets requests with a key in; the pages of ``open_paths`` are open to all."""

    def __init__(self, app: ASGIApp, keys: Keys | None, open_paths: frozenset[str]) -> None:
        self.app, self.keys, self.open_paths = app, keys, open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http" and not self._allows(scope):
            await _refusal(scope["path"])(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _allows(self, scope: Scope) -> bool:
        if self.keys is None:
            return True
        # Reading a page is open; POST / is TEI's way to embed.
        if scope["path"] in self.open_paths and scope["method"] in ("GET", "HEAD"):
            return True
        return self.keys.allows(Headers(scope=scope).get("authorization", ""))


def _refusal(path: str) -> Response:
    dialect = dialect_of(path)
    message = "No API key, or an unknown one. Send the header Authorization: Bearer KEY."
    return Response(
        dumps(error_body("unauthorized", message, dialect)),
        status_of("unauthorized", dialect),
        {"WWW-Authenticate": "Bearer", "Connection": "close"},
        media_type="application/json",
    )
