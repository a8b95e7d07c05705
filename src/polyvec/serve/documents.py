"""Searching and asking the documents of the server's indexes: ``/search`` and ``/ask``."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from polyvec.errors import InputError, PolyvecError
from polyvec.search.answer import MIN_COSINE, Answer, AskSettings, Event, Sources, Words, ask
from polyvec.search.chat import Chat
from polyvec.search.retrieve import Mode, Searcher, SearchSettings, place
from polyvec.search.rows import Chunk, Vectors
from polyvec.search.store import Store
from polyvec.search.where import Where, asked, read_moment
from polyvec.serve.answering import Answering
from polyvec.serve.encode import dumps
from polyvec.serve.exchange import CLIENT_GONE, Body, Exchange
from polyvec.serve.failures import ServeError, kind_of, status_of
from polyvec.serve.library import Library
from polyvec.serve.lines import Lines
from polyvec.serve.models import ServedModel
from polyvec.serve.reading import Reading
from polyvec.serve.service import Call

_MAX_CHARACTERS = 4_000
"""Of a query: no model here reads as much of one."""
NO_CHAT = (
    "This server has no chat endpoint to answer questions with. Name one when it is started: "
    "--chat-url http://127.0.0.1:11434/v1 --chat-model NAME"
)

Name = Annotated[str, Field(max_length=200)]
Names = Annotated[list[Annotated[str, Field(max_length=60)]], Field(max_length=60)]
Paths = Annotated[list[Annotated[str, Field(max_length=500)]], Field(max_length=30)]
Asked = Annotated[str, Field(max_length=_MAX_CHARACTERS)]
Day = Annotated[str, Field(max_length=40)]


class FilterBody(Body):
    """Which passages count."""

    index: Name | None = Field(default=None, description="Which index; the first without it")
    paths: Paths = Field(
        default=[], description="Folders, files or patterns (notes/*.md), from the indexed folder"
    )
    file_types: Names = Field(default=[], description="pdf, docx, markdown, python, ...")
    languages: Names = Field(default=[], description="ISO 639 codes of passages: en, de, zh")
    since: Day | None = Field(default=None, description="Changed then or later: 2026-03-01")
    before: Day | None = Field(default=None, description="Changed before")

    def where(self) -> Where:
        """Return the filter.

        Raises:
            InputError: A path leads out of the folder, or a type, language or moment is none.
        """
        return asked(
            self.paths,
            self.file_types,
            self.languages,
            read_moment(self.since, "since"),
            read_moment(self.before, "before"),
        )


class SearchBody(FilterBody):
    """What is searched for, and how."""

    query: Asked = Field(description="A question or words, in any language")
    mode: Mode = Field(
        default="hybrid", description="dense: by meaning; text: by words; hybrid: both"
    )
    limit: Annotated[int, Field(ge=1, le=100)] = Field(
        default=10, description="Passages, or documents where they are grouped"
    )
    candidates: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=100, description="Passages of each ranking that are fused"
    )
    diversity: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0, description="Prefer passages unlike those above them"
    )
    per_document: Annotated[int, Field(ge=0, le=50)] = Field(
        default=0, description="Passages of a document at most, grouped; 0: not grouped"
    )


class AskBody(FilterBody):
    """A question, and which passages the chat model may get."""

    question: Asked = Field(description="In any language; the answer is in the same")
    passages: Annotated[int, Field(ge=1, le=20)] = Field(
        default=AskSettings().passages, description="Sent to the chat model, at most"
    )
    min_cosine: Annotated[float, Field(ge=-1, le=1)] = Field(
        default=MIN_COSINE,
        description="Nothing is sent when the nearest passage is less near; -1 always asks",
    )


class UpdateBody(Body):
    """Which index to bring up to date."""

    index: Name | None = Field(default=None, description="Which index; the first without it")


class ChunkParameters(Body):
    """Which passage, and how much around it."""

    index: Name | None = Field(default=None, description="Which index; the first without it")
    id: Annotated[str, Field(max_length=300)] = Field(description="chunk_id of a result")
    before: Annotated[int, Field(ge=0, le=50)] = Field(default=1, description="Passages before")
    after: Annotated[int, Field(ge=0, le=50)] = Field(default=1, description="Passages after")


async def indexes(exchange: Exchange[Body]) -> Response:
    """List the indexes, what is in them, and the chat endpoint that answers questions."""
    library = _library(exchange.request)
    listed = [
        await library.in_thread(partial(library.facts, index)) for index in library.indexes.values()
    ]
    chat = None
    if library.chat is not None:
        host = urlsplit(library.chat.url).netloc.rpartition("@")[2]  # without a name and password
        chat = {"model": library.chat.model, "host": host}
    return exchange.json({"indexes": listed, "chat": chat})


async def search(exchange: Exchange[SearchBody]) -> Response:
    """Find the passages that answer a query, best first."""
    body = exchange.body
    settings = SearchSettings(
        body.mode, body.limit, body.candidates, body.diversity, body.per_document
    )
    where, library = body.where(), _library(exchange.request)
    index = library.find(body.index)
    vector, fingerprint = None, None
    if body.mode != "text":
        model, fingerprint = await library.in_thread(lambda: library.model_of(index))
        vector = await _embedded(exchange, model, body.query)
    started = time.perf_counter()
    results = await library.in_thread(
        lambda: index.read(
            lambda store: _searcher(store, vector).search(body.query, settings, where), fingerprint
        )
    )
    spent_ms = (time.perf_counter() - started) * 1000
    times = [exchange.headers.get("Server-Timing", ""), f"search;dur={spent_ms:.2f}"]
    exchange.headers["Server-Timing"] = ", ".join(filter(None, times))
    found = [result.facts(body.query) for result in results]
    return exchange.json(
        {"query": body.query, "mode": body.mode, "index": index.name, "results": found}
    )


async def update(exchange: Exchange[UpdateBody]) -> Response:
    """Begin to bring an index up to date with its folder, unless that runs already.

    ``/search/indexes`` says when it has ended, and what was found.
    """
    library = _library(exchange.request)
    _refuse_other_pages(exchange)
    index = library.find(exchange.body.index)
    state = await library.in_thread(lambda: library.update(index))
    return exchange.json({"index": index.name, "update": state})


async def chunk(exchange: Exchange[Body]) -> Response:
    """Show a passage and what stands around it, from the texts in the index: no file is read."""
    wanted = exchange.parameters(ChunkParameters)
    library = _library(exchange.request)
    index = library.find(wanted.index)
    shown = await library.in_thread(lambda: index.read(lambda store: _around(store, wanted)))
    return exchange.json({"index": index.name, **shown})


async def answer(exchange: Exchange[AskBody]) -> Response:
    """Answer a question from the documents, with citations that are checked.

    Events as JSON, one a line: ``sources``, then ``words`` as they come, then ``answer``, which is
    whole; or ``error``.
    """
    body, library = exchange.body, _library(exchange.request)
    _refuse_other_pages(exchange)
    settings = AskSettings(body.passages, min_cosine=body.min_cosine)
    where, index = body.where(), library.find(body.index)
    if library.chat is None:
        raise ServeError("unavailable", NO_CHAT)
    if not body.question.strip():
        raise InputError("The question is empty.")
    model, fingerprint = await library.in_thread(lambda: library.model_of(index))
    vector = await _embedded(exchange, model, body.question)
    embed = _Embedding(exchange, model, body.question, vector)
    store = await library.in_thread(lambda: index.read(lambda store: store, fingerprint))
    searcher, chat = Searcher(store, embed), Chat(library.chat)
    release = library.begin_answer()
    answering = Answering(
        lambda: index.guarded(ask(body.question, searcher, chat, settings, where=where)), release
    )
    try:
        first = await answering.next()
    except BaseException:  # the client hung up, too
        answering.stop()
        raise
    return Lines(_lines(exchange, answering, first), exchange.headers, answering.stop)


class _Embedding:
    """Embeds questions and an answer's sentences by the server's queue, from a thread."""

    def __init__(
        self, exchange: Exchange[Any], model: ServedModel, known: str, vector: Vectors
    ) -> None:
        self._service, self._model = exchange.service, model
        self._known, self._vector = known, vector
        self._loop = asyncio.get_running_loop()

    def __call__(self, text: str) -> Vectors:
        if text == self._known:
            return self._vector
        work = self._service.embed(Call(self._model, [text], Reading("query")))
        vectors: Vectors = asyncio.run_coroutine_threadsafe(work, self._loop).result().vectors
        return vectors[0]


async def _embedded(exchange: Exchange[Any], model: ServedModel, text: str) -> Vectors:
    """Embed a query as the index's model reads queries; it overtakes longer requests."""
    if not text.strip():
        raise InputError("The query is empty.")
    exchange.record.model, exchange.record.role = model.name, "query"
    outcome = await exchange.embed(Call(model, [text], Reading("query")))
    vector: Vectors = outcome.vectors[0]
    return vector


