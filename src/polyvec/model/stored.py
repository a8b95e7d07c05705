"""Rows of weights as their files have them, expanded when they are needed."""

import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from torch import Tensor

from polyvec.kernels import blocks
from polyvec.kernels.blocks import Stored
from polyvec.model.quants import dequantize

FLOAT_TYPES = {
    torch.float32: GGMLQuantizationType.F32,
    torch.float16: GGMLQuantizationType.F16,
    torch.bfloat16: GGMLQuantizationType.BF16,
}
"""ggml's types of plain numbers."""

PLAIN_TYPES = {kind: dtype for dtype, kind in FLOAT_TYPES.items()}


def of_tensor(tensor: Tensor) -> Stored:
    """Return a float tensor's rows; float64 is rounded to float32."""
    tensor = tensor.contiguous() if tensor.dtype in FLOAT_TYPES else tensor.float().contiguous()
    raw = tensor.view(torch.uint8).numpy().reshape(-1)
    return Stored(FLOAT_TYPES[tensor.dtype], raw, tensor.shape[0], tensor.shape[1])


def expanded(stored: Stored, out: Tensor) -> None:
    """Write stored rows into ``out [rows, width]``, fp32 or bf16."""
    if blocks.expand(stored, out):
        return
    shape = (len(stored.raw) // _row_bytes(stored), stored.width)
    exact = dequantize(stored.raw, GGMLQuantizationType(stored.type), shape)
    out.copy_(exact if stored.order is None else exact[torch.from_numpy(stored.order)])


def _row_bytes(stored: Stored) -> int:
    size, count = GGML_QUANT_SIZES[GGMLQuantizationType(stored.type)]
    return stored.width // size * count
