"""A model to a GGUF that llama.cpp and Ollama run right with no flag.

What their defaults would get wrong is said in the file: attention, pooling, BOS and EOS, how text
is split, RoPE's factors. What GGUF has no key for is under ``polyvec.``, so that polyvec finds the
same spec in the file as in its source. Tensors pass through memory some rows at a time.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.gguf_writer import GGUFWriter
from torch import Tensor

from polyvec.errors import PolyvecError, SpecError
from polyvec.model.files import ModelFiles
from polyvec.model.gguf_model import OWN_FACTS, OWN_PREFIX
from polyvec.model.llama import inverse_frequencies
from polyvec.model.weights import gguf_name, pairs_from_halves, row_blocks
from polyvec.publish.kquants import quantize
from polyvec.publish.mixture import FILE_TYPES, FileType, tensor_type
from polyvec.publish.vocabulary import tokenizer_metadata
from polyvec.spec import LlamaArchitecture, Rope

_T = GGMLQuantizationType
_QUANTIZATION_VERSION = 2
_POOLING = {"mean": 1, "cls": 2, "last": 3}  # llama.cpp's enum llama_pooling_type
_LLAMAS = ("llama", "llama-embed", "llama_bidirec", "mistral")
_ROPE_FACTORS = "rope_freqs.weight"

Json = dict[str, Any]


@dataclass(frozen=True)
class _Entry:
    """A tensor of the file to be."""

    name: str
    source: str
    """Its name in the model; the RoPE factors may have none."""
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    heads: int | None
    """Heads whose rows llama.cpp wants in pairs."""

    @property
    def num_bytes(self) -> int:
        size, width = GGML_QUANT_SIZES[self.kind]
        return prod(self.shape) // size * width


def write_gguf(files: ModelFiles, path: Path, type_name: str) -> Counter[str]:
    """Write a model as a GGUF.

    Args:
        files: The model, of the Llama family.
        path: The file to make.
        type_name: One of :data:`polyvec.publish.mixture.FILE_TYPES`.

    Returns:
        How many tensors have which type.

    Raises:
        SpecError: The model is of a kind, or has a tokenizer, that this cannot be done with.
        ModelFileError: A weight is not a number.
        OutputError: A weight does not fit the type.
    """
    shape, file_type = files.architecture, FILE_TYPES[type_name]
    if not isinstance(shape, LlamaArchitecture):
        raise SpecError(
            f"{files.path} is of type {shape.model_type}; polyvec writes GGUF of the Llama family "
            "(llama, mistral, qwen2, qwen3). Export it to a folder."
        )
    arch = gguf_arch(files, shape)
    entries = list(_entries(files, shape, arch, file_type))
    writer = GGUFWriter(path, arch)
    for key, value in _metadata(files, shape, arch, file_type).items():
        _add(writer, key, value)
    for entry in entries:
        writer.add_tensor_info(
            entry.name, entry.shape, np.dtype(np.float32), entry.num_bytes, entry.kind
        )
    try:
        _write(writer, files, shape, entries)
    finally:
        writer.close()
    return Counter(entry.kind.name for entry in entries)


def gguf_arch(files: ModelFiles, shape: LlamaArchitecture) -> str:
    """Return llama.cpp's architecture for a model: a bidirectional Llama is a ``llama-embed``.

    That one keeps no cache of keys and values, which a text read once has no use for.
    """
    if shape.model_type not in _LLAMAS:
        return shape.model_type
    return "llama-embed" if files.spec.attention == "bidirectional" else "llama"


# --- Metadata ---------------------------------------------------------------------------------


def _metadata(files: ModelFiles, shape: LlamaArchitecture, arch: str, file_type: FileType) -> Json:
    spec, limit = files.spec, _context_length(shape)
    keys: Json = {
        "vocab_size": shape.vocab_size,
        "context_length": limit,
        "embedding_length": shape.hidden_size,
        "block_count": shape.num_layers,
        "feed_forward_length": shape.intermediate_size,
        "attention.head_count": shape.num_heads,
        "attention.head_count_kv": shape.num_kv_heads,
        "attention.key_length": shape.head_dim,
        "attention.value_length": shape.head_dim,
        "attention.layer_norm_rms_epsilon": shape.norm_eps,
        "attention.causal": spec.attention == "causal",
        "pooling_type": _POOLING[spec.pooling],
        "rope.dimension_count": shape.head_dim,
        "rope.freq_base": shape.rope.theta,
    }
    if shape.rope.kind == "linear":
        keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": shape.rope.factor}
    own = {name: getattr(spec, name) for name in OWN_FACTS}
    own["max_tokens"] = min(spec.max_tokens, limit)
    return {
        "general.type": "model",
        "general.name": files.path.stem if files.path.is_file() else files.path.name,
        "general.file_type": file_type.number,
        "general.quantization_version": _QUANTIZATION_VERSION,
        **{f"{arch}.{key}": value for key, value in keys.items()},
        **tokenizer_metadata(files.tokenizer, shape.vocab_size),
        **{f"{OWN_PREFIX}{name}": value for name, value in own.items()},
    }


def _context_length(shape: LlamaArchitecture) -> int:
    """Return how many tokens are read. llama.cpp's Llama has no sliding window.

    Within the window a text is the same with and without one, so it is the limit.
    """
    return min(shape.max_positions, shape.sliding_window or shape.max_positions)


def _add(writer: GGUFWriter, key: str, value: Any) -> None:  # noqa: ANN401 (metadata is untyped)
    """Add a key of the GGUF type its values have; empty strings and lists are left out."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, list(value))