def _searcher(store: Store, vector: Vectors | None) -> Searcher:
    return Searcher(store, None if vector is None else lambda _: vector)


async def _lines(
    exchange: Exchange[AskBody], answering: Answering, event: Event | None
) -> AsyncIterator[bytes]:
    """Write events as they come; an error is the last one, as the status is sent already."""
    record, settings = exchange.record, exchange.service.settings
    ends_at = record.started + settings.request_timeout_s
    record.status, record.error = CLIENT_GONE, "the client hung up"  # unless it comes to its end
    try:
        while not isinstance(event, Answer):
            if event is None:
                raise ServeError("internal", "A bug in polyvec; its log says more.")
            yield _line(event, exchange.body.question)
            async with asyncio.timeout(max(0.0, ends_at - time.perf_counter())):
                event = await answering.next()
        record.status, record.error = 200, None
        yield _line(event, exchange.body.question)
    except TimeoutError:
        seconds = settings.request_timeout_s
        late = ServeError("timeout", f"The question was not answered within {seconds:g} s.")
        yield _error_line(exchange, late)
    except PolyvecError as error:
        yield _error_line(exchange, error)


def _line(event: Event, question: str) -> bytes:
    if isinstance(event, Words):
        return dumps({"type": "words", "text": event.text}) + b"\n"
    if isinstance(event, Answer):
        return dumps({"type": "answer", **event.facts()}) + b"\n"
    assert isinstance(event, Sources)
    passages = [{"number": n, **each.facts(question)} for n, each in enumerate(event.results, 1)]
    return dumps({"type": "sources", "passages": passages}) + b"\n"


