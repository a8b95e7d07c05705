"""Float weights to ggml's quantized blocks, in torch: the encoders to ``model.quants``' decoders.

Layouts are ggml's (ggml-org/llama.cpp, ggml-common.h). The searches for scales minimize what
llama.cpp's minimize (``make_qkx2_quants`` and ``make_qx_quants`` in ggml-quants.c, over the same
candidates and with the same importance of each weight), but are least squares over all groups of
a chunk at once; bench/parity.py compares the error of both.

Letters: B blocks of 256 or 32 weights, G groups in a block, N weights in a group.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from torch import Tensor

from polyvec.errors import ModelFileError, OutputError

_CHUNK_WEIGHTS = 2**17
"""Weights searched together: few enough for their intermediates to stay in a core's cache, enough
for Python's share of the time to be small."""

_MAX_HALF = 65504.0
_TINY = 1e-15
"""Groups no larger than this are zeros (ggml's GROUP_MAX_EPS)."""


def quantize(weights: Tensor, kind: GGMLQuantizationType) -> Tensor:
    """Encode rows of weights as ``uint8 [bytes]``, in the order of the file.

    Args:
        weights: Any float dtype; the last axis is a whole number of blocks.
        kind: One of :data:`KINDS`.

    Raises:
        ModelFileError: A weight is not a finite number.
        OutputError: A weight is too large for the type's float16 scales, or rows are not blocks.
    """
    size, _ = GGML_QUANT_SIZES[kind]
    if weights.shape[-1] % size:
        raise OutputError(
            f"Rows of {weights.shape[-1]} weights are not whole {kind.name} blocks of {size}."
        )
    encode, parts = KINDS[kind], weights.reshape(-1).split(_CHUNK_WEIGHTS)
    with _one_thread_a_part() as pool:
        return torch.cat(list(pool.map(lambda part: encode(_checked(part, kind)), parts)))


@contextmanager
def _one_thread_a_part() -> Iterator[ThreadPoolExecutor]:
    """Share parts among as many threads as torch would use within each operation.

    Hundreds of short operations in a row are slow with threads inside each: on a busy machine
    every one of them waits for the last thread (2.8 million weights a second instead of 12).
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # what threads that are new to torch begin with, too
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)


def _checked(weights: Tensor, kind: GGMLQuantizationType) -> Tensor:
    values = weights.float()
    largest = float(values.abs().amax()) if values.numel() else 0.0
    if not largest < float("inf"):  # NaN compares false
        raise ModelFileError("Its weights hold NaN or infinity. Fetch or train the model again.")
    if largest > _MAX_HALF and kind not in (_T.F32, _T.BF16):
        raise OutputError(
            f"A weight of {largest:,.0f} is beyond float16, which {kind.name} needs; export as "
            "BF16 or F32."
        )
    return values


def _bytes(values: Tensor) -> Tensor:
    return values.contiguous().view(torch.uint8).flatten()


def _f32(values: Tensor) -> Tensor:
    return _bytes(values)


def _f16(values: Tensor) -> Tensor:
    return _bytes(values.half())


def _bf16(values: Tensor) -> Tensor:
    return _bytes(values.bfloat16())


def _half(values_B: Tensor) -> tuple[Tensor, Tensor]:
    """Return float16's bytes ``[B, 2]``, and the numbers a reader will find ``[B, 1]``."""
    halves = values_B.half().reshape(-1, 1)
    return halves.view(torch.uint8), halves.float()


def _inverse(values: Tensor) -> Tensor:
    """Return 1/x, and 0 where x is 0."""
    return _ratio(1, values)


def _ratio(number: float, values: Tensor) -> Tensor:
    """Return number / x, and 0 where x is 0."""
    return torch.where(values == 0, 0.0, number / values)


def _at_peak(values_XN: Tensor) -> Tensor:
    """Return the value of largest magnitude, with its sign: ``[X, 1]``."""
    return values_XN.gather(-1, values_XN.abs().argmax(-1, keepdim=True))


# --- Blocks of 32 -----------------------------------------------------------------------------


