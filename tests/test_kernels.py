"""The compiled row operations beside torch's, at every level built for this machine."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from polyvec.errors import DeviceError
from polyvec.kernels import library, plain, rows
from polyvec.kernels.rotation import LANES, radices, rotate

BUILT = [level for level in library.levels() if library._path(level).exists()]


@pytest.fixture(params=BUILT)
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("POLYVEC_KERNELS", request.param)
    library.library.cache_clear()
    yield request.param
    library.library.cache_clear()


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


def close(a: Tensor, b: Tensor, dtype: torch.dtype) -> None:
    torch.testing.assert_close(a, b, rtol=8e-3 if dtype == torch.bfloat16 else 2e-5, atol=2e-5)


DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


@pytest.mark.parametrize("width", [16, 48, 384, 576, 896, 1536, 4096])
def test_the_rotation_is_orthogonal_and_spreads_a_spike(width: int) -> None:
    matrix = rotate(torch.eye(width))
    assert torch.allclose(matrix @ matrix.T, torch.eye(width), atol=1e-5)
    assert (matrix != 0).sum(1).eq(LANES * math.prod(radices(width))).all()
    if width >= 384:
        assert matrix.abs().max() < 0.1


def test_a_width_that_cannot_be_moved_in_vectors_is_left_as_it_is() -> None:
    x = torch.randn(3, 100)
    assert radices(100) == ()
    assert torch.equal(rotate(x), x)


@DTYPES
@pytest.mark.parametrize("width", [32, 384, 576, 1536, 4096, 100])
def test_quantize(level: str, dtype: torch.dtype, width: int) -> None:
    x = (torch.randn(7, width) * torch.logspace(-3, 3, 7)[:, None]).to(dtype)
    got, wanted = rows.quantize(x), plain.quantize(x)
    torch.testing.assert_close(got.scale_T, wanted[1], rtol=1e-5, atol=0)
    assert (got.values_TD.int() - wanted[0].int()).abs().max() <= 1
    restored = got.values_TD.float() * got.scale_T[:, None]
    assert (restored - rotate(x.float())).abs().max(1).values.le(got.scale_T * 0.51).all()


def test_quantize_keeps_zeros_and_shows_what_is_no_number(level: str) -> None:
    x = torch.zeros(3, 64)
    x[1, 5], x[2, 7] = float("nan"), float("inf")
    got = rows.quantize(x)
    assert got.scale_T[0] == 0 and (got.values_TD[0] == 0).all()
    assert not got.scale_T[1:].isfinite().any()


@pytest.mark.parametrize("width", [64, 576, 4096])
def test_rms_norm(level: str, width: int) -> None:
    x, gain = torch.randn(5, width) * 3, torch.rand(width) + 0.5
    for dtype in (torch.float32, torch.bfloat16):
        close(rows.rms_norm(x, gain, 1e-5, dtype), plain.rms_norm(x, gain, 1e-5, dtype), dtype)
    got = rows.rms_norm_int8(x, gain, 1e-5)
    normed = rotate(plain.rms_norm(x, gain, 1e-5, torch.float32))
    error = (got.values_TD.float() * got.scale_T[:, None] - normed).abs()
    assert error.max(1).values.le(got.scale_T * 0.51).all()


@DTYPES
@pytest.mark.parametrize("finished", [True, False])
def test_add_and_layer_norm(level: str, dtype: torch.dtype, finished: bool) -> None:
    x, y = torch.randn(5, 96), torch.randn(5, 96).to(dtype)
    scale, bias = (torch.rand(5), torch.randn(96)) if finished else (None, None)
    summed = x.clone()
    rows.add(summed, y, scale, bias)
    close(summed, x + plain.scaled(y, scale, bias), torch.float32)
    norm = torch.rand(96), torch.randn(96)
    normed = x.clone()
    rows.add_layer_norm(normed, y, norm, 1e-6, scale, bias)
    wanted = torch.layer_norm(x + plain.scaled(y, scale, bias), (96,), *norm, 1e-6)
    close(normed, wanted, torch.float32)


@DTYPES
@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("size", [32, 64, 48])
def test_heads(level: str, dtype: torch.dtype, normed: bool, size: int) -> None:
    gains = (torch.rand(size), torch.rand(size)) if normed else (None, None)
    x = torch.randn(6, 5 * size).to(dtype)
    angle = torch.rand(6, size)
    scale, bias = torch.rand(6), torch.randn(5 * size)
    shape = rows.Heads(3, 1, size, gains[0], gains[1], 1e-6)
    for angles in ((angle.cos(), angle.sin()), None):
        got = rows.heads(x, shape, angles, scale, bias)
        wanted = plain.heads(x, (3, 1, size), gains, 1e-6, scale, bias, angles)
        assert got.shape == (6, 5, size)
        torch.testing.assert_close(
            got, wanted, rtol=1.6e-2, atol=1e-2 if dtype.itemsize == 2 else 1e-5
        )


@DTYPES
@pytest.mark.parametrize("bias", [torch.linspace(-1, 1, 192), None])
def test_activations(level: str, dtype: torch.dtype, bias: Tensor | None) -> None:
    x = torch.linspace(-90, 90, 5 * 192).reshape(5, 192).to(dtype)
    scale = torch.tensor([1.0, 0.1, 0.01, 1.0, 0.5])
    out = torch.full((5, 200), 7.0, dtype=dtype)
    rows.swiglu(x, out[:, :96], scale, bias)
    close(out[:, :96], plain.swiglu(x, scale, bias), dtype)
    assert (out[:, 96:] == 7).all()
    close(rows.gelu(x, scale, bias), plain.gelu(x, scale, bias), dtype)


def test_every_level_gives_a_row_the_same_whatever_stands_beside_it(level: str) -> None:
    x, gain = torch.randn(9, 576), torch.ones(576)
    together = rows.rms_norm_int8(x, gain, 1e-5)
    alone = rows.rms_norm_int8(x[4:5].contiguous(), gain, 1e-5)
    assert torch.equal(together.values_TD[4:5], alone.values_TD)
    assert torch.equal(together.scale_T[4:5], alone.scale_T)


def test_a_level_that_is_not_to_be_had_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYVEC_KERNELS", "avx9")
    library.library.cache_clear()
    try:
        with pytest.raises(DeviceError, match="avx9"):
            library.library()
    finally:
        library.library.cache_clear()


def test_the_compiled_kernels_are_used(level: str) -> None:
    assert rows.compiled(torch.zeros(2, 64), width=64)


def test_off_uses_torch_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(3, 576)
    compiled = rows.quantize(x)
    monkeypatch.setenv("POLYVEC_KERNELS", "off")
    library.library.cache_clear()
    try:
        assert not rows.compiled(x, width=576)
        by_torch = rows.quantize(x)
    finally:
        library.library.cache_clear()
    assert (compiled.values_TD.int() - by_torch.values_TD.int()).abs().max() <= 1
    restored = by_torch.values_TD.float() * by_torch.scale_T[:, None]
    assert (restored - rotate(x)).abs().max(1).values.le(by_torch.scale_T * 0.51).all()
