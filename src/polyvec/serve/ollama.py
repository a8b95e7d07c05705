"""Ollama's shape: ``/api/embed``, ``/api/tags`` and others (docs/api.md in ollama/ollama)."""

import hashlib
import time
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import Field
from starlette.responses import Response

import polyvec
from polyvec.serve.encode import dumps, rows_json
from polyvec.serve.exchange import IGNORED_HEADER, Body, Exchange, header_safe
from polyvec.serve.failures import ServeError
from polyvec.serve.models import ServedModel, keep_alive_seconds
from polyvec.serve.reading import LongInput
from polyvec.serve.service import Call, Outcome
from polyvec.spec import BertArchitecture, spec_facts

API_VERSION = "0.13.0"
"""The Ollama whose embedding API this is; clients compare it with what they need."""

_FOR_EVER = timedelta(days=36_500)


class _ModelBody(Body):
    model: str = Field(description="A name of /api/tags, followed by :query for queries")


class EmbedBody(_ModelBody):
    """What to embed. Without input, the model is loaded, or unloaded by ``keep_alive`` 0."""

    input: str | list[str] = Field(default="", description="A text or texts")
    truncate: bool | None = Field(default=None, description="False refuses texts that are too long")
    dimensions: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="A shorter length, for Matryoshka models only; 0 is the model's own",
    )
    keep_alive: float | str | None = Field(
        default=None, description="How long the model stays loaded: seconds, or '5m'; -1 for ever"
    )
    options: dict[str, Any] | None = Field(
        default=None,
        description="num_ctx reads fewer tokens; the others say nothing to an embedder",
    )


class EmbeddingsBody(_ModelBody):
    """What to embed, the older way: one text."""

    prompt: str = Field(default="", description="A text")
    keep_alive: float | str | None = None
    options: dict[str, Any] | None = None


class ShowBody(Body):
    """Which model to show."""

    model: str = ""
    name: str = Field(default="", description="The older name of `model`")
    verbose: bool = False


async def embed(exchange: Exchange[EmbedBody]) -> Response:
    """Embed texts."""
    started = time.perf_counter()
    body = exchange.body
    texts = [body.input] if isinstance(body.input, str) else body.input
    long_input: LongInput = "error" if body.truncate is False else "end"
    outcome = await _embed(exchange, [] if body.input == "" else texts, long_input, body.dimensions)
    answer: dict[str, Any] = {"model": body.model, "embeddings": []}
    tokens, load_s = 0, 0.0
    if outcome is not None:
        answer["embeddings"] = await rows_json(outcome.vectors)
        tokens, load_s = outcome.num_tokens, outcome.timings.load_s
    return exchange.json(
        answer
        | {
            "total_duration": _nanoseconds(time.perf_counter() - started),
            "load_duration": _nanoseconds(load_s),
            "prompt_eval_count": tokens,
        }
    )


async def embeddings(exchange: Exchange[EmbeddingsBody]) -> Response:
    """Embed one text, the older way."""
    prompt = exchange.body.prompt
    outcome = await _embed(exchange, [prompt] if prompt else [], "end", None)
    return exchange.json({"embedding": [] if outcome is None else outcome.vectors[0]})


async def _embed(
    exchange: Exchange[EmbedBody] | Exchange[EmbeddingsBody],
    texts: list[str],
    long_input: LongInput,
    dimensions: int | None,
) -> Outcome | None:
    body = exchange.body
    model, reading = exchange.find(body.model, None, long_input)
    keep_alive_s = keep_alive_seconds(body.keep_alive)
    num_ctx, ignored = _options(body.options or {})
    if ignored:
        before = exchange.headers.get(IGNORED_HEADER)
        named = ", ".join(filter(None, (before, *ignored)))
        exchange.headers[IGNORED_HEADER] = header_safe(named)
    if not texts:
        await exchange.service.load(model, keep_alive_s)
        return None
    call = Call(
        model,
        texts,
        reading,
        dimensions=dimensions or None,
        normalize=True,
        max_tokens=num_ctx,
        keep_alive_s=keep_alive_s,
    )
    return await exchange.embed(call)


