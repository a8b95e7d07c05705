"""Stored weights on their way to products: expanded, rounded to int8 or 4 bits, laid out.

Compiled where that is to be had (blocks.cpp); every function says what a caller does instead.
Types are ggml's numbers of them, so F32, F16 and BF16 are among them.
"""

import ctypes
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
"""Outputs in a block of the layout that blocks.cpp writes; inputs are filled up to as many."""


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


def room_int8(rows: int, width: int) -> Tensor | None:
    """Return an int8 weight of any content as oneDNN keeps it, for :func:`write_int8`.

    None where it keeps one of this shape another way than blocks.cpp writes it. oneDNN chooses by
    shape and by the calling thread's number of threads, so every such choice is looked at once.
    """
    key = (rows, width, torch.get_num_threads())
    if not _able(width) or not hasattr(torch.ops.mkldnn, "data_ptr") or not _LAYOUTS.get(key, True):
        return None
    values = _any_rows(rows, width)
    room = pack_int8(values)
    if key not in _LAYOUTS:
        _LAYOUTS[key] = _is_ours(room, values)
    return room if _LAYOUTS[key] else None


def write_int8(values: Tensor, room: Tensor) -> None:
    """Lay contiguous int8 rows out in the ``room`` that was made for their shape.

    oneDNN's own reordering takes five times as long and always new memory.
    """
    _call("pv_pack_int8", values, *values.shape, torch.ops.mkldnn.data_ptr(room))


def pack_int8(values: Tensor) -> Tensor:
    """Return int8 rows as oneDNN keeps a weight, in new memory."""
    packed: Tensor = torch.ops.onednn.qlinear_prepack(values, None)
    return packed


_LAYOUTS: dict[tuple[int, int, int], bool] = {}
"""Whether blocks.cpp writes a weight as oneDNN keeps it, by rows, width and threads."""


def _any_rows(rows: int, width: int) -> Tensor:
    """Return rows of which no two in any block of a layout are alike."""
    generator = torch.Generator().manual_seed(0)
    block = torch.randint(-127, 128, (_PACKED, width), dtype=torch.int8, generator=generator)
    return block.repeat(-(-rows // _PACKED), 1)[:rows]


def _is_ours(theirs: Tensor, values: Tensor) -> bool:
    """Whether oneDNN laid rows out as blocks.cpp does."""
    if torch.ops.mkldnn._nbytes(theirs) != _packed_bytes(*values.shape):
        return False
    return all(_is_same(theirs, values, start) for start in range(0, len(values), _PACKED))


def _is_same(theirs: Tensor, values: Tensor, start: int) -> bool:
    """Compare a block of outputs: its weights, and the sums that lie behind all weights."""
    part = values[start : start + _PACKED]
    size = _packed_bytes(len(part), part.shape[1])
    weights, sums = size - 4 * _PACKED, 4 * _PACKED
    ours = torch.empty(size, dtype=torch.int8)
    _call("pv_pack_int8", part, *part.shape, ours)
    raw, at = ours.numpy().tobytes(), torch.ops.mkldnn.data_ptr(theirs)
    end = at + _packed_bytes(len(values), part.shape[1]) - 4 * _whole(len(values))
    return raw == (
        ctypes.string_at(at + start // _PACKED * weights, weights)
        + ctypes.string_at(end + 4 * start, sums)
    )


def _packed_bytes(rows: int, width: int) -> int:
    return _whole(rows) * (_whole(width) + 4)


def _whole(size: int) -> int:
    return -(-size // _PACKED) * _PACKED


def _able(width: int) -> bool:
    return library() is not None and width % LANES == 0 and 0 < width <= _MAX_WIDTH


def _given(stored: Stored) -> tuple[int | None, ...]:
    order = None if stored.order is None else stored.order.ctypes.data
    return stored.type, stored.raw.ctypes.data, order, stored.rows, stored.width


def _call(name: str, *given: Tensor | float | None) -> int:
    raw = [x.data_ptr() if isinstance(x, Tensor) else x for x in given]
    return int(getattr(library(), name)(*raw))
