"""Small GGUF files, written with the ``gguf`` package in llama.cpp's names and row order."""

import functools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tokenizers import Tokenizer
from torch import Tensor

from tests.tiny import BOS, EOS, PAD, WORDS, Json, byte_bpe, head_dim, shape, weights

_GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def gguf_name(name: str) -> str:
    """Return llama.cpp's name of a transformers tensor."""
    if not name.startswith("layers."):
        return name.replace("embed_tokens", "token_embd").replace("norm", "output_norm")
    _, number, rest = name.split(".", 2)
    stem, _, kind = rest.rpartition(".")
    return f"blk.{number}.{_GGUF_NAMES[stem]}.{kind}"


def interleave(rows: np.ndarray, heads: int) -> np.ndarray:
    """Reorder q or k rows as llama.cpp's converter does (``LlamaModel.permute``)."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def rope_factors(config: Json) -> np.ndarray:
    """Return the ``rope_freqs`` tensor llama.cpp's converter writes for llama3 scaling."""
    scaling, factors = config["rope_scaling"], []
    old = scaling["original_max_position_embeddings"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    for i in range(0, head_dim(config), 2):
        wavelength = 2 * math.pi * config["rope_theta"] ** (i / head_dim(config))
        if wavelength < old / high:
            factors.append(1.0)
        elif wavelength > old / low:
            factors.append(scaling["factor"])
        else:
            smooth = (old / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / scaling["factor"] + smooth))
    return np.array(factors, dtype=np.float32)


def bpe_metadata(tokenizer: Tokenizer, pre: str = "gpt-2") -> Json:
    """Return a byte-level BPE tokenizer as GGUF metadata."""
    vocabulary = tokenizer.get_vocab()
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in (PAD, BOS, EOS) else 1 for token in tokens],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in merges],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
    }


def gguf_metadata(
    config: Json, arch: str = "llama", changes: Mapping[str, Any] | None = None
) -> Json:
    """Return a model's keys, as llama.cpp's converter names them: mean-pooled, bidirectional.

    ``changes`` are keys without the architecture's name; None takes a key out.
    """
    metadata = {
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": head_dim(config),
        "feed_forward_length": config["intermediate_size"],
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "context_length": config["max_position_embeddings"],
        "rope.freq_base": config["rope_theta"],
        "attention.causal": False,
        "pooling_type": 1,
    } | dict(changes or {})
    return {f"{arch}.{key}": value for key, value in metadata.items() if value is not None}


def write_gguf(
    path: Path,
    config: Json | None = None,
    tensors: Mapping[str, Tensor] | None = None,
    metadata: Mapping[str, Any] | None = None,
    tokenizer: Mapping[str, Any] | None = None,
    arch: str = "llama",
    extra: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write a float32 GGUF of a model, its rows in llama.cpp's order."""
    config = config or shape()
    arrays = {
        gguf_name(name): _llama_cpp_order(name, tensor.numpy(), config, arch)
        for name, tensor in (tensors or weights(config)).items()
    }
    keys = gguf_metadata(config, arch) if metadata is None else metadata
    names = bpe_metadata(byte_bpe()) if tokenizer is None else tokenizer
    return write_raw_gguf(path, arch, {**keys, **names}, {**arrays, **(extra or {})})


def _llama_cpp_order(name: str, rows: np.ndarray, config: Json, arch: str) -> np.ndarray:
    if arch not in ("llama", "llama-embed"):
        return rows
    for projection, heads in (("q_proj", "attention_heads"), ("k_proj", "key_value_heads")):
        if projection in name:
            return interleave(rows, config[f"num_{heads}"])
    return rows


def write_raw_gguf(
    path: Path, arch: str, metadata: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> Path:
    """Write a GGUF with the ``gguf`` package."""
    writer = gguf.GGUFWriter(path, arch)
    for key, value in metadata.items():
        _add(writer, key, value)
    for name, array in arrays.items():
        writer.add_tensor(name, np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_string(key, value)


# --- SentencePiece ----------------------------------------------------------------------------


@functools.cache
def sentencepiece_pieces() -> tuple[tuple[str, float, int], ...]:
    """Return (piece, score, token type) of a small SentencePiece BPE vocabulary."""
    pieces: list[tuple[str, float, int]] = [("<unk>", 0.0, 2), (BOS, 0.0, 3), (EOS, 0.0, 3)]
    pieces += [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
    text = "▁".join(("", *WORDS[:3])).replace(" ", "▁")
    merged = _most_frequent_pairs(text.split("▁"), 140)
    ranked = [*merged, *sorted(set(text))]
    return tuple(pieces + [(piece, -float(rank), 1) for rank, piece in enumerate(ranked)])


def _most_frequent_pairs(words: Iterable[str], count: int) -> list[str]:
    """Train BPE the slow way: merge the most frequent neighbours, ``count`` times."""
    split = [["▁", *word] for word in words if word]
    merged: list[str] = []
    while len(merged) < count:
        pairs: dict[tuple[str, str], int] = {}
        for parts in split:
            for pair in pairwise(parts):
                pairs[pair] = pairs.get(pair, 0) + 1
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        split = [_merge(parts, best) for parts in split]
        if "".join(best) not in merged:
            merged.append("".join(best))
    return merged


def _merge(parts: Sequence[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for part in parts:
        if merged and (merged[-1], part) == pair:
            merged[-1] += part
        else:
            merged.append(part)
    return merged


def sentencepiece_ids(text: str) -> list[int]:
    """Tokenize as SentencePiece does: merge the best-scored neighbours, leftmost first."""
    scores = {piece: score for piece, score, kind in sentencepiece_pieces() if kind == 1}
    numbers = {piece: number for number, (piece, _, _) in enumerate(sentencepiece_pieces())}
    symbols = list("▁" + text.replace(" ", "▁"))
    while True:
        pairs = [
            (-scores[left + right], place)
            for place, (left, right) in enumerate(pairwise(symbols))
            if left + right in scores
        ]
        if not pairs:
            break
        _, place = min(pairs)
        symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]
    ids: list[int] = []
    for symbol in symbols:
        spelled = [f"<0x{byte:02X}>" for byte in symbol.encode()]
        ids += [numbers[s] for s in ([symbol] if symbol in scores else spelled)]
    return ids


def sentencepiece_metadata(**changes: Any) -> Json:
    """Return the small SentencePiece vocabulary as GGUF metadata."""
    pieces, scores, kinds = zip(*sentencepiece_pieces(), strict=True)
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": list(pieces),
        "tokenizer.ggml.scores": list(scores),
        "tokenizer.ggml.token_type": list(kinds),
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    } | {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    return {key: value for key, value in metadata.items() if value is not None}