def _q8_0(values: Tensor) -> Tensor:
    x_BN = values.reshape(-1, 32)
    scale = x_BN.abs().amax(-1, keepdim=True) / 127
    y_BN = x_BN * _inverse(scale)
    codes = (y_BN + 0.5 * y_BN.sign()).trunc().to(torch.int8)  # C's roundf: halves go outwards
    return torch.cat((_half(scale)[0], codes.view(torch.uint8)), -1).flatten()


def _symmetric(values: Tensor, half_range: int) -> tuple[Tensor, Tensor]:
    """Codes ``0 .. 2 * half_range - 1`` whose lowest is the weight of largest magnitude."""
    x_BN = values.reshape(-1, 32)
    scale = _at_peak(x_BN) / -half_range
    codes = (x_BN * _inverse(scale) + (half_range + 0.5)).trunc()
    return scale, codes.clamp_(max=2 * half_range - 1).to(torch.uint8)


def _q4_0(values: Tensor) -> Tensor:
    scale, codes = _symmetric(values, 8)
    return torch.cat((_half(scale)[0], _nibbles(codes)), -1).flatten()


def _q5_0(values: Tensor) -> Tensor:
    scale, codes = _symmetric(values, 16)
    return torch.cat((_half(scale)[0], _fifth_bits(codes), _nibbles(codes)), -1).flatten()


def _q5_1(values: Tensor) -> Tensor:
    x_BN = values.reshape(-1, 32)
    low, high = x_BN.aminmax(dim=-1, keepdim=True)
    scale = (high - low) / 31
    codes = ((x_BN - low) * _inverse(scale) + 0.5).trunc().clamp_(max=31).to(torch.uint8)
    header = (_half(scale)[0], _half(low)[0], _fifth_bits(codes))
    return torch.cat((*header, _nibbles(codes)), -1).flatten()


def _nibbles(codes_BN: Tensor) -> Tensor:
    """Put the first half of a block into low nibbles, the second into high ones."""
    low, high = (codes_BN & 0x0F).chunk(2, dim=-1)
    return low | (high << 4)


def _fifth_bits(codes_BN: Tensor) -> Tensor:
    """Pack bit 4 of 32 codes into 4 bytes."""
    return _packed_bits((codes_BN >> 4).unflatten(-1, (4, 8)))


def _packed_bits(bits_X8: Tensor) -> Tensor:
    """Pack eight bits, the first lowest, into a byte."""
    weights = 1 << torch.arange(8, dtype=torch.uint8)
    return (bits_X8 * weights).sum(-1, dtype=torch.uint8)


# --- Blocks of 256: Q4_K and Q5_K -------------------------------------------------------------


class _Search(NamedTuple):
    """Which scales are tried: codes up to ``max_code``, stretched by ``shifts``."""

    max_code: int
    shifts: tuple[float, ...]


_Q4_SEARCH = _Search(15, tuple(-1 + 0.1 * i for i in range(21)))
# The first is not among llama.cpp's. 30 steps fit what once had 4 bits, where an error of 5% more
# was measured without; anywhere else the error is half a percent to two lower with it.
_Q5_SEARCH = _Search(31, (-1.0, *(-0.5 + 0.1 * i for i in range(16))))


def _fit_affine(x_BGN: Tensor, search: _Search) -> tuple[Tensor, Tensor]:
    """Find ``scale >= 0`` and ``offset >= 0`` so that ``scale * code - offset`` is near x.

    Each candidate's codes get their weighted least-squares scale and offset; the candidate of
    least error wins, and the next one starts from its offset. A weight counts by its magnitude
    plus its group's root mean square. Sums are over ``y = x - low``, where less cancels in
    float32.
    """
    importance = x_BGN.square().mean(-1, keepdim=True).sqrt() + x_BGN.abs()
    low = x_BGN.amin(-1, keepdim=True).clamp_(max=0)
    y = x_BGN - low
    span = y.amax(-1, keepdim=True)
    low, span = low.squeeze(-1), span.squeeze(-1)
    weighted = importance * y
    sums = (importance.sum(-1), weighted.sum(-1))
    scale, base = span / search.max_code, torch.zeros_like(low)
    codes = _codes(y, base, _inverse(scale), search.max_code)
    best = _affine_error(_sums(codes, importance, weighted), sums, scale, base)
    for shift in search.shifts:
        to_code = _ratio(search.max_code + shift, span - base)
        codes = _codes(y, base, to_code, search.max_code)
        code_sums = _sums(codes, importance, weighted)
        fit, ground = _least_squares(code_sums, sums, low)
        error = _affine_error(code_sums, sums, fit, ground)
        better = error < best  # false for NaN, where all codes are one
        best = torch.where(better, error, best)
        scale, base = torch.where(better, fit, scale), torch.where(better, ground, base)
    return scale, -(base + low)


