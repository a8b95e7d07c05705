"""Which figures a model card may have, and what a right value of each is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date

Value = int | str | date | tuple[int, ...]
"""What a card states of a model."""

COMMERCIAL = ("yes", "no", "with conditions")
ATTENTION = ("bidirectional", "causal")
POOLING = ("mean", "last", "cls", "latent attention")
WEIGHTS = ("open", "closed")
NETWORKS = ("llama", "mistral", "qwen2", "qwen3", "bert", "roberta", "xlm-roberta", "gemma3")


@dataclass(frozen=True)
class Kind:
    """One figure of a card."""

    label: str
    """Its name for people."""
    allowed: str
    """What a value has to be, for an error message."""
    read: Callable[[object], Value | None]
    """A TOML value to ours; None if it is not an allowed one."""


def _whole(value: object) -> int | None:
    return value if type(value) is int and value > 0 else None


def _wholes(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, list) or not value or any(_whole(x) is None for x in value):
        return None
    return tuple(value) if value == sorted(set(value)) else None


def _words(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip() == value != "" else None


def _day(value: object) -> date | None:
    return value if type(value) is date else None


def _number(label: str) -> Kind:
    return Kind(label, "a whole number above 0", _whole)


def _text(label: str) -> Kind:
    return Kind(label, "words", _words)


def _one_of(label: str, *choices: str) -> Kind:
    def read(value: object) -> str | None:
        return value if isinstance(value, str) and value in choices else None

    return Kind(label, "one of " + ", ".join(choices), read)


KINDS: Mapping[str, Kind] = {
    "parameters": _number("parameters"),
    "dimension": _number("dimensions"),
    "matryoshka": Kind("may be cut to", "growing whole numbers above 0", _wholes),
    "context_tokens": _number("longest text, in tokens"),
    "languages": _number("languages"),
    "licence": _text("licence"),
    "commercial_use": _one_of("commercial use", *COMMERCIAL),
    "released": Kind("released", "a date such as 2025-06-05", _day),
    "base_model": _text("made from"),
    "weights": _one_of("weights", *WEIGHTS),
    "network": _one_of("network", *NETWORKS),
    "attention": _one_of("attention", *ATTENTION),
    "pooling": _one_of("pooling", *POOLING),
    "layers": _number("layers"),
    "width": _number("width"),
    "ffn": _number("feed-forward width"),
    "heads": _number("heads"),
    "kv_heads": _number("key and value heads"),
    "head_dim": _number("width of a head"),
    "vocab": _number("vocabulary"),
}
"""Every figure a card may have, in the order in which it is shown."""

TASK_TYPES = (
    "BitextMining",
    "Classification",
    "Clustering",
    "InstructionReranking",
    "MultilabelClassification",
    "PairClassification",
    "Reranking",
    "Retrieval",
    "STS",
)
"""The types of MMTEB's tasks."""
