"""llama.cpp's own block encoder and decoder, called in its shared library."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from torch import Tensor


class _Traits(ctypes.Structure):
    """The head of ``struct ggml_type_traits`` (ggml.h)."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.c_void_p),
    )


class Ggml:
    """The library of a llama.cpp build."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._quantize: Any = self._library.ggml_quantize_chunk
        self._quantize.restype = ctypes.c_size_t
        self._quantize.argtypes = [
            ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p,
            ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
        ]  # fmt: skip
        self._traits: Any = self._library.ggml_get_type_traits
        self._traits.restype, self._traits.argtypes = ctypes.POINTER(_Traits), [ctypes.c_int]

    def quantize(self, weights: Tensor, kind: GGMLQuantizationType) -> np.ndarray:
        """Encode rows of weights, without an importance matrix."""
        rows = weights.float().contiguous().numpy()
        size, width = GGML_QUANT_SIZES[kind]
        raw = np.empty(rows.size // size * width, np.uint8)
        self._quantize(int(kind), rows.ctypes.data, raw.ctypes.data, 0, *rows.shape, None)
        return raw

    def dequantize(self, raw: np.ndarray, kind: GGMLQuantizationType, count: int) -> Tensor:
        """Expand blocks to ``count`` weights."""
        traits = self._traits(int(kind)).contents
        if traits.type_size != GGML_QUANT_SIZES[kind][1]:
            raise SystemExit("This llama.cpp lays out ggml_type_traits otherwise than is known.")
        prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
        to_float: Callable[..., None] = prototype(traits.to_float)
        blocks, weights = np.ascontiguousarray(raw), np.empty(count, np.float32)
        to_float(blocks.ctypes.data, weights.ctypes.data, count)
        return torch.from_numpy(weights)