def _codes(y: Tensor, base: Tensor, to_code: Tensor, max_code: int) -> Tensor:
    """Return the codes of y for a base and the inverse of a scale."""
    codes = (y - base.unsqueeze(-1)).mul_(to_code.unsqueeze(-1))
    return codes.round_().clamp_(0, max_code)


class _CodeSums(NamedTuple):
    """Weighted sums over a group of codes l: of l, l squared, and y times l."""

    l: Tensor  # noqa: E741
    ll: Tensor
    yl: Tensor


def _sums(codes: Tensor, importance: Tensor, weighted: Tensor) -> _CodeSums:
    counted = importance * codes
    yl = (weighted * codes).sum(-1)
    return _CodeSums(counted.sum(-1), counted.mul_(codes).sum(-1), yl)


def _least_squares(
    codes: _CodeSums, sums: tuple[Tensor, Tensor], low: Tensor
) -> tuple[Tensor, Tensor]:
    """Solve for scale and base of ``scale * l + base ~ y``, the whole being at most 0 at l = 0."""
    weight, y = sums
    determinant = weight * codes.ll - codes.l.square()
    scale = (weight * codes.yl - y * codes.l) / determinant
    base = (codes.ll * y - codes.l * codes.yl) / determinant
    above = base + low > 0  # the format stores a minimum, not a maximum: pin it to zero
    pinned = (codes.yl + low * codes.l) / codes.ll
    return torch.where(above, pinned, scale), torch.where(above, -low, base)


def _affine_error(
    codes: _CodeSums, sums: tuple[Tensor, Tensor], scale: Tensor, base: Tensor
) -> Tensor:
    """Weighted squared error of ``scale * l + base`` against y, short of y's own square."""
    weight, y = sums
    crossed = 2 * (scale * base * codes.l - scale * codes.yl - base * y)
    return scale.square() * codes.ll + base.square() * weight + crossed


def _k_affine(values: Tensor, search: _Search) -> tuple[Tensor, Tensor]:
    """Return the 16 header bytes of each block, and its codes ``[B, 8, 32]``."""
    x_BGN = values.reshape(-1, 8, 32)
    scales_BG, offsets_BG = _fit_affine(x_BGN, search)
    (d_bytes, d), scale_codes = _six_bits(scales_BG)
    (m_bytes, m), offset_codes = _six_bits(offsets_BG)
    step = (d * scale_codes).unsqueeze(-1)
    offset = (m * offset_codes).unsqueeze(-1)
    codes = ((x_BGN + offset) * _inverse(step)).round_().clamp_(0, search.max_code)
    header = torch.cat((d_bytes, m_bytes, _k_scales(scale_codes, offset_codes)), -1)
    return header, codes.to(torch.uint8)


