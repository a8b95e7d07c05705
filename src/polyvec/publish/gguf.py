"""A model to a GGUF that llama.cpp and Ollama run right with no flag.

Tensors pass through memory some rows at a time. A Llama's queries and keys are reordered to
llama.cpp's rotary pairs; of a RoBERTa's positions those are left out that no text has.
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

from polyvec.errors import PolyvecError
from polyvec.model.files import ModelFiles
from polyvec.model.llama import inverse_frequencies
from polyvec.model.names import gguf_name
from polyvec.model.weights import pairs_from_halves, row_blocks
from polyvec.publish.gguf_keys import gguf_arch, gguf_metadata
from polyvec.publish.kquants import quantize
from polyvec.publish.mixture import FILE_TYPES, FileType, tensor_type
from polyvec.spec import Architecture, BertArchitecture, LlamaArchitecture, Rope

_T = GGMLQuantizationType
_ROPE_FACTORS = "rope_freqs.weight"
_POSITIONS = "embeddings.position_embeddings.weight"
# Heads and poolers, which make no token states; RoPE's factors, which come first; buffers.
_LEFT_OUT = ("lm_head.", "rope_freqs.", "pooler.", "cls.")
_BUFFERS = ("inv_freq", "position_ids")


@dataclass(frozen=True)
class _Entry:
    """A tensor of the file to be."""

    name: str
    source: str
    """Its name in the model; the RoPE factors may have none."""
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    heads: int | None = None
    """Heads whose rows llama.cpp wants in pairs."""
    skip: int = 0
    """Rows before the first that is written."""

    @property
    def num_bytes(self) -> int:
        size, width = GGML_QUANT_SIZES[self.kind]
        return prod(self.shape) // size * width


def write_gguf(files: ModelFiles, path: Path, type_name: str) -> Counter[str]:
    """Write a model as a GGUF.

    Args:
        files: The model, of the Llama or the BERT family.
        path: The file to make.
        type_name: One of :data:`polyvec.publish.mixture.FILE_TYPES`.

    Returns:
        How many tensors have which type.

    Raises:
        SpecError: The model has a tensor, or a tokenizer, that this cannot be done with.
        ModelFileError: A weight is not a number.
        OutputError: A weight does not fit the type.
    """
    file_type = FILE_TYPES[type_name]
    entries = list(_entries(files, file_type))
    metadata = gguf_metadata(files, file_type)
    writer = GGUFWriter(path, gguf_arch(files))
    for key, value in metadata.items():
        _add(writer, key, value)
    for entry in entries:
        writer.add_tensor_info(
            entry.name, entry.shape, np.dtype(np.float32), entry.num_bytes, entry.kind
        )
    try:
        _write(writer, files, entries)
    finally:
        writer.close()
    return Counter(entry.kind.name for entry in entries)


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
    elif isinstance(value, bytes):
        writer.add_array(key, value)
    else:
        writer.add_array(key, list(value))


# --- Tensors ----------------------------------------------------------------------------------


def _entries(files: ModelFiles, file_type: FileType) -> Iterator[_Entry]:
    shape, skipped = files.architecture, _skipped(files.architecture)
    if isinstance(shape, LlamaArchitecture) and _has_factors(files, shape):
        yield _Entry(_ROPE_FACTORS, _ROPE_FACTORS, (shape.head_dim // 2,), _T.F32)
    paired = _paired(files)
    for source in sorted(files.weights.names, key=_place):
        if source.startswith(_LEFT_OUT) or source.endswith(_BUFFERS):
            continue
        name, (count, *columns) = gguf_name(source), files.weights.shape(source)
        skip = skipped.get(source, 0)
        size = (count - skip, *columns)
        kind = tensor_type(name, size, file_type, shape.num_layers)
        yield _Entry(name, source, size, kind, paired.get(source.split(".")[-2]), skip)


def _has_factors(files: ModelFiles, shape: LlamaArchitecture) -> bool:
    return shape.rope.kind == "llama3" or _ROPE_FACTORS in files.weights.names


def _paired(files: ModelFiles) -> dict[str, int]:
    """Return the heads of products whose rows llama.cpp's Llama wants in pairs."""
    shape = files.architecture
    if not gguf_arch(files).startswith("llama"):
        return {}
    return {"q_proj": shape.num_heads, "k_proj": shape.num_kv_heads}


def _skipped(shape: Architecture) -> dict[str, int]:
    """Return how many rows of a tensor come before the first that a text can have.

    llama.cpp counts positions from 0, so its converter cuts RoBERTa's table (conversion/bert.py).
    """
    if isinstance(shape, BertArchitecture) and shape.position_offset is not None:
        return {_POSITIONS: shape.position_offset}
    return {}


def _place(name: str) -> tuple[int, str]:
    """Put tables first, then layers by number, then the last norm."""
    parts = name.removeprefix("encoder.").split(".")
    if parts[0] in ("layers", "layer"):
        return int(parts[1]), name
    return (-1 if name.startswith("embed") else 1_000_000), name


def _write(writer: GGUFWriter, files: ModelFiles, entries: list[_Entry]) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    assert writer.fout is not None
    file = writer.fout[0]
    writer.write_padding(file, file.tell())
    for entry in entries:
        try:
            _write_tensor(file, files, entry)
        except PolyvecError as error:
            raise type(error)(f"{files.path}: tensor {entry.source}: {error}") from error
        writer.write_padding(file, entry.num_bytes)


def _write_tensor(file: IO[bytes], files: ModelFiles, entry: _Entry) -> None:
    for rows in _rows(files, entry):
        file.write(quantize(rows, entry.kind).numpy().data)


def _rows(files: ModelFiles, entry: _Entry) -> Iterator[Tensor]:
    shape = files.architecture
    if entry.source == _ROPE_FACTORS and isinstance(shape, LlamaArchitecture):
        yield _rope_factors(files, shape)
    elif entry.heads is not None:
        whole = files.weights.rows(entry.source, 0, entry.shape[0])
        yield pairs_from_halves(whole, entry.heads)
    else:
        yield from row_blocks(files.weights, entry.source, entry.skip)


def _rope_factors(files: ModelFiles, shape: LlamaArchitecture) -> Tensor:
    """Return what llama.cpp divides RoPE's frequencies by: the file's own, or llama3's scaling."""
    if _ROPE_FACTORS in files.weights.names:
        return files.weights.tensor(_ROPE_FACTORS)
    plain = inverse_frequencies(Rope(shape.rope.theta), shape.head_dim)
    return (plain / inverse_frequencies(shape.rope, shape.head_dim)).to(torch.float32)
