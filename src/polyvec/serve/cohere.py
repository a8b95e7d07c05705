"""Cohere's shape: ``/v2/embed`` (docs.cohere.com/reference/embed)."""

import uuid
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.responses import Response

from polyvec.serve.encode import rows_json, to_base64, to_binary, to_int8, to_ubinary, to_uint8
from polyvec.serve.exchange import Body, Exchange
from polyvec.serve.failures import ServeError
from polyvec.serve.reading import LongInput
from polyvec.serve.service import Call
from polyvec.serve.texts import Vectors
from polyvec.spec import Role

EmbeddingType = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]
InputType = Literal["search_query", "search_document", "classification", "clustering"]

_ROLES: dict[InputType, Role] = {
    "search_query": "query",
    "search_document": "document",
    "classification": "document",
    "clustering": "document",
}
_LONG_INPUTS: dict[str, LongInput] = {"NONE": "error", "START": "start", "END": "end"}
_FORMATS: dict[EmbeddingType, Callable[[Vectors], Any]] = {
    "float": lambda vectors: vectors,
    "int8": to_int8,
    "uint8": to_uint8,
    "binary": to_binary,
    "ubinary": to_ubinary,
}


class Content(Body):
    """A part of an input."""

    type: Literal["text"] = Field(description="Texts only: no model here sees images")
    text: str


class Input(Body):
    """An input in parts, which are joined by line breaks."""

    content: Annotated[list[Content], Field(min_length=1)]


class EmbedBody(Body):
    """What to embed, as what, and how the numbers are written."""

    model: str
    input_type: InputType = Field(description="search_query is a query, the others documents")
    texts: Annotated[list[str], Field(min_length=1)] | None = None
    inputs: Annotated[list[Input], Field(min_length=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Read fewer tokens of a text than the model can"
    )
    output_dimension: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="A shorter length; for Matryoshka models only"
    )
    embedding_types: Annotated[list[EmbeddingType], Field(min_length=1)] = Field(default=["float"])
    truncate: Literal["NONE", "START", "END"] = "END"
    priority: int = Field(default=0, description="Taken and not used: short requests go first")


async def embed(exchange: Exchange[EmbedBody]) -> Response:
    """Embed texts as queries or documents."""
    body = exchange.body
    texts = _texts(body)
    model, reading = exchange.find(body.model, _ROLES[body.input_type], _LONG_INPUTS[body.truncate])
    call = Call(
        model,
        texts,
        reading,
        dimensions=body.output_dimension,
        max_tokens=body.max_tokens,
    )
    outcome = await exchange.embed(call)
    formats = {name: await _written(outcome.vectors, name) for name in body.embedding_types}
    return exchange.json(
        {
            "id": str(uuid.uuid4()),
            "embeddings": formats,
            "texts": texts,
            "response_type": "embeddings_by_type",
            "meta": {
                "api_version": {"version": "2"},
                "billed_units": {"input_tokens": outcome.num_tokens},
            },
        }
    )


def _texts(body: EmbedBody) -> list[str]:
    if (body.texts is None) == (body.inputs is None):
        raise ServeError("invalid", "Give either texts or inputs (and no images).")
    if body.texts is not None:
        return body.texts
    return ["\n".join(part.text for part in item.content) for item in body.inputs or ()]


async def _written(vectors: Vectors, name: EmbeddingType) -> object:
    if name == "base64":
        return [to_base64(row) for row in vectors]
    return await rows_json(_FORMATS[name](vectors))
