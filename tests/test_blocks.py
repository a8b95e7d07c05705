"""Stored weights rounded to int8 and 4 bits, and oneDNN's layout, against torch's operators."""

import ctypes
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from polyvec.engine.matrices import Arena
from polyvec.kernels import blocks, plain, rows
from polyvec.kernels.blocks import Stored
from polyvec.kernels.library import library
from polyvec.kernels.rotation import rotate
from polyvec.model.stored import expanded, of_tensor

pytestmark = pytest.mark.skipif(library() is None, reason="no kernel was compiled here")


def _weight(height: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(height, width, generator=torch.Generator().manual_seed(height)).to(dtype)


def _bytes(packed: Tensor) -> bytes:
    size = torch.ops.mkldnn._nbytes(packed)
    return ctypes.string_at(torch.ops.mkldnn.data_ptr(packed), size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_int8_rows_are_those_of_activations(dtype: torch.dtype) -> None:
    weight = _weight(5, 192, dtype)
    values, scale = _in_int8(of_tensor(weight))
    expected = rows.quantize(weight.float())
    # rows.cpp fuses multiplications and additions, blocks.cpp must not: a scale's last bit differs.
    assert (values.int() - expected.values_TD.int()).abs().max() <= 1
    assert torch.allclose(scale, expected.scale_T, rtol=3e-7, atol=0)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (80, 48), (128, 576), (3, 16), (200, 96)])
@pytest.mark.usefixtures("one_thread")
def test_the_layout_is_onednns(height: int, width: int) -> None:
    values = torch.randint(-127, 128, (height, width), dtype=torch.int8)
    theirs = torch.ops.onednn.qlinear_prepack(values, None)
    room = blocks.room_int8(height, width)
    assert room is not None
    blocks.write_int8(torch.ones_like(values), room)
    blocks.write_int8(values, room)
    assert _bytes(room) == _bytes(theirs)


@pytest.mark.parametrize(("height", "width"), [(96, 96), (128, 64), (192, 64), (4096, 128)])
@pytest.mark.usefixtures("one_thread")
def test_the_layout_is_onednns_for_any_number_of_threads(height: int, width: int) -> None:
    """oneDNN cuts 96 outputs into blocks of 48 for four threads: shorter, so ours overran it."""
    values = torch.randint(-127, 128, (height, width), dtype=torch.int8)
    blocks.room_int8(height, width)  # as another model would that was loaded before
    torch.set_num_threads(4)
    packed = Arena().int8("weight", values)
    assert _bytes(packed) == _bytes(torch.ops.onednn.qlinear_prepack(values, None))


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_rows_in_another_order() -> None:
    weight = _weight(4, 32)
    order = np.array([2, 0], dtype=np.int64)
    stored = of_tensor(weight)._replace(rows=2, order=order)
    out = torch.empty(2, 32)
    expanded(stored, out)
    assert torch.equal(out, weight[[2, 0]])
    turned = of_tensor(weight[[2, 0]].contiguous())
    (values, scale), (same_values, same_scale) = _in_int8(stored), _in_int8(turned)
    assert torch.equal(values, same_values)
    assert torch.equal(scale, same_scale)


def _in_int8(stored: Stored) -> tuple[Tensor, Tensor]:
    values = torch.empty(stored.rows, stored.width, dtype=torch.int8)
    scale = torch.empty(stored.rows)
    assert blocks.expand_int8(stored, values, scale)
    return values, scale


def test_four_bits_are_near_and_expand_without_rounding() -> None:
    weight = _weight(64, 512)
    packed = blocks.expand_int4(of_tensor(weight))
    assert packed is not None
    assert packed.codes.numel() * 8 + packed.multipliers.numel() * 8 == weight.numel() * 4.25
    values = torch.empty(64, 512, dtype=torch.int8)
    blocks.int4_to_int8(packed, values)
    assert torch.equal(values, plain.int4_to_int8(packed.codes, packed.multipliers))
    rotated = rotate(weight)
    error = (values * packed.scale[:, None] - rotated).norm() / rotated.norm()
    assert 0.05 < error < 0.1  # 4 bits of normal numbers in groups of 32 (Q4_0's is .09)


def test_four_bits_of_zeros_and_of_one_peak() -> None:
    weight = torch.zeros(2, 64)
    weight[1] = rotate(torch.eye(64))[0]  # one large value after the rotation, which undoes itself
    packed = blocks.expand_int4(of_tensor(weight))
    assert packed is not None
    values = torch.empty(2, 64, dtype=torch.int8)
    blocks.int4_to_int8(packed, values)
    assert torch.allclose(values * packed.scale[:, None], rotate(weight), atol=1e-6)


def test_unknown_types_and_widths_are_left_to_the_caller() -> None:
    raw = np.zeros(64, np.uint8)
    assert not blocks.expand(Stored(20, raw, 1, 16), torch.empty(1, 16))  # IQ4_NL
    assert not blocks.expand(Stored(0, raw, 1, 10), torch.empty(1, 10))
    assert not blocks.expand(Stored(12, raw, 1, 16), torch.empty(1, 16))  # no whole Q4_K block
    assert blocks.expand_int4(Stored(0, raw, 1, 16)) is None