def _options(options: dict[str, Any]) -> tuple[int | None, list[str]]:
    """Return ``num_ctx`` and the options that mean nothing here."""
    num_ctx = options.get("num_ctx")
    if num_ctx is not None and (type(num_ctx) is not int or num_ctx < 1):
        raise ServeError("invalid", f"options.num_ctx is {num_ctx!r:.60}; it is a number over 0.")
    ignored = [name for name, value in options.items() if name != "num_ctx" and value is not None]
    return num_ctx, [f"options.{name}" for name in ignored]


async def tags(exchange: Exchange[Body]) -> Response:
    """List the models."""
    return exchange.json({"models": [_tag(model) for model in exchange.service.models.all]})


async def show(exchange: Exchange[ShowBody]) -> Response:
    """Show a model."""
    model, _ = exchange.find(exchange.body.model or exchange.body.name, None, "end")
    spec, shape = model.files.spec, model.files.architecture
    family = shape.model_type
    info = {
        "general.architecture": family,
        "general.parameter_count": shape.num_parameters,
        f"{family}.context_length": spec.max_tokens,
        f"{family}.embedding_length": spec.dimension,
        f"{family}.block_count": shape.num_layers,
        f"{family}.attention.causal": spec.attention == "causal",
        f"{family}.pooling_type": spec.pooling,
        "polyvec.spec": spec_facts(spec),
    }
    return exchange.json(
        {
            "modelfile": f"# polyvec serves {model.source.model}\nFROM {model.name}\n",
            "parameters": "",
            "template": f"{spec.query_prefix}{{{{ .Prompt }}}}",
            "details": _details(model),
            "model_info": info,
            "capabilities": ["embedding"],
            "modified_at": _modified_at(model),
        }
    )


async def running(exchange: Exchange[Body]) -> Response:
    """List the models that are loaded."""
    loaded = [model for model in exchange.service.models.all if model.worker is not None]
    return exchange.json(
        {
            "models": [
                _tag(model)
                | {
                    "size": model.memory_bytes,
                    "size_vram": 0,
                    "expires_at": _expires_at(model),
                    "context_length": model.files.spec.max_tokens,
                }
                for model in loaded
            ]
        }
    )


async def version(exchange: Exchange[Body]) -> Response:
    """Say which Ollama's API this is, and that it is polyvec."""
    return exchange.json({"version": API_VERSION, "server": f"polyvec {polyvec.__version__}"})


def _tag(model: ServedModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "model": model.name,
        "modified_at": _modified_at(model),
        "size": model.size_bytes,
        "digest": _digest(model),
        "details": _details(model),
    }


def _details(model: ServedModel) -> dict[str, Any]:
    shape = model.files.architecture
    family = "bert" if isinstance(shape, BertArchitecture) else "llama"
    return {
        "parent_model": "",
        "format": model.files.format,
        "family": family,
        "families": [family],
        "parameter_size": f"{shape.num_parameters / 1e6:.0f}M",
        "quantization_level": model.worker.ready.precision if model.worker is not None else "",
    }


def _digest(model: ServedModel) -> str:
    """Return a hash that changes with the model's spec and files; weights are not read for it."""
    facts = dumps([model.name, spec_facts(model.files.spec), model.size_bytes, model.modified_s])
    return hashlib.sha256(facts).hexdigest()


def _modified_at(model: ServedModel) -> str:
    return datetime.fromtimestamp(model.modified_s, UTC).isoformat()


def _expires_at(model: ServedModel) -> str:
    if model.expires_at is None:
        return (datetime.now(UTC) + _FOR_EVER).isoformat()
    return (datetime.now(UTC) + timedelta(seconds=model.expires_at - time.monotonic())).isoformat()


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
