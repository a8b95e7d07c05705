"""What a GGUF file's metadata says of the model: its shape and the facts of its spec."""

from typing import Any

from polyvec.errors import ModelFileError, SpecError
from polyvec.model.gguf_file import GgufFile
from polyvec.spec import Architecture, BertArchitecture, LlamaArchitecture, Rope

# GGUF architecture -> q/k norm. `llama-embed` is llama.cpp's name for a bidirectional Llama.
_ARCHITECTURES = {"llama": False, "llama-embed": False, "qwen2": False, "qwen3": True}

OWN_PREFIX = "polyvec."
OWN_FACTS: dict[str, type] = {
    "normalize": bool,
    "max_tokens": int,
    "query_prefix": str,
    "document_prefix": str,
    "default_instruction": str,
    "matryoshka_dimensions": list,
}
"""Facts of the spec that GGUF has no key for; polyvec's own files carry them under its prefix."""

# llama.cpp's enum llama_pooling_type; 0 is "none" and 4 is "rank".
_POOLING = {1: "mean", 2: "cls", 3: "last"}


def gguf_architecture(file: GgufFile) -> Architecture:
    """Read the network's shape.

    Raises:
        SpecError: The file is of an architecture, or uses scaling, that polyvec does not run.
        ModelFileError: A needed key is missing.
    """
    name = file.metadata.get("general.architecture")
    if name == "bert":
        return _bert(file)
    if str(name) not in _ARCHITECTURES:
        known = ", ".join((*_ARCHITECTURES, "bert"))
        raise SpecError(f"{file.path} is of architecture {name!r}; polyvec runs {known}.")
    return _llama(file, str(name))


def _llama(file: GgufFile, name: str) -> LlamaArchitecture:
    heads = _integer(file, "attention.head_count")
    hidden_size = _integer(file, "embedding_length")
    return LlamaArchitecture(
        model_type=name,
        hidden_size=hidden_size,
        num_layers=_integer(file, "block_count"),
        num_heads=heads,
        num_kv_heads=_integer(file, "attention.head_count_kv", heads),
        head_dim=_integer(file, "attention.key_length", hidden_size // max(heads, 1)),
        intermediate_size=_integer(file, "feed_forward_length"),
        vocab_size=_num_rows(file, "token_embd.weight", "token table"),
        norm_eps=_number(file, "attention.layer_norm_rms_epsilon", 1e-5),
        rope=_rope(file),
        max_positions=_integer(file, "context_length"),
        qk_norm=_ARCHITECTURES[name],
        sliding_window=_value(file, "attention.sliding_window", None),
    )


def _bert(file: GgufFile) -> BertArchitecture:
    """Read a BERT's shape. XLM-RoBERTa's too: its converter cuts the rows before its offset off."""
    return BertArchitecture(
        model_type="bert",
        hidden_size=_integer(file, "embedding_length"),
        num_layers=_integer(file, "block_count"),
        num_heads=_integer(file, "attention.head_count"),
        intermediate_size=_integer(file, "feed_forward_length"),
        vocab_size=_num_rows(file, "token_embd.weight", "token table"),
        norm_eps=_number(file, "attention.layer_norm_epsilon", 1e-12),
        num_positions=_integer(file, "context_length"),
        num_token_types=_num_rows(file, "token_types.weight", "table of token types"),
    )


def gguf_facts(file: GgufFile, architecture: Architecture) -> dict[str, Any]:
    """Read what the file states of its spec; a fact it does not state is left out.

    llama.cpp takes a missing ``attention.causal`` as causal, except that a ``llama-embed`` made by
    its own converter lacks the key although the model is bidirectional: there it is not stated.
    A ``bert`` is bidirectional whether it says so or not.
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
    elif isinstance(architecture, BertArchitecture):
        facts["attention"] = "bidirectional"
    elif pooling is not None and architecture.model_type != "llama-embed":
        facts["attention"] = "causal"
    return facts | _own_facts(file)


def _own_facts(file: GgufFile) -> dict[str, Any]:
    """Read the facts that a GGUF written by polyvec carries and GGUF has no key for."""
    facts: dict[str, Any] = {}
    for name, kind in OWN_FACTS.items():
        value = file.metadata.get(f"{OWN_PREFIX}{name}")
        if value is None:
            continue
        if type(value) is not kind:
            raise ModelFileError(
                f"{file.path}: key {OWN_PREFIX}{name} is {value!r}; a {kind.__name__} is needed."
            )
        facts[name] = tuple(value) if isinstance(value, list) else value
    return facts


def _rope(file: GgufFile) -> Rope:
    theta = _number(file, "rope.freq_base", 10000.0)
    kind = _value(file, "rope.scaling.type", "none")
    if kind == "none":
        return Rope(theta)
    if kind != "linear":
        raise SpecError(f"{file.path} has RoPE scaling {kind!r}; polyvec runs none and linear.")
    return Rope(theta, "linear", factor=_number(file, "rope.scaling.factor", 1.0))


def _num_rows(file: GgufFile, tensor: str, what: str) -> int:
    table = file.tensors.get(tensor)
    if table is None:
        raise ModelFileError(f"{file.path} has no {what} (tensor {tensor}).")
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
