"""Stored weights on their way to products: expanded, rounded to int8 or 4 bits, laid out.

Compiled where that is to be had (blocks.cpp); every function says what a caller does instead.
Types are ggml's numbers of them, so F32, F16 and BF16 are among them.
"""

import ctypes
import functools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from polyvec.kernels import plain
from polyvec.kernels.library import library
from polyvec.kernels.rotation import LANES
from polyvec.kernels.rows import stages_of

Raw = npt.NDArray[np.uint8]
Order = npt.NDArray[np.int64]

GROUP = 32
"""4-bit weights that share a multiplier; blocks.cpp's GROUP."""

_MAX_WIDTH = 1 << 16
_PACKED = 64


class Stored(NamedTuple):
    """Rows of a weight as a file has them."""

    type: int
    """ggml's number of the type."""
    raw: Raw
    """The rows' bytes, one row after another."""
    rows: int
    width: int
    order: Order | None = None
    """Which raw row comes where, for files that order them another way."""


class Int4(NamedTuple):
    """Rotated rows in 4 bits: a row is ``scale * multipliers * codes``."""

    codes: Tensor
    """uint8 ``[rows, width / 2]``: two 4-bit codes a byte."""
    multipliers: Tensor
    """uint8 ``[rows, width / 32]``, at most 18, so that times a code it is an int8."""
    scale: Tensor
    """fp32 ``[rows]``."""


def expand(stored: Stored, out: Tensor) -> bool:
    """Write the weights into ``out [rows, width]``, fp32 or bf16; False where not compiled."""
    if not _able(stored.width):
        return False
    name = "pv_expand_f32" if out.dtype == torch.float32 else "pv_expand_bf16"
    return bool(_call(name, *_given(stored), out))


def expand_int8(stored: Stored, values: Tensor, scale: Tensor) -> bool:
    """Rotate rows and round each to int8 by its own scale; False where not compiled."""
    if not _able(stored.width):
        return False
    return bool(_call("pv_expand_int8", *_given(stored), *stages_of(stored.width), values, scale))


def expand_int4(stored: Stored) -> Int4 | None:
    """Rotate rows and round them to 4 bits in groups of 32; None where not compiled.

    A group's multiplier is the integer that leaves the least squared error.
    """
    if not _able(stored.width) or stored.width % GROUP:
        return None
    rows, width = stored.rows, stored.width
    made = Int4(
        torch.empty(rows, width // 2, dtype=torch.uint8),
        torch.empty(rows, width // GROUP, dtype=torch.uint8),
        torch.empty(rows),
    )
    return made if _call("pv_expand_int4", *_given(stored), *stages_of(width), *made) else None


def int4_to_int8(packed: Int4, values: Tensor) -> None:
    """Write 4-bit rows as the int8 they are, ``[rows, width]``."""
    if library() is None:
        values.copy_(plain.int4_to_int8(packed.codes, packed.multipliers))
    else:
        groups = packed.multipliers.numel()
        _call("pv_int4_to_int8", packed.codes, packed.multipliers, groups, values)


def room_int8(rows: int, width: int) -> Tensor:
    """Return an int8 weight of zeros as oneDNN keeps it, for :func:`pack_int8` to write into."""
    return torch.ops.onednn.qlinear_prepack(torch.zeros(rows, width, dtype=torch.int8), None)


def pack_int8(values: Tensor, room: Tensor | None = None) -> Tensor:
    """Lay int8 rows out as oneDNN keeps a weight; in ``room`` where it can be written to.

    oneDNN's own reordering takes five times as long and always new memory, so the layout is
    written here, after it was compared with oneDNN's once.
    """
    rows, width = values.shape
    if library() is None or not _knows_layout() or width % LANES or not values.is_contiguous():
        return torch.ops.onednn.qlinear_prepack(values, None)
    room = room_int8(rows, width) if room is None else room
    _call("pv_pack_int8", values, rows, width, torch.ops.mkldnn.data_ptr(room))
    return room


@functools.cache
def _knows_layout() -> bool:
    """Whether this torch's oneDNN keeps int8 weights the way blocks.cpp writes them."""
    if library() is None or not hasattr(torch.ops.mkldnn, "data_ptr"):
        return False
    for rows, width in ((_PACKED + 16, 3 * LANES), (2 * _PACKED, 4 * _PACKED)):
        values = (torch.arange(rows * width) * 37 % 251 - 125).to(torch.int8).view(rows, width)
        theirs = torch.ops.onednn.qlinear_prepack(values, None)
        ours = room_int8(rows, width)
        if not _predicted(rows, width) == _size(theirs) == _size(ours):
            return False
        _call("pv_pack_int8", values, rows, width, torch.ops.mkldnn.data_ptr(ours))
        if _bytes(ours) != _bytes(theirs):
            return False
    return True


def _predicted(rows: int, width: int) -> int:
    rows, width = (-(-size // _PACKED) * _PACKED for size in (rows, width))
    return rows * width + 4 * rows


def _size(packed: Tensor) -> int:
    return int(torch.ops.mkldnn._nbytes(packed))


def _bytes(packed: Tensor) -> bytes:
    return ctypes.string_at(torch.ops.mkldnn.data_ptr(packed), _size(packed))


def _able(width: int) -> bool:
    return library() is not None and width % LANES == 0 and 0 < width <= _MAX_WIDTH


def _given(stored: Stored) -> tuple[int | None, ...]:
    order = None if stored.order is None else stored.order.ctypes.data
    return stored.type, stored.raw.ctypes.data, order, stored.rows, stored.width


def _call(name: str, *given: Tensor | float | None) -> int:
    raw = [x.data_ptr() if isinstance(x, Tensor) else x for x in given]
    return int(getattr(library(), name)(*raw))
