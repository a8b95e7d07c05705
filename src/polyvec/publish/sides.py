"""The two sides of a comparison: a model here or a server somewhere, asked the same way."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from polyvec.engine.embedder import Embedder, load
from polyvec.engine.remote import RemoteEmbedder, connect
from polyvec.spec import Attention, Pooling, Role, Spec

Vectors = npt.NDArray[np.float32]
Side = Embedder | RemoteEmbedder

_OVER_LONG = 2_500
"""Tokens of the over-long text at most: enough to see the limits servers cut at, 512 to 2,048."""


@dataclass(frozen=True)
class Probe:
    """One text of the probe set."""

    id: str
    kind: str
    language: str
    text: str


def read_probes() -> list[Probe]:
    """Return the probe set that comes with the package: 46 texts in 26 languages."""
    raw = resources.files("polyvec.publish").joinpath("probe.jsonl").read_bytes()
    return [Probe(**orjson.loads(line)) for line in raw.splitlines()]


def over_long_text(probes: Sequence[Probe], embedder: Embedder | None) -> str:
    """Return a text longer than the model reads, or than most servers' limits."""
    texts = [p.text for p in probes if p.kind in ("long", "short")]
    passage = " ".join(f"{n}. {text}" for n, text in enumerate(texts))
    if embedder is None:
        return passage
    wanted = min(embedder.spec.max_tokens * 5 // 4 + 8, _OVER_LONG)
    tokens = len(embedder.tokenizer.backend.encode(passage).ids)
    return " ".join([passage] * (wanted // tokens + 1))


def open_side(name: str, **stated: Any) -> Side:  # noqa: ANN401 (passed on to load)
    """Open a model by name, or connect to a server by address."""
    return connect(name) if "://" in name else load(name, **stated)


def embed_side(side: Side, texts: Sequence[str], role: Role, spec: Spec | None) -> Vectors:
    """Embed texts in a role.

    A server gets the texts as ``spec`` writes them, the way its users must write them, unless its
    dialect names the role and writes them itself.
    """
    if isinstance(side, Embedder):
        return side.embed(texts, role).vectors
    if side.dialect != "cohere" and spec is not None:
        texts = [spec.render(text, role) for text in texts]
    return side.embed(texts, role)


@dataclass(frozen=True)
class Variant:
    """Another way to run a model's weights: a fault someone may have made. None is as stated."""

    attention: Attention | None = None
    pooling: Pooling | None = None
    bos: bool | None = None
    eos: bool | None = None
    prefix: str | None = None
    """Written before each text instead of the role's own."""
    max_tokens: int | None = None

    @property
    def changes(self) -> int:
        """How many things differ from the model as stated."""
        return sum(value is not None for value in vars(self).values())


def embed_variant(
    embedder: Embedder, texts: Sequence[str], role: Role, variant: Variant
) -> Vectors:
    """Embed texts with a model's weights, but the way ``variant`` says."""
    spec = embedder.spec
    prefix = spec.prefix(role) if variant.prefix is None else variant.prefix
    changed = replace(
        spec,
        attention=variant.attention or spec.attention,
        pooling=variant.pooling or spec.pooling,
        document_prefix=prefix,
        max_tokens=variant.max_tokens or spec.max_tokens,
    )
    ids = embedder.tokenizer.with_specials(variant.bos, variant.eos)
    return embedder.varied(changed, ids).embed(texts, "document").vectors
