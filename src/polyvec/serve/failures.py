"""What can go wrong with a request, and how each dialect says it: one table, error to status."""

from typing import Any, Literal

from polyvec.errors import (
    IndexMismatchError,
    IndexMissingError,
    InputError,
    ModelNotFoundError,
    PolyvecError,
    RemoteError,
    TooLongError,
)

Dialect = Literal["openai", "ollama", "tei", "cohere", "search"]
Kind = Literal[
    "malformed",
    "invalid",
    "too_long",
    "over_limit",
    "too_large",
    "unauthorized",
    "forbidden",
    "unknown_model",
    "unknown_index",
    "unknown_path",
    "wrong_method",
    "mismatch",
    "slow_body",
    "overloaded",
    "unavailable",
    "timeout",
    "remote",
    "engine",
    "internal",
]


class ServeError(PolyvecError):
    """A request that is refused or failed, with the kind that decides its status."""

    def __init__(self, kind: Kind, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.kind, self.retry_after_s = kind, retry_after_s


class WorkerLostError(PolyvecError):
    """The process that computes for a model ended while it had work."""


class EngineError(PolyvecError):
    """The process that computes for a model could not embed a batch, and goes on."""


_STATUS: dict[Kind, int] = {
    "malformed": 400,
    "invalid": 400,
    "too_long": 400,
    "over_limit": 400,
    "too_large": 413,
    "unauthorized": 401,
    "forbidden": 403,
    "unknown_model": 404,
    "unknown_index": 404,
    "unknown_path": 404,
    "wrong_method": 405,
    "slow_body": 408,
    "mismatch": 409,
    "overloaded": 429,
    "unavailable": 503,
    "timeout": 504,
    "remote": 502,
    "engine": 500,
    "internal": 500,
}
_TEI_STATUS: dict[Kind, int] = {"invalid": 422, "too_long": 413, "over_limit": 413, "engine": 424}
"""Where TEI's own table differs (router/src/http/server.rs, its ``From<&ErrorType>``; 422 is what
its framework answers to JSON of another shape)."""

_WAYS_TO_CUT: dict[Dialect, str] = {
    "openai": "have it cut by the header",
    "ollama": "have it cut by truncate: true, or by the header",
    "tei": "have it cut by truncate: true, or by the header",
    "cohere": "have it cut by truncate: END or START, or by the header",
}
_OLLAMA_TOO_LONG = "the input length exceeds the context length"
"""Ollama's own words, by which its clients know that they have to shorten the text."""

_OPENAI_TYPES: dict[Kind, str] = {
    "unauthorized": "authentication_error",
    "overloaded": "rate_limit_exceeded",
    "unavailable": "server_error",
    "timeout": "server_error",
    "engine": "server_error",
    "internal": "server_error",
}
_OPENAI_CODES: dict[Kind, str] = {
    "too_long": "context_length_exceeded",
    "unknown_model": "model_not_found",
    "unauthorized": "invalid_api_key",
    "overloaded": "rate_limit_exceeded",
}
_TEI_TYPES: dict[Kind, str] = {
    "overloaded": "Overloaded",
    "unavailable": "Unhealthy",
    "timeout": "Overloaded",
    "engine": "Backend",
    "internal": "Backend",
}


def status_of(kind: Kind, dialect: Dialect) -> int:
    """Return the HTTP status with which a dialect says an error."""
    special = _TEI_STATUS if dialect == "tei" else {}
    return special.get(kind, _STATUS[kind])


def said(error: PolyvecError, dialect: Dialect) -> str:
    """Return an error's message, with what a client of that dialect can do about it."""
    if not isinstance(error, TooLongError) or dialect not in _WAYS_TO_CUT:
        return str(error)
    before = f"{_OLLAMA_TOO_LONG}: " if dialect == "ollama" else ""
    ways = f"Shorten it, or {_WAYS_TO_CUT[dialect]} X-Polyvec-Long-Input: end (or start)."
    return f"{before}{error.fact} {ways}"


def error_body(kind: Kind, message: str, dialect: Dialect) -> dict[str, Any]:
    """Return the JSON with which a dialect says an error."""
    if dialect == "openai":
        kind_name = _OPENAI_TYPES.get(kind, "invalid_request_error")
        code = _OPENAI_CODES.get(kind)
        return {"error": {"message": message, "type": kind_name, "param": None, "code": code}}
    if dialect == "tei":
        return {"error": message, "error_type": _TEI_TYPES.get(kind, "Validation")}
    if dialect == "cohere":
        return {"message": message}
    return {"error": message}


_KINDS: tuple[tuple[type[PolyvecError], Kind], ...] = (
    (TooLongError, "too_long"),
    (InputError, "invalid"),
    (EngineError, "engine"),
    (ModelNotFoundError, "unavailable"),  # it was there when the server started
    (IndexMissingError, "unknown_index"),
    (IndexMismatchError, "mismatch"),
    (RemoteError, "remote"),
)
"""The first that fits counts."""


def kind_of(error: PolyvecError) -> Kind:
    """Return the kind of an error that polyvec raised on purpose."""
    if isinstance(error, ServeError):
        return error.kind
    return next((kind for known, kind in _KINDS if isinstance(error, known)), "unavailable")


def dialect_of(path: str) -> Dialect:
    """Return whose shape an answer under a path has, errors of no known route included."""
    if path.startswith("/v1/"):
        return "openai"
    if path.startswith("/v2/"):
        return "cohere"
    if path.startswith("/api/"):
        return "ollama"
    if path.startswith("/search") or path == "/ask":
        return "search"
    return "tei"
