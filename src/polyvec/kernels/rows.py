"""What happens to rows between two products: one pass each, compiled where that is to be had.

``scale_T`` and ``bias_D``, where given, finish an int8 product first: ``scale * x + bias``. Shape
letters: T tokens, D a row's width, H query heads, K key/value heads, E head size.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from polyvec.kernels import plain
from polyvec.kernels.library import library
from polyvec.kernels.rotation import LANES, radices, unit

_NAMES = {torch.float32: "f32", torch.bfloat16: "bf16"}
_MAX_WIDTH = 1 << 16
_MAX_HEAD = 1024


class Quantized(NamedTuple):
    """Rotated rows in int8: a row is ``values * scale``."""

    values_TD: Tensor
    scale_T: Tensor


class Heads(NamedTuple):
    """How a row of queries, keys and values is laid out, and what its heads are normed with."""

    queries: int
    keys: int
    size: int
    query_gain_E: Tensor | None = None
    key_gain_E: Tensor | None = None
    eps: float = 0.0


def compiled(*tensors: Tensor, width: int, unit: int = LANES) -> bool:
    """Whether the compiled kernels take these."""
    return (
        library() is not None
        and 0 < width <= _MAX_WIDTH
        and width % unit == 0
        and not torch.is_grad_enabled()
        and all(x.device.type == "cpu" and x.is_contiguous() and x.dtype in _NAMES for x in tensors)
    )


def quantize(x_TD: Tensor) -> Quantized:
    """Rotate rows and round each to int8 by its own scale."""
    width = x_TD.shape[-1]
    if not compiled(x_TD, width=width):
        return Quantized(*plain.quantize(x_TD))
    values, scale = _int8_like(x_TD)
    _call("quantize", x_TD.dtype, x_TD, len(x_TD), width, *stages_of(width), values, scale)
    return Quantized(values, scale)


def rms_norm_int8(states_TD: Tensor, gain_D: Tensor, eps: float) -> Quantized:
    """Norm, rotate and round fp32 rows."""
    width = states_TD.shape[-1]
    if not compiled(states_TD, gain_D, width=width):
        return Quantized(*plain.quantize(plain.rms_norm(states_TD, gain_D, eps, torch.float32)))
    values, scale = _int8_like(states_TD)
    rows = len(states_TD)
    function = library().pv_rms_norm_int8  # type: ignore[union-attr]
    function(*_raw((states_TD, rows, width, gain_D, eps, *stages_of(width), values, scale)))
    return Quantized(values, scale)


def rms_norm(states_TD: Tensor, gain_D: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """Norm fp32 rows over their width."""
    width = states_TD.shape[-1]
    if dtype not in _NAMES or not compiled(states_TD, gain_D, width=width):
        return plain.rms_norm(states_TD, gain_D, eps, dtype)
    y = torch.empty(states_TD.shape, dtype=dtype)
    _call("rms_norm", dtype, states_TD, states_TD.numel() // width, width, gain_D, eps, y)
    return y


def add(
    states_TD: Tensor,
    update_TD: Tensor,
    scale_T: Tensor | None = None,
    bias_D: Tensor | None = None,
) -> None:
    """Add an update to the fp32 residual stream, in place."""
    rows, width = states_TD.shape
    if compiled(states_TD, update_TD, width=width):
        _call("add", update_TD.dtype, states_TD, update_TD, rows, width, scale_T, bias_D)
    else:
        states_TD.add_(plain.scaled(update_TD, scale_T, bias_D))


def add_layer_norm(
    states_TD: Tensor,
    update_TD: Tensor,
    norm: tuple[Tensor, Tensor],
    eps: float,
    scale_T: Tensor | None = None,
    bias_D: Tensor | None = None,
) -> None:
    """Add an update to the fp32 residual stream and norm it by (gain, bias), in place."""
    rows, width = states_TD.shape
    if compiled(states_TD, update_TD, width=width):
        given = (states_TD, update_TD, rows, width, scale_T, bias_D, *norm, eps)
        _call("add_layer_norm", update_TD.dtype, *given)
    else:
        states_TD.add_(plain.scaled(update_TD, scale_T, bias_D))
        states_TD.copy_(torch.layer_norm(states_TD, (width,), *norm, eps))


def heads(
    qkv_TD: Tensor,
    shape: Heads,
    angles: tuple[Tensor, Tensor] | None,
    scale_T: Tensor | None = None,
    bias_D: Tensor | None = None,
) -> Tensor:
    """Return ``[T, H + 2K, E]`` in the dtype of ``qkv_TD``: head norms, then rotary angles.

    ``angles`` are cosines and signed sines, fp32 ``[T, E]``; None rotates nothing.
    """
    queries, keys, size, query_gain, key_gain, eps = shape
    if not compiled(qkv_TD, width=size, unit=2 * LANES) or size > _MAX_HEAD:
        gains = (query_gain, key_gain)
        sizes = (queries, keys, size)
        return plain.heads(qkv_TD, sizes, gains, eps, scale_T, bias_D, angles)
    y = torch.empty(len(qkv_TD), queries + 2 * keys, size, dtype=qkv_TD.dtype)
    cosine, sine = angles or (None, None)
    laid_out = (queries, keys, size, query_gain, key_gain, eps)
    given = (qkv_TD, y, len(qkv_TD), *laid_out, scale_T, bias_D, cosine, sine)
    _call("heads", qkv_TD.dtype, *given)
    return y


def swiglu(
    x_TD: Tensor, out_TF: Tensor, scale_T: Tensor | None = None, bias_D: Tensor | None = None
) -> None:
    """Write ``silu(gate) * up`` of rows ``[gate | up]`` into ``out_TF``.

    ``out_TF`` may be columns of a wider matrix.
    """
    width = x_TD.shape[-1] // 2
    if compiled(x_TD, width=width) and out_TF.stride(1) == 1 and out_TF.dtype == x_TD.dtype:
        given = (x_TD, out_TF, len(x_TD), width, out_TF.stride(0), scale_T, bias_D)
        _call("swiglu", x_TD.dtype, *given)
    else:
        out_TF.copy_(plain.swiglu(x_TD, scale_T, bias_D))


def gelu(x_TD: Tensor, scale_T: Tensor | None = None, bias_D: Tensor | None = None) -> Tensor:
    """Return the exact GELU of rows, in their dtype."""
    rows, width = x_TD.shape
    if not compiled(x_TD, width=width):
        return plain.gelu(x_TD, scale_T, bias_D)
    y = torch.empty_like(x_TD)
    _call("gelu", x_TD.dtype, x_TD, y, rows, width, scale_T, bias_D)
    return y


def _int8_like(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty(x.shape, dtype=torch.int8), torch.empty(len(x), dtype=torch.float32)


_STAGES: dict[int, Tensor] = {}


def stages_of(width: int) -> tuple[Tensor, int, float]:
    """Return the rotation of rows of ``width`` as the compiled code takes it."""
    stages = radices(width)
    if width not in _STAGES:
        _STAGES[width] = torch.tensor(stages or (0,), dtype=torch.int32)
    return _STAGES[width], len(stages), unit(stages)


def _call(name: str, dtype: torch.dtype, *given: Tensor | float | None) -> None:
    getattr(library(), f"pv_{name}_{_NAMES[dtype]}")(*_raw(given))


def _raw(given: tuple[Tensor | float | None, ...]) -> list[float | None]:
    return [x.data_ptr() if isinstance(x, Tensor) else x for x in given]
