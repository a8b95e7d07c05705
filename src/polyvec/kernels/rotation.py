"""The rotation that spreads a row's outliers before it is rounded to int8.

A transformer's activations have a few columns a hundred times as large as the rest, and one scale
a row then leaves the rest three bits. An orthogonal matrix applied to the activations, and to the
weights' inputs once, leaves the product as it is and mixes every column with dozens of others
(QuaRot, arXiv:2404.00456, does it with Hadamard's). Ours mixes the 16 lanes of each vector by
Hadamard's matrix, and then moves whole vectors: a stage for each factor of the width, by
Hadamard's 2x2 and 4x4 or, for odd factors, Householder's ``I - (2 / r) J``; every stage is its own
inverse.
"""

import functools
import math

import torch
from torch import Tensor

LANES = 16
"""Floats that move together; rows.cpp's LANES."""

_MAX_MIXED = 128


@functools.cache
def radices(width: int) -> tuple[int, ...]:
    """Return the stages of the rotation of rows of ``width``: their product divides width / 16.

    At most 128 vectors are mixed: more costs a stage and gains nothing measurable.
    """
    if width % LANES:
        return ()
    left, mixed, stages = width // LANES, 1, []
    for radix in (4, 2, 3, 5, 7):
        while left % radix == 0 and mixed * radix <= _MAX_MIXED and not (radix == 2 and mixed > 64):
            stages.append(radix)
            left //= radix
            mixed *= radix
    return tuple(stages)


def unit(stages: tuple[int, ...]) -> float:
    """Return what makes the stages' product orthonormal: Hadamard's are not by themselves."""
    return 1.0 / math.sqrt(LANES * math.prod(radix for radix in stages if radix % 2 == 0))


def rotate(x: Tensor) -> Tensor:
    """Rotate rows ``[..., width]``; the torch form of rows.cpp's, orthonormal."""
    if x.shape[-1] % LANES:
        return x
    stages, stride = radices(x.shape[-1]), LANES
    x = (x.unflatten(-1, (-1, LANES)) @ _hadamard_matrix(x.dtype)).flatten(-2)
    for radix in stages:
        parts = list(x.unflatten(-1, (-1, radix, stride)).unbind(-2))
        if radix % 2:
            mean = sum(parts[1:], parts[0]) * (2.0 / radix)
            parts = [part - mean for part in parts]
        else:
            parts = _hadamard(parts)
        x = _join(parts)
        stride *= radix
    return x * unit(stages)


@functools.cache
def _hadamard_matrix(dtype: torch.dtype) -> Tensor:
    """Hadamard's matrix of the size of a vector, which mixes its lanes."""
    with torch.inference_mode(mode=False):
        return torch.stack(_hadamard(list(torch.eye(LANES, dtype=dtype))))


def _hadamard(parts: list[Tensor]) -> list[Tensor]:
    if len(parts) == 1:
        return parts
    pairs = [(parts[i] + parts[i + 1], parts[i] - parts[i + 1]) for i in range(0, len(parts), 2)]
    left, right = _hadamard([a for a, _ in pairs]), _hadamard([b for _, b in pairs])
    return [part for both in zip(left, right, strict=True) for part in both]


def _join(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts, dim=-2).flatten(-3)
