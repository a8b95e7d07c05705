"""Small BERTs, RoBERTas and XLM-RoBERTas, their tokenizers and GGUF files, built in code.

Like :mod:`tests.tiny`, a model has random gains and biases, so that a path which forgets one is
seen; here every vector of a LayerNorm too.
"""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
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

from tests.tiny import WORDS, Json, write_model, write_transformer
from tests.tiny_gguf import write_raw_gguf

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PIECES = ("<s>", "<pad>", "</s>", "<unk>")
TEXTS = [
    "the quick brown fox",
    "búsqueda 2024",
    "敏捷的棕色狐狸跳过懒狗 over the lazy dog " * 2,
    "a",
    "  THE  Quick\tbrown\nfox  ",
    "быстрая лиса прыгает 😀 कुत्ता",
    "an unknown 𝕩 and [MASK] <s>",
]


# --- Tokenizers -------------------------------------------------------------------------------


@functools.cache
def _trained_wordpiece(lowercase: bool) -> str:
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=list(SPECIALS), show_progress=False
    )
    backend.train_from_iterator(WORDS, trainer)
    return backend.to_str()


def wordpiece(lowercase: bool = True) -> Tokenizer:
    """Return BERT's kind of tokenizer, [CLS] before and [SEP] after a text."""
    backend = Tokenizer.from_str(_trained_wordpiece(lowercase))
    return _framed(backend, "[CLS]", "[SEP]")


