"""Small models, tokenizers and files, built in code: nothing is read from disk or the network.

A model here has random norm gains and biases, so that a path which forgets one is seen.
"""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch import Tensor

Json = dict[str, Any]

WORDS = (
    "the quick brown fox jumps over the lazy dog while embedding vectors of texts",
    "el zorro marrón salta sobre el perro perezoso y la búsqueda encuentra documentos",
    "быстрая лиса прыгает через ленивую собаку",
    "敏捷的棕色狐狸跳过懒狗",
    "कुत्ता आलसी है और लोमड़ी तेज़ है",
    "the search finds passages that answer the question 2024 1999",
    "Instruct: Query: query: passage: document",
)
BOS, EOS, PAD = "<s>", "</s>", "<pad>"


@functools.cache
def _trained_bpe() -> str:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(WORDS, trainer)
    return backend.to_str()


def byte_bpe(bos: bool = False, eos: bool = False) -> Tokenizer:
    """Return a byte-level BPE tokenizer whose post-processor adds what is asked for."""
    backend = Tokenizer.from_str(_trained_bpe())
    before, after = [BOS] * bos, [EOS] * eos
    if before or after:
        backend.post_processor = processors.TemplateProcessing(
            single=[*before, "$A", *after],
            special_tokens=[(token, backend.token_to_id(token)) for token in (*before, *after)],
        )
    return backend


def byte_bpe_like(pre: str, eos: bool = False) -> Tokenizer:
    """Return :func:`byte_bpe` with the splitting rules of a model's own ``tokenizer.json``.

    ``smollm`` is SmolLM2's, ``llama-bpe`` Llama 3's, ``qwen2`` Qwen2's and Qwen3's.
    """
    backend = byte_bpe(eos=eos)
    letters = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
    digits = {"llama-bpe": r"\p{N}{1,3}", "qwen2": r"\p{N}"}.get(pre, "")
    rest = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    first: Any = pre_tokenizers.Split(Regex(f"{letters}|{digits}|{rest}"), "isolated")
    if pre == "smollm":
        first = pre_tokenizers.Digits(individual_digits=True)
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre == "smollm")
    backend.pre_tokenizer = pre_tokenizers.Sequence([first, last])
    if pre == "qwen2":
        backend.normalizer = normalizers.NFC()
    return backend


VOCAB_SIZE: int = byte_bpe().get_vocab_size()


def shape(model_type: str = "llama", **changes: Any) -> Json:
    """Return the ``config.json`` of a small model; a change of None takes the key out."""
    config = {
        "model_type": model_type,
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "intermediate_size": 72,
        "vocab_size": VOCAB_SIZE,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        # transformers' own defaults are ids beyond this vocabulary
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if model_type == "mistral":
        config["sliding_window"] = None
    if model_type == "qwen3":
        config["head_dim"] = 12  # not hidden / heads, as in the real ones
    config |= changes
    keep_none = {"sliding_window"}
    return {k: v for k, v in config.items() if v is not None or k in keep_none}


def llama3_scaling(original: int = 16, factor: float = 8.0) -> Json:
    """Return a llama3 ``rope_scaling`` that changes short texts too."""
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": original,
    }


def weights(config: Json, seed: int = 0) -> dict[str, Tensor]:
    """Return random tensors under the names a bare transformers model saves."""
    random = torch.Generator().manual_seed(seed)

    def matrix(*size: int) -> Tensor:
        return torch.randn(size, generator=random) * 0.2

    def gain(size: int) -> Tensor:
        return 0.5 + torch.rand(size, generator=random)

    hidden = config["hidden_size"]
    tensors = {"embed_tokens.weight": matrix(config["vocab_size"], hidden) * 5}
    for number in range(config["num_hidden_layers"]):
        for name, (rows, columns) in _projections(config).items():
            tensors[f"layers.{number}.{name}.weight"] = matrix(rows, columns)
            if _has_bias(config, name):
                tensors[f"layers.{number}.{name}.bias"] = matrix(rows)
        for name, size in _norms(config).items():
            tensors[f"layers.{number}.{name}.weight"] = gain(size)
    tensors["norm.weight"] = gain(hidden)
    return tensors


def head_dim(config: Json) -> int:
    """Return the size of a head."""
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def _projections(config: Json) -> dict[str, tuple[int, int]]:
    hidden, width, size = config["hidden_size"], config["intermediate_size"], head_dim(config)
    queries, keys = config["num_attention_heads"] * size, config["num_key_value_heads"] * size
    return {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (width, hidden),
        "mlp.up_proj": (width, hidden),
        "mlp.down_proj": (hidden, width),
    }


def _norms(config: Json) -> dict[str, int]:
    norms = {
        "input_layernorm": config["hidden_size"],
        "post_attention_layernorm": config["hidden_size"],
    }
    if config["model_type"] == "qwen3":
        norms |= {"self_attn.q_norm": head_dim(config), "self_attn.k_norm": head_dim(config)}
    return norms


def _has_bias(config: Json, name: str) -> bool:
    if name.startswith("mlp."):
        return bool(config.get("mlp_bias"))
    qwen2 = config["model_type"] == "qwen2" and not name.endswith("o_proj")
    return qwen2 or bool(config.get("attention_bias"))


def write_json(path: Path, value: object) -> None:
    """Write JSON, making the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False))


def edit_json(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None takes a key out."""
    value = json.loads(path.read_text()) | changes
    write_json(path, {k: v for k, v in value.items() if v is not None})


def write_transformer(
    folder: Path,
    config: Json | None = None,
    tokenizer: Tokenizer | None = None,
    tensors: Mapping[str, Tensor] | None = None,
    tokenizer_config: Json | None = None,
) -> Path:
    """Write a plain transformers folder: no word about pooling, no prompts."""
    config = config or shape()
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    save_file(dict(tensors or weights(config)), folder / "model.safetensors", {"format": "pt"})
    (tokenizer or byte_bpe()).save(str(folder / "tokenizer.json"))
    defaults = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": PAD}
    write_json(folder / "tokenizer_config.json", defaults | (tokenizer_config or {}))
    return folder


def write_model(
    folder: Path,
    config: Json | None = None,
    pooling: str = "mean",
    prompts: Mapping[str, str] | None = None,
    normalize: bool = True,
    **transformer: Any,
) -> Path:
    """Write a sentence-transformers folder, bidirectional unless ``config`` says otherwise."""
    config = config or shape(is_causal=False)
    write_transformer(folder, config, **transformer)
    kinds = {"": "Transformer", "1_Pooling": "Pooling"} | (
        {"2_N": "Normalize"} if normalize else {}
    )
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    write_json(folder / "modules.json", modules)
    pooled = {"embedding_dimension": config["hidden_size"], "pooling_mode": pooling}
    write_json(folder / "1_Pooling" / "config.json", pooled)
    write_json(folder / "config_sentence_transformers.json", {"prompts": dict(prompts or {})})
    return folder
