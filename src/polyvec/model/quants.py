"""Block-quantized GGUF tensors to float32.

The layouts are ggml's (ggml-org/llama.cpp, ggml-common.h); every type is tested against the
``gguf`` package. The compiled ones of :mod:`polyvec.kernels.blocks` do it where they are; these in
torch are what they are tested against, and what runs elsewhere: all cores and no Python loop.

Letters: B blocks, each of 32 or 256 weights.
"""

from collections.abc import Callable
from math import prod

import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from torch import Tensor

from polyvec.errors import ModelFileError
from polyvec.kernels.blocks import Stored, expand


def dequantize(raw: np.ndarray, kind: GGMLQuantizationType, shape: tuple[int, ...]) -> Tensor:
    """Expand a tensor's bytes (``uint8``) to float32 of ``shape``.

    Raises:
        ModelFileError: The type is one polyvec does not read.
    """
    decode = _DECODERS.get(kind)
    if decode is None:
        known = ", ".join(sorted(k.name for k in _DECODERS))
        raise ModelFileError(f"GGUF tensor type {kind.name} is not read; polyvec reads {known}.")
    exact = torch.empty(shape)
    if expand(Stored(kind, raw, prod(shape[:-1]), shape[-1]), exact):
        return exact
    return decode(torch.from_numpy(raw.reshape(-1, GGML_QUANT_SIZES[kind][1]).copy())).reshape(
        shape
    )


def _half(blocks: Tensor, start: int) -> Tensor:
    """Read a float16 at a byte offset of each block: ``[B, 1]`` float32."""
    return blocks[:, start : start + 2].contiguous().view(torch.float16).float()


def _nibbles(packed: Tensor) -> Tensor:
    """Split bytes into low nibbles, then high ones, along the last axis."""
    return torch.cat((packed & 0x0F, packed >> 4), dim=-1)


def _fifth_bits(blocks: Tensor, start: int) -> Tensor:
    """Read the 32 high bits of a 5-bit block: ``[B, 32]``, already shifted to 16."""
    bits = blocks[:, start : start + 4].unsqueeze(-1) >> torch.arange(8, dtype=torch.uint8)
    return ((bits & 1) << 4).flatten(1)


def _f32(blocks: Tensor) -> Tensor:
    return blocks.view(torch.float32)


def _f16(blocks: Tensor) -> Tensor:
    return blocks.view(torch.float16).float()


def _bf16(blocks: Tensor) -> Tensor:
    return blocks.view(torch.bfloat16).float()


def _q8_0(blocks: Tensor) -> Tensor:
    return _half(blocks, 0) * blocks[:, 2:].view(torch.int8).float()


def _q4_0(blocks: Tensor) -> Tensor:
    return _half(blocks, 0) * (_nibbles(blocks[:, 2:]).float() - 8)


def _q4_1(blocks: Tensor) -> Tensor:
    return _half(blocks, 0) * _nibbles(blocks[:, 4:]).float() + _half(blocks, 2)


def _q5_0(blocks: Tensor) -> Tensor:
    codes = _nibbles(blocks[:, 6:]) | _fifth_bits(blocks, 2)
    return _half(blocks, 0) * (codes.float() - 16)


def _q5_1(blocks: Tensor) -> Tensor:
    codes = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks, 4)
    return _half(blocks, 0) * codes.float() + _half(blocks, 2)


def _k_scales(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Unpack Q4_K/Q5_K's 12 bytes into eight 6-bit scales and eight 6-bit minima: ``[B, 8]``."""
    scales, minima, mixed = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    high_scales = (mixed & 0x0F) | ((scales >> 6) << 4)
    high_minima = (mixed >> 4) | ((minima >> 6) << 4)
    return (
        torch.cat((scales & 0x3F, high_scales), dim=-1).float(),
        torch.cat((minima & 0x3F, high_minima), dim=-1).float(),
    )


def _k_affine(blocks: Tensor, codes: Tensor) -> Tensor:
    """Scale the eight groups of 32 codes of a Q4_K/Q5_K block: ``[B, 8, 32]``."""
    scales, minima = _k_scales(blocks[:, 4:16])
    scale = (_half(blocks, 0) * scales).unsqueeze(-1)
    return scale * codes.float() - (_half(blocks, 2) * minima).unsqueeze(-1)


def _group_nibbles(packed: Tensor) -> Tensor:
    """Codes of four 32-byte rows, low nibbles before high ones in each: ``[B, 8, 32]``."""
    rows = packed.unflatten(-1, (4, 1, 32))
    return torch.cat((rows & 0x0F, rows >> 4), dim=2).flatten(1, 2)


def _q4_k(blocks: Tensor) -> Tensor:
    return _k_affine(blocks, _group_nibbles(blocks[:, 16:]))


def _q5_k(blocks: Tensor) -> Tensor:
    shifts = torch.arange(8, dtype=torch.uint8).view(1, 8, 1)
    fifth = ((blocks[:, 16:48].unsqueeze(1) >> shifts) & 1) << 4
    return _k_affine(blocks, _group_nibbles(blocks[:, 48:]) | fifth)


def _q6_k(blocks: Tensor) -> Tensor:
    low = blocks[:, 0:128].unflatten(-1, (2, 1, 64))
    low = torch.cat((low & 0x0F, low >> 4), dim=2).unflatten(-1, (2, 32))  # [B, 2, 2, 2, 32]
    shifts = torch.tensor((0, 2, 4, 6), dtype=torch.uint8).view(1, 1, 2, 2, 1)
    high = (blocks[:, 128:192].unflatten(-1, (2, 1, 1, 32)) >> shifts) & 3
    codes = (low | (high << 4)).view(torch.int8) - 32
    scales = blocks[:, 192:208].view(torch.int8).float() * _half(blocks, 208)
    return scales.unsqueeze(-1) * codes.reshape(-1, 16, 16).float()


_T = GGMLQuantizationType
_DECODERS: dict[GGMLQuantizationType, Callable[[Tensor], Tensor]] = {
    _T.F32: _f32, _T.F16: _f16, _T.BF16: _bf16, _T.Q8_0: _q8_0,
    _T.Q4_0: _q4_0, _T.Q4_1: _q4_1, _T.Q5_0: _q5_0, _T.Q5_1: _q5_1,
    _T.Q4_K: _q4_k, _T.Q5_K: _q5_k, _T.Q6_K: _q6_k,
}  # fmt: skip
