"""OpenAI's shape: ``/v1/embeddings``, ``/v1/models`` (platform.openai.com/docs/api-reference)."""

from typing import Annotated, Any, Literal, cast

from pydantic import Field
from starlette.responses import Response

from polyvec.serve.encode import rows_json, to_base64
from polyvec.serve.exchange import Body, Exchange
from polyvec.serve.service import Call
from polyvec.serve.texts import Inputs

TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
_CREATED = 0
"""The API wants a time of creation, which a model here does not have."""


class EmbeddingsBody(Body):
    """What to embed."""

    input: (
        str
        | Annotated[list[str], Field(min_length=1)]
        | TokenIds
        | Annotated[list[TokenIds], Field(min_length=1)]
    ) = Field(description="A text, texts, or token ids of the model's own tokenizer")
    model: str = Field(description="A name of /v1/models, followed by :query for queries")
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="A shorter length; for Matryoshka models only"
    )
    user: str | None = Field(default=None, description="Taken and not used")


async def embeddings(exchange: Exchange[EmbeddingsBody]) -> Response:
    """Embed texts or token ids."""
    body = exchange.body
    model, reading = exchange.find(body.model, None, "error")
    call = Call(model, _inputs(body), reading, dimensions=body.dimensions)
    outcome = await exchange.embed(call)

    def item(index: int, row: Any) -> object:  # noqa: ANN401 (a numpy row)
        vector = to_base64(row) if body.encoding_format == "base64" else row
        return {"object": "embedding", "index": index, "embedding": vector}

    tokens = outcome.num_tokens
    return exchange.json(
        {
            "object": "list",
            "data": await rows_json(outcome.vectors, item),
            "model": body.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def _inputs(body: EmbeddingsBody) -> Inputs:
    given = body.input
    if isinstance(given, str):
        return [given]
    if isinstance(given[0], int):
        return cast(Inputs, [given])  # one text's ids
    return cast(Inputs, given)


async def list_models(exchange: Exchange[Body]) -> Response:
    """List the models."""
    return exchange.json(
        {"object": "list", "data": [_model(m.name) for m in exchange.service.models.all]}
    )


async def show_model(exchange: Exchange[Body]) -> Response:
    """Show a model."""
    model, _ = exchange.service.models.find(exchange.request.path_params["model"])
    return exchange.json(_model(model.name))


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": "polyvec"}
