from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from polyvec.engine.linear import (
    DenseGated,
    DenseLinear,
    PackedGated,
    PackedLinear,
    gated,
    linear,
)

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
BIASES = pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.05}


def _random(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed + sum(size))) * 0.3


def _dense(rows: int, columns: int, bias: bool, dtype: torch.dtype, seed: int = 0) -> DenseLinear:
    weight = _random(rows, columns, seed=seed).to(dtype)
    return DenseLinear(weight, _random(rows, seed=seed).to(dtype) if bias else None)


def _product(x: Tensor, dense: DenseLinear) -> Tensor:
    bias = None if dense.bias_O is None else dense.bias_O.double()
    return F.linear(x.double(), dense.weight_OI.double(), bias)


@DTYPES
@BIASES
@pytest.mark.parametrize("rows", [0, 1, 33])
def test_the_picked_product_is_exact(dtype: torch.dtype, bias: bool, rows: int) -> None:
    dense = _dense(20, 48, bias, dtype)
    x = _random(rows, 48).to(dtype)
    y = linear(dense.weight_OI, dense.bias_O)(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), _product(x, dense), rtol=0, atol=TOLERANCE[dtype])


@DTYPES
@BIASES
@pytest.mark.parametrize("max_columns", [4096, 24, 7], ids=["one block", "three", "uneven"])
def test_the_picked_gate_is_exact(
    dtype: torch.dtype, bias: bool, max_columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polyvec.engine.linear._MAX_BLOCK_COLUMNS", max_columns)
    gate, up = _dense(72, 48, bias, dtype), _dense(72, 48, bias, dtype, seed=9)
    x = _random(11, 48).to(dtype)
    y = gated(gate, up)(x)
    expected = F.silu(_product(x, gate)) * _product(x, up)
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=4 * TOLERANCE[dtype])


def test_a_cpu_gets_weights_packed_once() -> None:
    dense = _dense(8, 8, False, torch.float32)
    assert isinstance(linear(dense.weight_OI, None), PackedLinear)
    assert isinstance(gated(dense, dense), PackedGated)


def test_without_onednn_products_are_plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polyvec.engine.linear.has_onednn", lambda: False)
    dense = _dense(8, 8, False, torch.float32)
    assert isinstance(linear(dense.weight_OI, None), DenseLinear)
    assert isinstance(gated(dense, dense), DenseGated)


@DTYPES
@BIASES
def test_plain_torch_products_are_exact(dtype: torch.dtype, bias: bool) -> None:
    gate, up = _dense(20, 48, bias, dtype), _dense(20, 48, bias, dtype, seed=9)
    x = _random(5, 48).to(dtype)
    expected = F.silu(_product(x, gate)) * _product(x, up)
    y = DenseGated(gate, up)(x)
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=4 * TOLERANCE[dtype])


def test_a_wide_gates_result_holds_until_the_next_call() -> None:
    """Wide results share one buffer a thread, and another thread has its own."""
    random = torch.Generator().manual_seed(0)
    gate, up = (DenseLinear(torch.randn(5000, 8, generator=random)) for _ in range(2))
    packed = PackedGated(gate, up)
    first, second = torch.randn(2, 3, 8, generator=random)
    with torch.inference_mode():
        mine = packed(first)
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(packed, second).result()
        torch.testing.assert_close(mine, DenseGated(gate, up)(first), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(other, DenseGated(gate, up)(second), atol=1e-4, rtol=1e-4)
