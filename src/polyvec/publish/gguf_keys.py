"""What a GGUF says of a model, beside its tokenizer: the way back of ``model.gguf_model``.

Keys and values are those of llama.cpp's converter (ggml-org/llama.cpp, conversion/), and every one
that llama.cpp's default would get wrong is said: attention, pooling, RoPE. Ollama takes a file that
has ``{arch}.pooling_type`` as an embedding model (ollama/ollama, server/images.go,
``ggufCapabilities``; llm/llama_server.go, ``NewLlamaServerRunner``).
"""

from typing import Any

from polyvec.model.files import ModelFiles
from polyvec.model.gguf_model import OWN_FACTS, OWN_PREFIX
from polyvec.publish.mixture import FileType
from polyvec.publish.vocabulary import tokenizer_metadata
from polyvec.spec import Architecture, BertArchitecture, LlamaArchitecture

_QUANTIZATION_VERSION = 2
_POOLING = {"mean": 1, "cls": 2, "last": 3}  # llama.cpp's enum llama_pooling_type
_LLAMAS = ("llama", "llama-embed", "llama_bidirec", "mistral")

Json = dict[str, Any]


def gguf_arch(files: ModelFiles) -> str:
    """Return llama.cpp's architecture for a model: a bidirectional Llama is a ``llama-embed``.

    That one keeps no cache of keys and values, which a text read once has no use for. RoBERTa and
    XLM-RoBERTa are a ``bert`` there.
    """
    shape = files.architecture
    if isinstance(shape, BertArchitecture):
        return "bert"
    if shape.model_type not in _LLAMAS:
        return shape.model_type
    return "llama-embed" if files.spec.attention == "bidirectional" else "llama"


def gguf_metadata(files: ModelFiles, file_type: FileType) -> Json:
    """Return every key of a model's GGUF and its value.

    What GGUF has no key for is under ``polyvec.``, so that the file has its source's spec.

    Raises:
        SpecError: The tokenizer does something that GGUF or polyvec has no words for.
    """
    shape, spec, arch = files.architecture, files.spec, gguf_arch(files)
    limit = context_length(shape)
    own = {name: getattr(spec, name) for name in OWN_FACTS}
    own["max_tokens"] = min(spec.max_tokens, limit)
    keys = {
        "vocab_size": shape.vocab_size,
        "context_length": limit,
        "embedding_length": shape.hidden_size,
        "block_count": shape.num_layers,
        "feed_forward_length": shape.intermediate_size,
        "attention.head_count": shape.num_heads,
        "attention.causal": spec.attention == "causal",
        "pooling_type": _POOLING[spec.pooling],
    } | _family_keys(shape)
    return {
        "general.type": "model",
        "general.name": files.path.stem if files.path.is_file() else files.path.name,
        "general.file_type": file_type.number,
        "general.quantization_version": _QUANTIZATION_VERSION,
        **{f"{arch}.{key}": value for key, value in keys.items()},
        **_token_types(shape),
        **tokenizer_metadata(files.tokenizer, shape.vocab_size),
        **{f"{OWN_PREFIX}{name}": value for name, value in own.items()},
    }


def _family_keys(shape: Architecture) -> Json:
    if isinstance(shape, BertArchitecture):
        return {"attention.layer_norm_epsilon": shape.norm_eps}
    keys: Json = {
        "attention.head_count_kv": shape.num_kv_heads,
        "attention.key_length": shape.head_dim,
        "attention.value_length": shape.head_dim,
        "attention.layer_norm_rms_epsilon": shape.norm_eps,
        "rope.dimension_count": shape.head_dim,
        "rope.freq_base": shape.rope.theta,
    }
    if shape.rope.kind == "linear":
        keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": shape.rope.factor}
    return keys


def _token_types(shape: Architecture) -> Json:
    """llama.cpp refuses a ``bert`` that does not say how many kinds of sentence it tells apart."""
    if isinstance(shape, LlamaArchitecture):
        return {}
    return {"tokenizer.ggml.token_type_count": shape.num_token_types}


def context_length(shape: Architecture) -> int:
    """Return how many tokens are read.

    llama.cpp's Llama has no sliding window; within the window a text is the same with and without
    one, so it is the limit. A BERT's learned positions must be exactly as many as this says.
    """
    if isinstance(shape, BertArchitecture):
        return shape.max_positions
    return min(shape.max_positions, shape.sliding_window or shape.max_positions)
