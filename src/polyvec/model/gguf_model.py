"""What a GGUF file's metadata says of the model: its shape and the facts of its spec."""

from typing import Any

from polyvec.errors import ModelFileError, SpecError
from polyvec.model.gguf_file import GgufFile
from polyvec.spec import Architecture, Rope

# GGUF architecture -> q/k norm. `llama-embed` is llama.cpp's name for a bidirectional Llama.
_ARCHITECTURES = {"llama": False, "llama-embed": False, "qwen2": False, "qwen3": True}

# llama.cpp's enum llama_pooling_type; 0 is "none" and 4 is "rank".
_POOLING = {1: "mean", 2: "cls", 3: "last"}


def gguf_architecture(file: GgufFile) -> Architecture:
    """Read the network's shape.

    Raises:
        SpecError: The file is of an architecture, or uses scaling, that polyvec does not run.
        ModelFileError: A needed key is missing.
    """
    name = file.metadata.get("general.architecture")
    if str(name) not in _ARCHITECTURES:
        raise SpecError(
            f"{file.path} is of architecture {name!r}; polyvec runs {', '.join(_ARCHITECTURES)}."
        )
    heads = _integer(file, "attention.head_count")
    hidden_size = _integer(file, "embedding_length")
    return Architecture(
        model_type=str(name),
        hidden_size=hidden_size,
        num_layers=_integer(file, "block_count"),
        num_heads=heads,
        num_kv_heads=_integer(file, "attention.head_count_kv", heads),
        head_dim=_integer(file, "attention.key_length", hidden_size // max(heads, 1)),
        intermediate_size=_integer(file, "feed_forward_length"),
        vocab_size=_vocab_size(file),
        norm_eps=_number(file, "attention.layer_norm_rms_epsilon", 1e-5),
        rope=_rope(file),
        max_positions=_integer(file, "context_length"),
        qk_norm=_ARCHITECTURES[str(name)],
        sliding_window=_value(file, "attention.sliding_window", None),
    )


def gguf_facts(file: GgufFile, architecture: Architecture) -> dict[str, Any]:
    """Read what the file states of its spec; a fact it does not state is left out.

    llama.cpp takes a missing ``attention.causal`` as causal, except that a ``llama-embed`` made by
    its own converter lacks the key although the model is bidirectional: there it is not stated.
    """
    facts: dict[str, Any] = {
        "normalize": True,
        "dimension": architecture.hidden_size,
        "max_tokens": architecture.max_positions,
        "query_prefix": "",
        "document_prefix": "",
        "default_instruction": "",
    }
    pooling = _POOLING.get(_integer(file, "pooling_type", 0))
    if pooling is not None:
        facts["pooling"] = pooling
    causal = _value(file, "attention.causal", None)
    if causal is not None:
        facts["attention"] = "causal" if causal else "bidirectional"
    elif pooling is not None and architecture.model_type != "llama-embed":
        facts["attention"] = "causal"
    return facts


def _rope(file: GgufFile) -> Rope:
    theta = _number(file, "rope.freq_base", 10000.0)
    kind = _value(file, "rope.scaling.type", "none")
    if kind == "none":
        return Rope(theta)
    if kind != "linear":
        raise SpecError(f"{file.path} has RoPE scaling {kind!r}; polyvec runs none and linear.")
    return Rope(theta, "linear", factor=_number(file, "rope.scaling.factor", 1.0))


def _vocab_size(file: GgufFile) -> int:
    table = file.tensors.get("token_embd.weight")
    if table is None:
        raise ModelFileError(f"{file.path} has no token table (tensor token_embd.weight).")
    return table.shape[0]


def _value(file: GgufFile, key: str, default: Any) -> Any:  # noqa: ANN401 (metadata is untyped)
    return file.metadata.get(f"{file.metadata['general.architecture']}.{key}", default)


def _integer(file: GgufFile, key: str, default: int | None = None) -> int:
    value = _value(file, key, default)
    if not isinstance(value, int):
        raise ModelFileError(
            f"{file.path}: key {file.metadata['general.architecture']}.{key} is {value!r}; a whole "
            "number is needed."
        )
    return value


def _number(file: GgufFile, key: str, default: float) -> float:
    value = _value(file, key, default)
    if not isinstance(value, int | float):
        raise ModelFileError(
            f"{file.path}: key {file.metadata['general.architecture']}.{key} is {value!r}; a "
            "number is needed."
        )
    return float(value)
