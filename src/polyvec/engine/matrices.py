"""A layer's matrices: read from files a few rows at a time, into memory that is used again."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from polyvec.errors import DeviceError, ModelFileError
from polyvec.kernels import blocks, plain
from polyvec.kernels.blocks import Int4, Stored
from polyvec.model.files import ModelFiles
from polyvec.model.stored import expanded
from polyvec.model.weights import stored, stored_as

_CHUNK_WEIGHTS = 2**23
"""Weights read at once: 32 MB of fp32 at most."""


class Rows(NamedTuple):
    """Rows ``start:stop`` of a tensor."""

    name: str
    start: int
    stop: int

    @property
    def height(self) -> int:
        """How many."""
        return self.stop - self.start


class Arena:
    """Memory for the matrices of one layer, by name, written again for the next one.

    With ``is_pinned`` it stays where it is in the machine's memory, so that a device copies from it
    while others compute.
    """

    def __init__(self, is_pinned: bool = False) -> None:
        self._is_pinned = is_pinned
        self._dense: dict[str, Tensor] = {}
        self._int8: dict[tuple[str, torch.Size], Tensor | None] = {}

    def dense(self, name: str, rows: int, width: int, dtype: torch.dtype) -> Tensor:
        """Return ``[rows, width]`` of any content."""
        kept = self._dense.get(name)
        if kept is None or kept.shape != (rows, width) or kept.dtype != dtype:
            with torch.inference_mode(mode=False):
                kept = self._dense[name] = torch.empty(
                    rows, width, dtype=dtype, pin_memory=self._is_pinned
                )
        return kept

    def int8(self, name: str, values: Tensor) -> Tensor:
        """Return int8 rows laid out for oneDNN."""
        with torch.inference_mode(mode=False):
            key = (name, values.shape)
            if key not in self._int8:
                self._int8[key] = blocks.room_int8(*values.shape)
            room = self._int8[key]
            if room is None:
                return blocks.pack_int8(values)
            blocks.write_int8(values, room)
            return room


class Int8Rows(NamedTuple):
    """A matrix in int8: rows are ``weight * scale_O``."""

    weight: Tensor
    """As oneDNN keeps it."""
    scale_O: Tensor


class Matrices:
    """Reads matrices, which may be parts of several tensors on top of each other.

    With ``four_bits`` int8 matrices are kept in 4 bits from the first reading on and expanded from
    there. Not for several threads at once.
    """

    def __init__(self, files: ModelFiles, four_bits: bool = False) -> None:
        self.files = files
        self._four_bits: dict[Rows, Int4] | None = {} if four_bits else None
        self._scratch = Arena()
        self._seen: set[str] = set()

    @property
    def has_four_bits(self) -> bool:
        """Whether int8 matrices are kept in 4 bits."""
        return self._four_bits is not None

    def dense(
        self, arena: Arena, key: str, parts: Sequence[Rows], width: int, dtype: torch.dtype
    ) -> Tensor:
        """Read parts into one ``[rows, width]``, fp32 or bf16.

        Raises:
            ModelFileError: Bytes cannot be read, or are not finite numbers.
        """
        out, start = arena.dense(key, sum(p.height for p in parts), width, dtype), 0
        for part in parts:
            for chunk in _chunks(part, width):
                rows = out[start : start + chunk.height]
                self._read_into(rows, chunk)
                start += chunk.height
                if chunk.name not in self._seen and not is_finite(rows):
                    raise not_numbers(self.files, chunk.name)
        self._seen.update(part.name for part in parts)
        return out

    def _read_into(self, rows: Tensor, chunk: Rows) -> None:
        weights = self.files.weights
        if stored_as(weights, chunk.name) == rows.dtype:
            into = rows.view(torch.uint8).view(-1).numpy()
            stored(weights, *chunk, into)
        else:
            expanded(self._stored(chunk), rows)

    def int8(self, arena: Arena, key: str, parts: Sequence[Rows], width: int) -> Int8Rows:
        """Read parts into one matrix, rotated and rounded to int8 by each row's own scale.

        Raises:
            ModelFileError: Bytes cannot be read, or are not finite numbers.
        """
        count = sum(p.height for p in parts)
        values = self._scratch.dense("values", count, width, torch.int8)
        scale_O, start = torch.empty(count), 0
        for part in parts:
            for chunk in _chunks(part, width):
                stop = start + chunk.height
                self._int8_rows(chunk, values[start:stop], scale_O[start:stop])
                start = stop
                if not scale_O[stop - chunk.height : stop].isfinite().all():
                    raise not_numbers(self.files, chunk.name)
        return Int8Rows(arena.int8(key, values), scale_O)

    def _int8_rows(self, chunk: Rows, values: Tensor, scale: Tensor) -> None:
        if self._four_bits is None:
            rows = self._stored(chunk)
            if not blocks.expand_int8(rows, values, scale):
                exact = torch.empty(values.shape)
                expanded(rows, exact)
                rounded, scales = plain.quantize(exact)
                values.copy_(rounded)
                scale.copy_(scales)
            return
        if chunk not in self._four_bits:
            self._four_bits[chunk] = self._rounded_to_four_bits(chunk)
        packed = self._four_bits[chunk]
        blocks.int4_to_int8(packed, values)
        scale.copy_(packed.scale)

    def _rounded_to_four_bits(self, chunk: Rows) -> Int4:
        rows = self._stored(chunk)
        packed = blocks.expand_int4(rows)
        if packed is None:
            raise DeviceError(
                f"{self.files.path}: rounding to 4 bits needs polyvec's compiled kernels (a C++ "
                f"compiler when polyvec is installed) and rows of a multiple of 32; "
                f"{chunk.name} has rows of {rows.width}. Use precision int8, or a GGUF file."
            )
        return packed

    def _stored(self, chunk: Rows) -> Stored:
        raw = self._scratch.dense("raw", 1, 4 * _CHUNK_WEIGHTS, torch.uint8).view(-1)
        return stored(self.files.weights, *chunk, raw.numpy())


def not_numbers(files: ModelFiles, name: str) -> ModelFileError:
    """Return the error for a tensor with NaN or infinity in it."""
    return ModelFileError(
        f"{files.path}: tensor {name} has values that are not numbers or infinite. "
        "Every vector would be lost in them: the file is damaged, or training diverged."
    )


def _chunks(part: Rows, width: int) -> Iterator[Rows]:
    step = max(1, _CHUNK_WEIGHTS // width)
    for start in range(part.start, part.stop, step):
        yield Rows(part.name, start, min(start + step, part.stop))


def is_finite(x: Tensor) -> bool:
    """Whether all values are numbers and finite."""
    # A sum shows any of them in one pass; it may also overflow, so the values decide.
    return bool(x.sum(dtype=torch.float32).isfinite()) or bool(x.isfinite().all())
