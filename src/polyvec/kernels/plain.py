"""The row operations by torch's operators: what runs where nothing was compiled.

Also what the compiled ones are tested against. Shapes and meaning: :mod:`polyvec.kernels.rows`.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from polyvec.kernels.rotation import rotate


def quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate rows and round them to int8; see :func:`polyvec.kernels.rows.quantize`."""
    rotated = rotate(x.float())
    peak = rotated.abs().amax(-1, keepdim=True)
    factor = torch.where(peak > 0, 127.0 / peak, torch.zeros_like(peak))
    values = (rotated * factor).round_().to(torch.int8)
    return values, (peak / 127.0).flatten()


def rms_norm(x: Tensor, gain: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """Root-mean-square norm."""
    scale = x.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
    return (x * scale * gain).to(dtype)


def scaled(x: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
    """Return ``scale * x + bias``, fp32."""
    y = x.float() if scale is None else x.float() * scale[:, None]
    return y if bias is None else y + bias


def heads(
    qkv: Tensor,
    shape: tuple[int, int, int],
    gains: tuple[Tensor | None, Tensor | None],
    eps: float,
    scale: Tensor | None,
    bias: Tensor | None,
    angles: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """Scale, bias, head norms and rotary angles."""
    queries, keys, size = shape
    x = scaled(qkv, scale, bias).unflatten(-1, (queries + 2 * keys, size))
    parts = list(x.split((queries, keys, keys), dim=1))
    for index, gain in enumerate(gains):
        if gain is not None:
            parts[index] = rms_norm(parts[index], gain, eps, torch.float32)
        if angles is not None:
            cosine, sine = (angle[:, None] for angle in angles)
            part = parts[index]
            parts[index] = part * cosine + part.roll(size // 2, -1) * sine
    return torch.cat(parts, dim=1).to(qkv.dtype)


def swiglu(x: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
    """``silu(gate) * up`` of rows ``[gate | up]``."""
    gate, up = scaled(x, scale, bias).chunk(2, dim=-1)
    return (F.silu(gate) * up).to(x.dtype)


def gelu(x: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
    """The exact GELU."""
    return F.gelu(scaled(x, scale, bias)).to(x.dtype)


def int4_to_int8(codes: Tensor, multipliers: Tensor) -> Tensor:
    """Expand 4-bit codes; see :func:`polyvec.kernels.blocks.int4_to_int8`."""
    pairs = codes.unflatten(-1, (-1, 16))
    values = torch.cat((pairs & 15, pairs >> 4), dim=-1).to(torch.int8) - 8
    return (values * multipliers.to(torch.int8).unsqueeze(-1)).flatten(-2)
