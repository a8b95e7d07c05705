"""One HTTP request and its answer: permit, body, deadline, hang-ups, errors, headers, record."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from polyvec.errors import PolyvecError
from polyvec.serve.encode import dumps
from polyvec.serve.failures import Dialect, ServeError, error_body, kind_of, said, status_of
from polyvec.serve.lines import Lines
from polyvec.serve.models import ServedModel
from polyvec.serve.reading import MODEL_HEADER, LongInput, Reading, read_headers
from polyvec.serve.service import Call, Outcome, Service
from polyvec.serve.settings import ServeSettings
from polyvec.spec import Role

B = TypeVar("B", bound=BaseModel)
P = TypeVar("P", bound=BaseModel)
T = TypeVar("T")

CLIENT_GONE = 499
"""nginx's number for a client that hung up; only logs and metrics see it."""
_SHOWN_INDICES = 100
_SHOWN_PROBLEMS = 4
_HEADER_CHARACTERS = 500

TRUNCATED_HEADER = "X-Polyvec-Truncated"
TRUNCATED_TEXTS_HEADER = "X-Polyvec-Truncated-Texts"
IGNORED_HEADER = "X-Polyvec-Ignored-Fields"


class Body(BaseModel):
    """A request's JSON, of the stated types; unknown fields do nothing and a header says so."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    def ignored(self) -> list[str]:
        """Return the fields that had no effect."""
        return sorted(self.model_extra or {})


@dataclass
class Record:
    """What is known of a request afterwards, for logs, metrics and traces: no text."""

    dialect: Dialect
    path: str
    started: float = field(default_factory=time.perf_counter)
    status: int = 500
    """Of the answer; as it is here, a bug kept it from being made."""
    seconds: float = 0.0
    error: str | None = None
    model: str = ""
    role: str = ""
    num_texts: int = 0
    outcome: Outcome | None = None


Recorder = Callable[[Record], None]


class Exchanges:
    """What all requests of a server share."""

    def __init__(self, service: Service, settings: ServeSettings, on_end: Recorder) -> None:
        self.service, self.settings, self.on_end = service, settings, on_end
        self.active = 0

    @asynccontextmanager
    async def permit(self) -> AsyncIterator[None]:
        """Count a request in, or refuse it before its body is read."""
        limit = self.settings.max_concurrent_requests
        if self.active >= limit:
            raise self.service.overloaded(f"{limit} requests are being answered already")
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1


class Exchange(Generic[B]):
    """A request whose body has been read: what a dialect's handler works with."""

    def __init__(self, request: Request, body: B, shared: Exchanges, record: Record) -> None:
        self.request, self.body, self.record = request, body, record
        self.service = shared.service
        self.headers: dict[str, str] = {}
        ignored = body.ignored() if isinstance(body, Body) else []
        if ignored:
            self.headers[IGNORED_HEADER] = header_safe(", ".join(ignored))

    def find(
        self, name: str | None, stated: Role | None, long_input: LongInput
    ) -> tuple[ServedModel, Reading]:
        """Return the model and how texts are read, from name, suffix and headers."""
        headers = self.request.headers
        wanted = name if name is not None else headers.get(MODEL_HEADER, "")
        model, suffix = self.service.models.find(wanted)
        reading = read_headers(headers, stated=stated, suffix=suffix, long_input=long_input)
        self.record.model, self.record.role = model.name, reading.role
        return model, reading

    async def embed(self, call: Call, *, states: bool = False) -> Outcome:
        """Embed, and report how it went in headers and the record."""
        outcome = await self.service.embed(call, states=states)
        self.report(outcome)
        return outcome

    def report(self, outcome: Outcome, names: Sequence[str] | None = None) -> None:
        """Say in headers and the record how a request's texts were embedded.

        Args:
            outcome: Of all its texts.
            names: What each text is called in the header; None: its index.
        """
        self.record.outcome, self.record.num_texts = outcome, len(outcome.counts)
        cut = outcome.cut[:_SHOWN_INDICES]
        shown = ",".join(str(index) if names is None else names[index] for index in cut)
        self.headers[TRUNCATED_HEADER] = str(len(outcome.cut))
        if shown:
            more = ",..." if len(outcome.cut) > _SHOWN_INDICES else ""
            self.headers[TRUNCATED_TEXTS_HEADER] = shown + more
        times = outcome.timings
        self.headers["Server-Timing"] = ", ".join(
            f"{name};dur={getattr(times, name + '_s') * 1000:.2f}"
            for name in ("tokenize", "load", "queue", "compute")
        )

    def parameters(self, kind: type[P]) -> P:
        """Return the address's parameters, of the stated types.

        Raises:
            ServeError: One is missing or cannot be used.
        """
        given = dict(self.request.query_params)
        return _validated(kind, lambda: kind.model_validate_strings(given))

    def json(self, value: object) -> Response:
        """Answer with JSON and the headers that were noted."""
        return Response(dumps(value), headers=self.headers, media_type="application/json")


