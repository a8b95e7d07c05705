"""Finds the compiled kernels that this machine's processor can run.

The build (hatch_build.py) compiles rows.cpp once for each set of instructions that the compiler
and the platform know. Without a compiler there is none, and torch's operators do the same work.
"""

import ctypes
import functools
import os
import platform
import warnings
from pathlib import Path
from typing import Any

import torch

from polyvec.errors import DeviceError

VERSION = 3
"""The interface of rows.cpp and blocks.cpp; a library of another is left from an older build."""

_NEEDS = {
    "avx512bf16": ("avx512_bf16", "avx512_f", "avx512_bw", "avx512_dq", "avx512_vl"),
    "avx512": ("avx512_f", "avx512_bw", "avx512_dq", "avx512_vl"),
    "avx2": ("avx2", "fma3", "f16c", "bmi2"),
}

_P, _N, _F, _I = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_int32
_ROTATION: list[Any] = [_P, _I, _F]
_STORED: list[Any] = [_I, _P, _P, _N, _N]
_SIGNATURES: dict[str, list[Any]] = {
    "quantize": [_P, _N, _N, *_ROTATION, _P, _P],
    "rms_norm": [_P, _N, _N, _P, _F, _P],
    "add": [_P, _P, _N, _N, _P, _P],
    "add_layer_norm": [_P, _P, _N, _N, _P, _P, _P, _P, _F],
    "heads": [_P, _P, _N, _N, _N, _N, _P, _P, _F, _P, _P, _P, _P],
    "swiglu": [_P, _P, _N, _N, _N, _P, _P],
    "gelu": [_P, _P, _N, _N, _P, _P],
    "expand": [*_STORED, _P],
}
"""Each in fp32 and bf16."""

_OTHERS: dict[str, list[Any]] = {
    "rms_norm_int8": [_P, _N, _N, _P, _F, *_ROTATION, _P, _P],
    "expand_int8": [*_STORED, *_ROTATION, _P, _P],
    "expand_int4": [*_STORED, *_ROTATION, _P, _P, _P],
    "int4_to_int8": [_P, _P, _N, _P],
    "pack_int8": [_P, _N, _N, _P],
}


def levels() -> list[str]:
    """Return the builds this processor can run, the best first."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return ["native"]
    flags = torch.cpu.get_capabilities()
    return [name for name, needed in _NEEDS.items() if all(flags.get(flag) for flag in needed)]


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the compiled kernels, or None where there are none for this machine.

    ``POLYVEC_KERNELS`` set to ``off`` leaves them alone, to a level's name takes that one.

    Raises:
        DeviceError: ``POLYVEC_KERNELS`` names a level that is not built or cannot run here.
    """
    wanted = os.environ.get("POLYVEC_KERNELS", "auto")
    if wanted == "off":
        return None
    built = [name for name in levels() if _path(name).exists()]
    if wanted != "auto":
        if wanted not in built:
            raise DeviceError(
                f"POLYVEC_KERNELS is {wanted!r}; built and able to run here: "
                f"{', '.join(built) or 'none'}. 'off' uses torch's operators, 'auto' the best."
            )
        built = [wanted]
    for name in built:
        loaded = _open(_path(name))
        if loaded is not None:
            return loaded
    if built:
        warnings.warn(
            "polyvec's compiled kernels are of another version and are left unused: torch's "
            "operators do their work, more slowly. Build them again: pip install --editable . in "
            "the source tree, or install polyvec again.",
            RuntimeWarning,
            stacklevel=2,
        )
    return None


def _path(level: str) -> Path:
    return Path(__file__).with_name(f"_rows_{level}.so")


def _open(path: Path) -> ctypes.CDLL | None:
    loaded = ctypes.CDLL(str(path))
    if loaded.pv_version() != VERSION:
        return None
    for name, signature in _SIGNATURES.items():
        for dtype in ("f32", "bf16"):
            _declare(loaded, f"pv_{name}_{dtype}", signature)
    for name, signature in _OTHERS.items():
        _declare(loaded, f"pv_{name}", signature)
    return loaded


def _declare(loaded: ctypes.CDLL, name: str, signature: list[Any]) -> None:
    function = getattr(loaded, name)
    function.argtypes, function.restype = signature, ctypes.c_int32
