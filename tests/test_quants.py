"""Every quantized type against the ``gguf`` package, bit for bit."""

import gguf
import numpy as np
import pytest
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from polyvec.errors import ModelFileError
from polyvec.kernels.library import library
from polyvec.model.quants import dequantize

_T = GGMLQuantizationType

# Type -> byte offsets of its float16 scales, which must be finite.
BLOCK_TYPES = {
    _T.Q8_0: (0,),
    _T.Q4_0: (0,),
    _T.Q4_1: (0, 2),
    _T.Q5_0: (0,),
    _T.Q5_1: (0, 2),
    _T.Q4_K: (0, 2),
    _T.Q5_K: (0, 2),
    _T.Q6_K: (208,),
}


def _random_blocks(kind: GGMLQuantizationType, rows: int, blocks: int) -> np.ndarray:
    random = np.random.default_rng(int(kind))
    size = GGML_QUANT_SIZES[kind][1]
    data = random.integers(0, 256, (rows, blocks, size), dtype=np.uint8)
    for start in BLOCK_TYPES[kind]:
        scales = random.normal(0, 0.1, (rows, blocks, 1)).astype(np.float16)
        data[:, :, start : start + 2] = scales.view(np.uint8)
    return data.reshape(rows, blocks * size)


@pytest.mark.parametrize("kind", BLOCK_TYPES, ids=lambda kind: kind.name)
def test_blocks_equal_the_gguf_package(kind: GGMLQuantizationType) -> None:
    data = _random_blocks(kind, rows=6, blocks=5)
    expected = gguf.dequantize(data, kind)
    ours = dequantize(data.ravel(), kind, expected.shape)
    assert ours.dtype == torch.float32
    np.testing.assert_array_equal(ours.numpy(), expected)


@pytest.mark.parametrize("kind", [_T.F32, _T.F16, _T.BF16], ids=lambda kind: kind.name)
def test_floats_equal_the_gguf_package(kind: GGMLQuantizationType) -> None:
    values = np.random.default_rng(0).normal(0, 3, (4, 32)).astype(np.float32)
    data = gguf.quantize(values, kind).view(np.uint8)
    ours = dequantize(data.ravel(), kind, (4, 32))
    assert ours.dtype == torch.float32
    np.testing.assert_array_equal(ours.numpy(), gguf.dequantize(data, kind))


def test_every_read_type_is_tested_here() -> None:
    from polyvec.model.quants import _DECODERS

    assert set(_DECODERS) == {*BLOCK_TYPES, _T.F32, _T.F16, _T.BF16}


def test_another_type_is_named_with_those_that_are_read() -> None:
    block = np.zeros(GGML_QUANT_SIZES[_T.IQ4_XS][1], np.uint8)
    with pytest.raises(ModelFileError, match=r"type IQ4_XS is not read; polyvec reads BF16, F16"):
        dequantize(block, _T.IQ4_XS, (256,))


def test_a_read_only_view_is_read() -> None:
    data = np.frombuffer(bytes(34), np.uint8)  # one Q8_0 block of zeros
    assert dequantize(data, _T.Q8_0, (32,)).tolist() == [0.0] * 32


@pytest.mark.parametrize(
    "kind", [*BLOCK_TYPES, _T.F32, _T.F16, _T.BF16], ids=lambda kind: kind.name
)
def test_compiled_and_torch_expand_to_the_same_bits(
    kind: GGMLQuantizationType, monkeypatch: pytest.MonkeyPatch
) -> None:
    if library() is None:
        pytest.skip("no kernel was compiled here")
    if kind in BLOCK_TYPES:
        data = _random_blocks(kind, rows=6, blocks=5)
    else:
        values = np.random.default_rng(0).normal(0, 3, (6, 160)).astype(np.float32)
        data = gguf.quantize(values, kind).view(np.uint8)
    shape = gguf.dequantize(data, kind).shape
    compiled = dequantize(data.ravel(), kind, shape)
    monkeypatch.setenv("POLYVEC_KERNELS", "off")
    library.cache_clear()
    try:
        assert torch.equal(dequantize(data.ravel(), kind, shape), compiled)
    finally:
        monkeypatch.undo()
        library.cache_clear()