def _six_bits(values_BG: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Quantize a block's scales or offsets to 6 bits of their largest."""
    largest = values_BG.amax(-1, keepdim=True).clamp_(min=0)
    codes = (values_BG * (63 * _inverse(largest))).round_().clamp_(0, 63)
    return _half(largest / 63), codes


def _k_scales(scales_B8: Tensor, offsets_B8: Tensor) -> Tensor:
    """Pack eight 6-bit scales and eight 6-bit offsets into 12 bytes."""
    (low_s, high_s), (low_m, high_m) = (
        x.to(torch.uint8).chunk(2, dim=-1) for x in (scales_B8, offsets_B8)
    )
    mixed = (high_s & 0x0F) | ((high_m & 0x0F) << 4)
    return torch.cat((low_s | ((high_s >> 4) << 6), low_m | ((high_m >> 4) << 6), mixed), -1)


def _q4_k(values: Tensor) -> Tensor:
    header, codes = _k_affine(values, _Q4_SEARCH)
    return torch.cat((header, _group_nibbles(codes)), -1).flatten()


def _q5_k(values: Tensor) -> Tensor:
    header, codes = _k_affine(values, _Q5_SEARCH)
    fifth = _packed_bits((codes >> 4).transpose(1, 2))
    return torch.cat((header, fifth, _group_nibbles(codes & 0x0F)), -1).flatten()


def _group_nibbles(codes_BGN: Tensor) -> Tensor:
    """Pack neighbouring groups of 32 codes, the first into low nibbles: ``[B, 128]``."""
    even, odd = codes_BGN.unflatten(1, (4, 2)).unbind(2)
    return (even | (odd << 4)).flatten(1)


# --- Q6_K -------------------------------------------------------------------------------------

_Q6_SHIFTS = tuple(0.1 * i for i in (0, *range(-9, 0), *range(1, 10)))


def _fit_symmetric(x_BGN: Tensor, half_range: int) -> Tensor:
    """Find the scale (of either sign) so that ``scale * code`` is near x; squares count.

    A candidate's codes have the least-squares scale ``(x . l) / (l . l)``, weighted by x squared;
    the candidate that explains most of x wins.
    """
    peak = _at_peak(x_BGN)
    weighted = x_BGN.square()  # the importance, times x below
    cubes = weighted * x_BGN
    to_code = -_inverse(torch.where(peak.abs() < _TINY, 0.0, peak))
    scale = torch.zeros_like(peak).squeeze(-1)
    best = torch.zeros_like(scale)
    for shift in _Q6_SHIFTS:
        codes = (x_BGN * (to_code * (half_range + shift))).round_()
        codes.clamp_(-half_range, half_range - 1)
        xl = (cubes * codes).sum(-1)
        fit = xl * _inverse((weighted * codes.square_()).sum(-1))
        better = fit * xl > best
        best, scale = torch.where(better, fit * xl, best), torch.where(better, fit, scale)
    return scale


def _q6_k(values: Tensor) -> Tensor:
    x_BGN = values.reshape(-1, 16, 16)
    scales_BG = _fit_symmetric(x_BGN, 32)
    d_bytes, d = _half(_at_peak(scales_BG) / -128)
    scale_codes = (scales_BG * (-128 * _inverse(_at_peak(scales_BG)))).round_().clamp_(-128, 127)
    step = (d * scale_codes).unsqueeze(-1)
    codes = (x_BGN * _inverse(step)).round_().clamp_(-32, 31) + 32
    low, high = _six_bit_planes(codes.to(torch.uint8))
    return torch.cat(
        (low, high, scale_codes.to(torch.int8).view(torch.uint8), d_bytes), -1
    ).flatten()


def _six_bit_planes(codes_BGN: Tensor) -> tuple[Tensor, Tensor]:
    """Split 6-bit codes into 128 bytes of nibbles and 64 bytes of upper bit pairs."""
    halves = codes_BGN.reshape(-1, 2, 2, 2, 32)  # [B, half, nibble, row, 32]
    low = (halves[:, :, 0] & 0x0F) | ((halves[:, :, 1] & 0x0F) << 4)
    shifts = torch.tensor((0, 2, 4, 6), dtype=torch.uint8).view(1, 1, 2, 2, 1)
    high = ((halves >> 4) << shifts).sum((2, 3), dtype=torch.uint8)
    return low.flatten(1), high.flatten(1)


_T = GGMLQuantizationType
KINDS: dict[GGMLQuantizationType, Callable[[Tensor], Tensor]] = {
    _T.F32: _f32, _T.F16: _f16, _T.BF16: _bf16, _T.Q8_0: _q8_0, _T.Q4_0: _q4_0,
    _T.Q5_0: _q5_0, _T.Q5_1: _q5_1, _T.Q4_K: _q4_k, _T.Q5_K: _q5_k, _T.Q6_K: _q6_k,
}  # fmt: skip
"""Types that can be written."""