# --- Tensors ----------------------------------------------------------------------------------


def _entries(
    files: ModelFiles, shape: LlamaArchitecture, arch: str, file_type: FileType
) -> Iterator[_Entry]:
    heads = {"q_proj": shape.num_heads, "k_proj": shape.num_kv_heads}
    paired = heads if arch.startswith("llama") else {}
    if shape.rope.kind == "llama3" or _ROPE_FACTORS in files.weights.names:
        yield _Entry(_ROPE_FACTORS, _ROPE_FACTORS, (shape.head_dim // 2,), _T.F32, None)
    for source in sorted(files.weights.names, key=_place):
        if source.startswith(("lm_head.", "rope_freqs.")) or source.endswith("inv_freq"):
            continue
        name, size = gguf_name(source), files.weights.shape(source)
        kind = tensor_type(name, size, file_type, shape.num_layers)
        yield _Entry(name, source, size, kind, paired.get(source.split(".")[-2]))


def _place(name: str) -> tuple[int, str]:
    """Put the token table first, then layers by number, then the last norm."""
    if name.startswith("layers."):
        return int(name.split(".")[1]), name
    return (-1 if name.startswith("embed") else 1_000_000), name


def _write(
    writer: GGUFWriter, files: ModelFiles, shape: LlamaArchitecture, entries: list[_Entry]
) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    assert writer.fout is not None
    file = writer.fout[0]
    writer.write_padding(file, file.tell())
    for entry in entries:
        try:
            _write_tensor(file, files, shape, entry)
        except PolyvecError as error:
            raise type(error)(f"{files.path}: tensor {entry.source}: {error}") from error
        writer.write_padding(file, entry.num_bytes)


def _write_tensor(
    file: IO[bytes], files: ModelFiles, shape: LlamaArchitecture, entry: _Entry
) -> None:
    for rows in _rows(files, shape, entry):
        file.write(quantize(rows, entry.kind).numpy().data)


def _rows(files: ModelFiles, shape: LlamaArchitecture, entry: _Entry) -> Iterator[Tensor]:
    if entry.source == _ROPE_FACTORS and _ROPE_FACTORS not in files.weights.names:
        yield _rope_factors(shape)
    elif entry.heads is None:
        yield from row_blocks(files.weights, entry.source)
    else:
        whole = files.weights.rows(entry.source, 0, entry.shape[0])
        yield pairs_from_halves(whole, entry.heads)


def _rope_factors(shape: LlamaArchitecture) -> Tensor:
    """Return what llama.cpp divides RoPE's frequencies by, for llama3's scaling."""
    plain = inverse_frequencies(Rope(shape.rope.theta), shape.head_dim)
    return (plain / inverse_frequencies(shape.rope, shape.head_dim)).to(torch.float32)