def unigram() -> Tokenizer:
    """Return XLM-RoBERTa's kind of tokenizer, <s> before and </s> after a text."""
    backend = Tokenizer(models.Unigram(unigram_pieces(), unk_id=3, byte_fallback=False))
    steps = [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    backend.normalizer = normalizers.Sequence(steps)
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.add_special_tokens(list(PIECES))
    return _framed(backend, "<s>", "</s>")


def official_unigram() -> Tokenizer:
    """Return :func:`unigram` as XLM-RoBERTa's own ``tokenizer.json`` says it."""
    backend = unigram()
    backend.normalizer = normalizers.Precompiled(charsmap())
    splits = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    backend.pre_tokenizer = pre_tokenizers.Sequence(splits)
    return backend


def charsmap() -> bytes:
    """Return a table of characters for SentencePiece in which tab and line end are spaces.

    A size, a double array (github.com/s-yata/darts-clone: label, leaf flag and offset in a unit)
    and the texts that its leaves point to.
    """
    units = np.zeros(512, np.uint32)
    for character in b"\t\n":
        units[character] = character | 1 << 8 | 256 << 10
        units[character ^ 256] = 1 << 31  # the text at 0
    return np.uint32(units.nbytes).tobytes() + units.tobytes() + b" \0"


def unigram_pieces() -> list[tuple[str, float]]:
    """Return (piece, score): every letter, a few starts of words, the words themselves."""
    words = sorted({f"▁{word}" for line in WORDS for word in line.split()})
    letters = sorted(set("".join(words)))
    starts = sorted({word[:4] for word in words} - set(words) - set(letters))
    scored = [(piece, -2.0 - 0.01 * i) for i, piece in enumerate(words)]
    scored += [(piece, -4.0 - 0.01 * i) for i, piece in enumerate(starts)]
    scored += [(piece, -6.0 - 0.01 * i) for i, piece in enumerate(letters)]
    return [(piece, 0.0) for piece in PIECES] + scored


def _framed(backend: Tokenizer, before: str, after: str) -> Tokenizer:
    ids = [(token, backend.token_to_id(token)) for token in (before, after)]
    backend.post_processor = processors.TemplateProcessing(
        single=[before, "$A", after], special_tokens=ids
    )
    return backend


# --- Models -----------------------------------------------------------------------------------


def tokenizer_of(model_type: str) -> Tokenizer:
    """Return the kind of tokenizer a model has."""
    return wordpiece() if model_type == "bert" else unigram()


def bert_shape(model_type: str = "bert", **changes: Any) -> Json:
    """Return the ``config.json`` of a small encoder; a change of None takes the key out."""
    roberta = model_type != "bert"
    config = {
        "model_type": model_type,
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "intermediate_size": 72,
        "vocab_size": tokenizer_of(model_type).get_vocab_size(),
        "max_position_embeddings": 66 if roberta else 64,
        "type_vocab_size": 1 if roberta else 2,
        "layer_norm_eps": 1e-5 if roberta else 1e-12,
        "hidden_act": "gelu",
        "pad_token_id": 1 if roberta else 0,
    } | changes
    return {key: value for key, value in config.items() if value is not None}


def bert_weights(config: Json, seed: int = 0) -> dict[str, Tensor]:
    """Return random tensors under the names a bare transformers model saves."""
    random = torch.Generator().manual_seed(seed)
    hidden, width = config["hidden_size"], config["intermediate_size"]
    tensors: dict[str, Tensor] = {}

    def matrix(name: str, rows: int, columns: int, scale: float = 0.2) -> None:
        tensors[f"{name}.weight"] = torch.randn((rows, columns), generator=random) * scale

    def linear(name: str, rows: int, columns: int) -> None:
        matrix(name, rows, columns)
        tensors[f"{name}.bias"] = torch.randn(rows, generator=random) * 0.2

    def norm(name: str) -> None:
        tensors[f"{name}.weight"] = 0.5 + torch.rand(hidden, generator=random)
        tensors[f"{name}.bias"] = torch.randn(hidden, generator=random) * 0.2

    matrix("embeddings.word_embeddings", config["vocab_size"], hidden, 1.0)
    matrix("embeddings.position_embeddings", config["max_position_embeddings"], hidden, 0.7)
    matrix("embeddings.token_type_embeddings", config["type_vocab_size"], hidden, 0.7)
    norm("embeddings.LayerNorm")
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        for name in ("query", "key", "value"):
            linear(f"{layer}.attention.self.{name}", hidden, hidden)
        linear(f"{layer}.attention.output.dense", hidden, hidden)
        norm(f"{layer}.attention.output.LayerNorm")
        linear(f"{layer}.intermediate.dense", width, hidden)
        linear(f"{layer}.output.dense", hidden, width)
        norm(f"{layer}.output.LayerNorm")
    return tensors


def write_bert(
    folder: Path, config: Json | None = None, tensors: Mapping[str, Tensor] | None = None
) -> Path:
    """Write a plain transformers folder: no word about pooling."""
    config = config or bert_shape()
    return write_transformer(folder, config, **_parts(config, tensors))


def write_bert_model(
    folder: Path,
    config: Json | None = None,
    pooling: str = "mean",
    tensors: Mapping[str, Tensor] | None = None,
    normalize: bool = True,
) -> Path:
    """Write a sentence-transformers folder."""
    config = config or bert_shape()
    return write_model(folder, config, pooling, normalize=normalize, **_parts(config, tensors))


def _parts(config: Json, tensors: Mapping[str, Tensor] | None) -> dict[str, Any]:
    names = ("[PAD]", "[CLS]", "[SEP]") if config["model_type"] == "bert" else PIECES
    return {
        "tokenizer": tokenizer_of(config["model_type"]),
        "tensors": tensors or bert_weights(config),
        "tokenizer_config": {"pad_token": names[0] if config["model_type"] == "bert" else "<pad>"},
    }


# --- GGUF -------------------------------------------------------------------------------------

_GGUF_NAMES = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


def gguf_arrays(config: Json, tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Return tensors under llama.cpp's names; its converter cuts RoBERTa's unused positions."""
    arrays = {_gguf_name(name): tensor.numpy() for name, tensor in tensors.items()}
    arrays["position_embd.weight"] = arrays["position_embd.weight"][_unused_positions(config) :]
    return arrays


def _unused_positions(config: Json) -> int:
    return 0 if config["model_type"] == "bert" else int(config["pad_token_id"]) + 1


def _gguf_name(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    if stem.startswith("encoder.layer."):
        number, _, rest = stem.removeprefix("encoder.layer.").partition(".")
        return f"blk.{number}.{_GGUF_NAMES[rest]}.{kind}"
    return f"{_GGUF_NAMES[stem]}.{kind}"


def bert_metadata(config: Json, **changes: Any) -> Json:
    """Return a model's keys, as llama.cpp's converter names them, mean-pooled."""
    metadata = {
        "context_length": config["max_position_embeddings"] - _unused_positions(config),
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "block_count": config["num_hidden_layers"],
        "attention.head_count": config["num_attention_heads"],
        "attention.layer_norm_epsilon": config["layer_norm_eps"],
        "attention.causal": False,
        "pooling_type": 1,
    } | changes
    return {f"bert.{key}": value for key, value in metadata.items() if value is not None}


def wordpiece_metadata(lowercase: bool = True, **changes: Any) -> Json:
    """Return the small WordPiece vocabulary as GGUF metadata, in llama.cpp's spelling."""
    vocabulary = wordpiece(lowercase).get_vocab()
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    metadata = {
        "model": "bert",
        "tokens": [_phantom_space(token) for token in tokens],
        "token_type": [3 if token in SPECIALS else 1 for token in tokens],
        "token_type_count": 2,
        "padding_token_id": 0,
        "unknown_token_id": 1,
        "cls_token_id": 2,
        "seperator_token_id": 3,
        "mask_token_id": 4,
    } | changes
    return {f"tokenizer.ggml.{k}": value for k, value in metadata.items() if value is not None}


def _phantom_space(token: str) -> str:
    if token.startswith("[") and token.endswith("]"):
        return token
    return token[2:] if token.startswith("##") else f"▁{token}"


def unigram_metadata(**changes: Any) -> Json:
    """Return the small Unigram vocabulary as GGUF metadata, without a table of characters."""
    pieces, scores = zip(*unigram_pieces(), strict=True)
    metadata = {
        "model": "t5",
        "tokens": list(pieces),
        "scores": list(scores),
        "token_type": [{"<unk>": 2}.get(p, 3) if p in PIECES else 1 for p in pieces],
        "add_space_prefix": True,
        "remove_extra_whitespaces": True,
        "add_bos_token": True,
        "add_eos_token": True,
        "bos_token_id": 0,
        "padding_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 3,
    } | changes
    return {f"tokenizer.ggml.{k}": value for k, value in metadata.items() if value is not None}


def write_bert_gguf(
    path: Path,
    config: Json | None = None,
    tensors: Mapping[str, Tensor] | None = None,
    metadata: Mapping[str, Any] | None = None,
    tokenizer: Mapping[str, Any] | None = None,
) -> Path:
    """Write a float32 GGUF of a model."""
    config = config or bert_shape()
    arrays = gguf_arrays(config, tensors or bert_weights(config))
    keys = bert_metadata(config) if metadata is None else metadata
    if tokenizer is None:
        bert = config["model_type"] == "bert"
        tokenizer = wordpiece_metadata() if bert else unigram_metadata()
    return write_raw_gguf(path, "bert", {**keys, **tokenizer}, arrays)


def edit_tokenizer(folder: Path, **changes: Any) -> None:
    """Change keys of a folder's ``tokenizer.json``."""
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes, ensure_ascii=False))
