"""The shape of text-embeddings-inference (its docs/openapi.json): ``/embed`` and its siblings.

A model is not named in it: it is the server's first one, or the ``X-Polyvec-Model`` header's.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field
from starlette.responses import Response

import polyvec
from polyvec.model.tokens import Tokenizer
from polyvec.serve.encode import Raw, dumps, rows_json
from polyvec.serve.exchange import Body, Exchange
from polyvec.serve.failures import ServeError
from polyvec.serve.models import ServedModel
from polyvec.serve.reading import LongInput, Reading
from polyvec.serve.service import Call, Outcome, together
from polyvec.serve.texts import Inputs
from polyvec.spec import Role

if TYPE_CHECKING:
    from tokenizers import Encoding

TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Direction = Literal["left", "right", "Left", "Right"]

PROMPTS: dict[str, Role] = {"query": "query", "document": "document", "passage": "document"}
RERANK_HEADER = "X-Polyvec-Rerank"


class _Texts(Body):
    truncate: bool | None = Field(default=None, description="False refuses texts that are too long")
    truncation_direction: Direction = Field(default="right", description="Which side is cut")
    prompt_name: str | None = Field(default=None, description="query, document or passage")


class _EmbedOptions(_Texts):
    normalize: bool = True
    dimensions: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="A shorter length; for Matryoshka models only"
    )


class EmbedBody(_EmbedOptions):
    """What to embed."""

    inputs: (
        str
        | Annotated[list[str], Field(min_length=1)]
        | TokenIds
        | Annotated[list[TokenIds], Field(min_length=1)]
    ) = Field(description="A text, texts, or token ids of the model's own tokenizer")


class EmbedAllBody(_Texts):
    """What to embed, token by token."""

    inputs: str | Annotated[list[str], Field(min_length=1)]


class SimilarityInputs(Body):
    """One sentence and those it is compared with."""

    source_sentence: str
    sentences: Annotated[list[str], Field(min_length=1)]


class SimilarityBody(Body):
    """What to compare."""

    inputs: SimilarityInputs
    parameters: _Texts | None = None


class RerankBody(_Texts):
    """A query and the texts to put in order."""

    query: str
    texts: Annotated[list[str], Field(min_length=1)]
    raw_scores: bool = Field(
        default=False, description="True gives cosines, False (1 + cosine) / 2"
    )
    return_text: bool = False


class TokenizeBody(Body):
    """What to tokenize."""

    inputs: str | Annotated[list[str], Field(min_length=1)]
    add_special_tokens: bool = True
    prompt_name: str | None = None


class DecodeBody(Body):
    """Token ids to turn into text."""

    ids: list[int] | list[list[int]]
    skip_special_tokens: bool = True


async def embed(exchange: Exchange[EmbedBody]) -> Response:
    """Embed texts or token ids."""
    return await _embed(exchange, exchange.body, exchange.body.inputs)


async def _embed(exchange: Exchange[Any], body: _EmbedOptions, inputs: object) -> Response:
    model, reading = _find(exchange, body)
    call = Call(
        model, _listed(inputs), reading, dimensions=body.dimensions, normalize=body.normalize
    )
    return exchange.json(await rows_json((await exchange.embed(call)).vectors))


async def embed_all(exchange: Exchange[EmbedAllBody]) -> Response:
    """Embed texts, one vector a token."""
    model, reading = _find(exchange, exchange.body)
    if reading.long_input == "average":
        raise ServeError("invalid", "Token states of a text in pieces cannot be averaged.")
    call = Call(model, _listed(exchange.body.inputs), reading)
    outcome = await exchange.embed(call, states=True)
    return exchange.json(await rows_json(outcome.states))


async def similarity(exchange: Exchange[SimilarityBody]) -> Response:
    """Give the cosines of one sentence to others, all read the same way."""
    return await _compare(exchange, exchange.body.inputs, exchange.body.parameters or _Texts())


async def _compare(exchange: Exchange[Any], inputs: SimilarityInputs, how: _Texts) -> Response:
    model, reading = _find(exchange, how)
    texts = [inputs.source_sentence, *inputs.sentences]
    outcome = await exchange.embed(Call(model, texts, reading, normalize=True))
    return exchange.json(outcome.vectors[1:] @ outcome.vectors[0])


class CompatBody(_EmbedOptions):
    """``/`` without a page: what to embed, or to compare."""

    inputs: (
        str
        | Annotated[list[str], Field(min_length=1)]
        | TokenIds
        | Annotated[list[TokenIds], Field(min_length=1)]
        | SimilarityInputs
    )


async def compat(exchange: Exchange[CompatBody]) -> Response:
    """Do ``/embed``, or ``/similarity`` if sentences are to be compared, as Hugging Face asks."""
    inputs = exchange.body.inputs
    if isinstance(inputs, SimilarityInputs):
        return await _compare(exchange, inputs, exchange.body)
    return await _embed(exchange, exchange.body, inputs)


async def rerank(exchange: Exchange[RerankBody]) -> Response:
    """Put texts in order by their similarity to a query. Embeddings decide, not a cross-encoder."""
    body = exchange.body
    model, reading = _find(exchange, body)
    if body.prompt_name is not None:
        raise ServeError(
            "invalid", "prompt_name: the query is read as one, the texts as documents."
        )
    scores = await _scores(exchange, model, reading)
    exchange.headers[RERANK_HEADER] = "embedding similarity"
    if not body.raw_scores:
        scores = (1 + scores) / 2
    ranks = [
        {"index": int(i), "score": scores[i]}
        | ({"text": body.texts[i]} if body.return_text else {})
        for i in np.argsort(-scores, kind="stable")
    ]
    return exchange.json(ranks)


async def _scores(
    exchange: Exchange[RerankBody], model: ServedModel, reading: Reading
) -> np.ndarray[Any, Any]:
    """Return the cosine of each text to the query."""
    body, outcomes = exchange.body, list[Outcome]()
    for role, texts in (("query", [body.query]), ("document", body.texts)):
        instruction = reading.instruction if role == "query" else None
        read = Reading(role, instruction, reading.long_input, reading.lane)  # type: ignore[arg-type]
        call = Call(model, texts, read, normalize=True)
        outcomes.append(await exchange.service.embed(call))
    both = together(*outcomes)
    exchange.report(both, ["query", *map(str, range(len(body.texts)))])
    return both.vectors[1:] @ both.vectors[0]


async def tokenize(exchange: Exchange[TokenizeBody]) -> Response:
    """Show the tokens of texts."""
    body = exchange.body
    model, reading = _find(exchange, _Texts(prompt_name=body.prompt_name))
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    exchange.service.check_number(len(texts))
    prefix = model.files.spec.prefix(reading.role, reading.instruction)
    tokenizer = model.files.tokenizer
    encodings = await exchange.service.in_tokenizer(
        tokenizer.backend.encode_batch, [prefix + t for t in texts], add_special_tokens=False
    )
    exchange.service.check_tokens(sum(map(len, encodings)))
    return exchange.json(
        await exchange.service.in_tokenizer(
            _tokens_json, tokenizer, encodings, body.add_special_tokens
        )
    )


def _tokens_json(
    tokenizer: Tokenizer, encodings: "list[Encoding]", add_special_tokens: bool
) -> Raw:
    result = []
    for encoding in encodings:
        row = [
            {"id": i, "text": text, "special": False, "start": start, "stop": stop}
            for i, text, (start, stop) in zip(
                encoding.ids, encoding.tokens, encoding.offsets, strict=True
            )
        ]
        if add_special_tokens:
            before = [_special(tokenizer, i) for i in tokenizer.bos_ids]
            row = [*before, *row, *(_special(tokenizer, i) for i in tokenizer.eos_ids)]
        result.append(row)
    return Raw(dumps(result))


def _special(tokenizer: Tokenizer, token_id: int) -> dict[str, Any]:
    text = tokenizer.backend.id_to_token(token_id)
    return {"id": token_id, "text": text, "special": True, "start": None, "stop": None}


async def decode(exchange: Exchange[DecodeBody]) -> Response:
    """Turn token ids into text."""
    body = exchange.body
    model, _ = _find(exchange, _Texts())
    tokenizer = model.files.tokenizer
    rows: list[list[int]] = body.ids if body.ids and isinstance(body.ids[0], list) else [body.ids]  # type: ignore[list-item]
    exchange.service.check_number(len(rows))
    exchange.service.check_tokens(sum(map(len, rows)))
    for token_id in (i for row in rows for i in row):
        if not 0 <= token_id < tokenizer.vocab_size:
            raise ServeError(
                "invalid", f"There is no token {token_id}; ids are 0 to {tokenizer.vocab_size - 1}."
            )
    texts = await exchange.service.in_tokenizer(
        tokenizer.backend.decode_batch, rows, skip_special_tokens=body.skip_special_tokens
    )
    return exchange.json(texts)


async def info(exchange: Exchange[Body]) -> Response:
    """Say what is served, within which limits, and how the role is chosen."""
    model, _ = exchange.find(None, None, "end")
    settings, spec = exchange.service.settings, model.files.spec
    ready = model.worker.ready if model.worker is not None else None
    return exchange.json(
        {
            "model_id": model.source.model,
            "model_sha": None,
            "model_dtype": ready.precision if ready is not None else settings.precision,
            "model_type": {"embedding": {"pooling": spec.pooling}},
            "served_model_name": model.name,
            "max_concurrent_requests": settings.max_concurrent_requests,
            "max_input_length": spec.max_tokens,
            "max_batch_tokens": ready.max_batch_tokens if ready else settings.max_batch_tokens,
            "max_batch_requests": None,
            "max_client_batch_size": settings.max_texts,
            "auto_truncate": True,
            "tokenization_workers": settings.tokenization_threads,
            "version": polyvec.__version__,
            "polyvec": {
                "models": [m.name for m in exchange.service.models.all],
                "dimension": spec.dimension,
                "matryoshka_dimensions": list(spec.matryoshka_dimensions),
                "query_prefix": spec.query_prefix,
                "document_prefix": spec.document_prefix,
                "default_instruction": spec.default_instruction,
                "role": ROLE_HELP,
                "rerank": "by similarity of embeddings, not by a cross-encoder",
                "max_body_bytes": settings.max_body_bytes,
                "max_request_tokens": settings.max_request_tokens,
                "max_queue_tokens": settings.max_queue_tokens,
            },
        }
    )


ROLE_HELP = (
    "query or document: input_type (Cohere), prompt_name (TEI), the model's suffix as in "
    "NAME:query, or the header X-Polyvec-Role; without any, document"
)


async def health(exchange: Exchange[Body]) -> Response:
    """Say that the server answers."""
    return exchange.json({"status": "ok"})


def _find(exchange: Exchange[Any], body: _Texts) -> tuple[ServedModel, Reading]:
    role = None
    if body.prompt_name is not None:
        if body.prompt_name not in PROMPTS:
            raise ServeError(
                "invalid",
                f"prompt_name is {body.prompt_name!r:.80}; allowed: {', '.join(PROMPTS)}.",
            )
        role = PROMPTS[body.prompt_name]
    cut: LongInput = "start" if body.truncation_direction.lower() == "left" else "end"
    return exchange.find(None, role, "error" if body.truncate is False else cut)


def _listed(inputs: Any) -> Inputs:  # noqa: ANN401 (a text, texts, ids, lists of ids)
    if isinstance(inputs, str) or isinstance(inputs[0], int):
        return [inputs]
    result: Inputs = inputs
    return result