Handler = Callable[[Exchange[B]], Coroutine[Any, Any, Response]]


def endpoint(
    dialect: Dialect, body_type: type[B], handler: Handler[B]
) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint that reads a body, runs a dialect's handler and answers its errors."""

    async def run(request: Request) -> Response:
        shared: Exchanges = request.app.state.exchanges
        record = Record(dialect, request.scope["route"].path)
        async with AsyncExitStack() as held:
            held.callback(_end, record, shared)
            response = await _answer(request, body_type, handler, shared, record, held)
            if isinstance(response, Lines):
                response.hold(held.pop_all())
            return response

    run.__name__ = handler.__name__
    run.__doc__ = handler.__doc__
    return run


def _end(record: Record, shared: Exchanges) -> None:
    record.seconds = time.perf_counter() - record.started
    shared.on_end(record)


async def _answer(
    request: Request,
    body_type: type[B],
    handler: Handler[B],
    shared: Exchanges,
    record: Record,
    held: AsyncExitStack,
) -> Response:
    try:
        async with asyncio.timeout(shared.settings.request_timeout_s):
            await held.enter_async_context(shared.permit())
            raw = await _read(request, shared.settings)
            exchange = Exchange(request, _parse(raw, body_type), shared, record)
            response = await _while_connected(request, handler(exchange))
            record.status = response.status_code
            return response
    except TimeoutError:
        seconds = shared.settings.request_timeout_s
        error = ServeError("timeout", f"The request was not answered within {seconds:g} s.")
        return refuse(error, record)
    except PolyvecError as error:
        return refuse(error, record)
    except ClientDisconnect:
        record.status, record.error = CLIENT_GONE, "the client hung up"
        return Response(status_code=CLIENT_GONE)


def refuse(error: PolyvecError, record: Record) -> Response:
    """Answer with an error, in the dialect's shape."""
    kind = kind_of(error)
    record.status, record.error = status_of(kind, record.dialect), kind
    body = dumps(error_body(kind, said(error, record.dialect), record.dialect))
    headers = {}
    if isinstance(error, ServeError) and error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if kind in ("too_large", "slow_body"):
        headers["Connection"] = "close"  # the rest of the body is not read
    return Response(body, record.status, headers, media_type="application/json")


async def _read(request: Request, settings: ServeSettings) -> bytes:
    """Read the body within its limits of size and time."""
    limit, parts, size = settings.max_body_bytes, list[bytes](), 0
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > limit:
        raise _too_large(int(stated), limit)
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise _too_large(size, limit)
                parts.append(part)
    except TimeoutError:
        seconds = settings.body_timeout_s
        raise ServeError("slow_body", f"The body had not arrived after {seconds:g} s.") from None
    return b"".join(parts)


def _too_large(size: int, limit: int) -> ServeError:
    return ServeError(
        "too_large",
        f"The body has {size:,} bytes or more; this server takes {limit:,} (--max-body-bytes). "
        "Send the texts in several requests.",
    )


def _parse(raw: bytes, body_type: type[B]) -> B:
    return _validated(body_type, lambda: body_type.model_validate_json(raw or b"{}"))


def _validated(body_type: type[P], validate: Callable[[], P]) -> P:
    try:
        return validate()
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        if problems[0]["type"] == "json_invalid":
            raise ServeError("malformed", f"The body is no JSON: {problems[0]['msg']}.") from None
        deepest = sorted(problems, key=lambda p: -len(p["loc"]))
        said = [f"{p['loc'][0] if p['loc'] else 'body'}: {p['msg']}" for p in deepest]
        shown = "; ".join(list(dict.fromkeys(said))[:_SHOWN_PROBLEMS])
        known = ", ".join(field.alias or name for name, field in body_type.model_fields.items())
        raise ServeError("invalid", f"{shown}. The fields are: {known}.") from None


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Run a handler; stop it when its client hangs up.

    Raises:
        ClientDisconnect: The client hung up first.
    """
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_hung_up(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.wait((task, gone))


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def header_safe(text: str) -> str:
    """Return a text as a header may have it: printable ASCII, and not endless."""
    return text.encode("unicode_escape").decode()[:_HEADER_CHARACTERS]
