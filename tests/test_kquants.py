"""Our block encoders against the gguf package's where it has one, and llama.cpp's own error."""

import gguf.quants
import numpy as np
import pytest
import torch
from gguf.constants import GGML_QUANT_SIZES
from gguf.constants import GGMLQuantizationType as Kind
from torch import Tensor

from polyvec.errors import ModelFileError, OutputError
from polyvec.model.quants import dequantize
from polyvec.publish.kquants import KINDS, quantize

K_QUANTS = (Kind.Q4_K, Kind.Q5_K, Kind.Q6_K)
REFERENCES = (Kind.Q8_0, Kind.Q4_0, Kind.Q5_0, Kind.Q5_1, Kind.F16, Kind.BF16)

# llama.cpp's root mean square error on _weights(), relative to the weights' own root mean square:
# ggml_quantize_chunk of llama-cpp-python 0.3.36. bench/parity.py compares live, on a real model.
LLAMA_CPP_ERROR = {
    ("normal", Kind.Q4_K): 0.071014,
    ("normal", Kind.Q5_K): 0.036006,
    ("normal", Kind.Q6_K): 0.017678,
    ("tails", Kind.Q4_K): 0.090054,
    ("tails", Kind.Q5_K): 0.049407,
    ("tails", Kind.Q6_K): 0.024639,
    ("offset", Kind.Q4_K): 0.022979,
    ("offset", Kind.Q5_K): 0.011949,
    ("offset", Kind.Q6_K): 0.012834,
}


def _weights(kind: str, rows: int = 64) -> Tensor:
    """Random weights that any torch gives the same: drawn by numpy."""
    values = np.random.Generator(np.random.PCG64(7)).standard_normal((rows, 512), dtype=np.float32)
    shapes = {"normal": values, "tails": values**3, "offset": values * 0.1 - 0.3}
    return torch.from_numpy(shapes[kind] * np.float32(0.02))


def _decoded(weights: Tensor, kind: Kind) -> Tensor:
    return dequantize(quantize(weights, kind).numpy(), kind, tuple(weights.shape))


def _relative_error(weights: Tensor, kind: Kind) -> float:
    error = (_decoded(weights, kind) - weights).square().mean().sqrt()
    return float(error / weights.square().mean().sqrt())


@pytest.mark.parametrize("kind", REFERENCES, ids=lambda kind: kind.name)
@pytest.mark.parametrize("shape", ["normal", "tails", "offset"])
def test_bytes_are_the_gguf_packages(shape: str, kind: Kind) -> None:
    weights = _weights(shape)
    theirs = gguf.quants.quantize(weights.numpy(), kind).view(np.uint8).reshape(-1)
    assert np.array_equal(quantize(weights, kind).numpy(), theirs)


@pytest.mark.parametrize("case", LLAMA_CPP_ERROR, ids=lambda case: f"{case[0]}-{case[1].name}")
def test_error_is_at_most_2_percent_over_llama_cpps(case: tuple[str, Kind]) -> None:
    shape, kind = case
    assert _relative_error(_weights(shape), kind) <= 1.02 * LLAMA_CPP_ERROR[case]


@pytest.mark.parametrize("kind", K_QUANTS, ids=lambda kind: kind.name)
def test_gguf_package_reads_our_blocks_as_we_do(kind: Kind) -> None:
    weights = _weights("tails")
    raw = quantize(weights, kind).numpy().reshape(len(weights), -1)
    assert np.allclose(gguf.quants.dequantize(raw, kind), _decoded(weights, kind), atol=1e-7)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_zeros_stay_zeros(kind: Kind) -> None:
    assert not _decoded(torch.zeros(2, 512), kind).any()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("value", [0.3, -0.3, 1e-9, 60000.0])
def test_a_constant_is_kept_within_a_step(value: float, kind: Kind) -> None:
    decoded = _decoded(torch.full((1, 256), value), kind)
    # 1e-7: below float16's smallest number a scale is zero, in llama.cpp too
    assert torch.allclose(decoded, torch.tensor(value), rtol=0.01, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_block_does_not_depend_on_its_neighbours(kind: Kind) -> None:
    weights = _weights("tails", rows=1200)  # more than one chunk
    size, width = GGML_QUANT_SIZES[kind]
    alone = quantize(weights[1100:1101], kind)
    start = 1100 * 512 // size * width
    assert torch.equal(quantize(weights, kind)[start : start + len(alone)], alone)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_half_precision_weights_are_taken(kind: Kind) -> None:
    weights = _weights("normal").bfloat16()
    assert torch.equal(quantize(weights, kind), quantize(weights.float(), kind))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_is_no_number_is_refused(kind: Kind, bad: float) -> None:
    weights = torch.ones(1, 256)
    weights[0, 17] = bad
    with pytest.raises(ModelFileError, match="NaN or infinity"):
        quantize(weights, kind)


def test_what_float16_cannot_hold_is_refused() -> None:
    weights = torch.full((1, 256), 70000.0)
    with pytest.raises(OutputError, match=r"70,000 is beyond float16, which Q4_K .* BF16 or F32"):
        quantize(weights, Kind.Q4_K)
    assert torch.equal(_decoded(weights, Kind.F32), weights)


def test_rows_that_are_no_blocks_are_refused() -> None:
    with pytest.raises(OutputError, match="Rows of 48 weights are not whole Q4_K blocks of 256"):
        quantize(torch.zeros(4, 48), Kind.Q4_K)