def _error_line(exchange: Exchange[AskBody], error: PolyvecError) -> bytes:
    kind = kind_of(error)
    status = status_of(kind, exchange.record.dialect)
    exchange.record.status, exchange.record.error = status, kind
    return dumps({"type": "error", "status": status, "error": str(error)}) + b"\n"


def _around(store: Store, wanted: ChunkParameters) -> dict[str, Any]:
    found = store.chunks_by_id([wanted.id])
    if not found:
        raise ServeError(
            "unknown_index",
            f"The index has no passage {wanted.id!r:.80}. Its file may have changed: search again.",
        )
    middle = found[0]
    # One more on each side says whether there is more.
    near = store.chunks_around(middle, wanted.before + 1, wanted.after + 1)
    first, last = middle.ordinal - wanted.before, middle.ordinal + wanted.after
    return {
        "path": middle.path,
        "title": middle.title,
        "file_type": middle.file_type,
        "modified_at": middle.modified_at.isoformat(),
        "chunks": [
            _chunk_facts(each, each.ordinal == middle.ordinal)
            for each in near
            if first <= each.ordinal <= last
        ],
        "more_before": any(each.ordinal < first for each in near),
        "more_after": any(each.ordinal > last for each in near),
    }


def _chunk_facts(chunk: Chunk, is_wanted: bool) -> dict[str, Any]:
    every = asdict(chunk)
    kept = {name: every[name] for name in ("chunk_id", "ordinal", "heading", "language", "text")}
    return {**kept, "place": place(chunk), "is_wanted": is_wanted}


def _library(request: Request) -> Library:
    library: Library = request.app.state.library
    return library


def _refuse_other_pages(exchange: Exchange[Any]) -> None:
    """Refuse what a page of another site asks.

    It could not read the answer, but the passages would have gone to the chat endpoint, and its
    owner may pay for that.
    """
    headers, origins = exchange.request.headers, exchange.service.settings.cors_origins
    origin = headers.get("origin")
    if origin is None or origin in origins or "*" in origins:
        return
    if urlsplit(origin).netloc != headers.get("host"):
        raise ServeError(
            "forbidden",
            f"A page of {origin:.100} asks. Let it with --cors-origin, if it is yours.",
        )
