"""What this machine's products reach, measured once in a fraction of a second and kept."""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import torch

from polyvec.engine.cpu import cpu_name, has_fast_bf16, has_int8, keep_freed_memory
from polyvec.engine.linear import DenseLinear, linear
from polyvec.hub import cache_folder

FILE = "rates.json"
_ROWS = 2_048
_MAX_SIDE = 4_096
_SECONDS = 0.25
_MAX_AGE_S = 30 * 86_400.0


_this_process: dict[str, float] = {}


def measured_rates(outputs: int, inputs: int, precision: str, again: bool = False) -> float | None:
    """Return operations a second of a product ``[2048, inputs] @ [inputs, outputs]`` here.

    Args:
        outputs: Of the weight; measured up to 4,096, above which the rate no longer changes.
        inputs: Of the weight, likewise.
        precision: ``fp32``, ``bf16`` or ``int8``.
        again: Measure even if it is known.

    Returns:
        None where this processor has no such products in hardware.
    """
    if not _has(precision):
        return None
    sides = min(outputs, _MAX_SIDE), min(inputs, _MAX_SIDE)
    key = f"{cpu_name()} {torch.get_num_threads()} {torch.__version__} {precision} {sides}"
    path = cache_folder() / FILE
    known = {**_read(path), **_this_process}
    if not again and key in known:
        return known[key]
    rate = _this_process[key] = _measure(*sides, precision)
    if not _is_busy():
        _write(path, {**_read(path), key: rate})
    return rate


def _is_busy() -> bool:
    """Whether other programs want the cores too: what is measured then holds for now only."""
    return os.getloadavg()[0] > 0.75 * (os.cpu_count() or 1)


def _has(precision: str) -> bool:
    return precision == "fp32" or (has_fast_bf16() if precision == "bf16" else has_int8())


def _measure(outputs: int, inputs: int, precision: str) -> float:
    keep_freed_memory()
    with torch.inference_mode():
        run = _product(outputs, inputs, precision)
        run()
        spent: list[float] = []
        until = time.perf_counter() + _SECONDS
        while len(spent) < 3 or time.perf_counter() < until:
            started = time.perf_counter()
            run()
            spent.append(time.perf_counter() - started)
    return 2.0 * _ROWS * outputs * inputs / min(spent)


def _product(outputs: int, inputs: int, precision: str) -> Callable[[], object]:
    if precision == "int8":
        x = torch.randint(-127, 127, (_ROWS, inputs), dtype=torch.int8)
        weight = torch.randint(-127, 127, (outputs, inputs), dtype=torch.int8)
        prepacked = torch.ops.onednn.qlinear_prepack(weight, None)
        scale, zero = torch.full((outputs,), 0.01), torch.zeros(outputs, dtype=torch.int64)
        given: tuple[Any, ...] = (
            x,
            0.01,
            0,
            prepacked,
            scale,
            zero,
            None,
            1.0,
            0,
            torch.bfloat16,
            "none",
            [],
            "",
        )
        return lambda: torch.ops.onednn.qlinear_pointwise(*given)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    rows, weights = torch.randn(_ROWS, inputs, dtype=dtype), torch.randn(outputs, inputs)
    product = linear(DenseLinear(weights.to(dtype)).weight_OI, None)
    return lambda: product(rows)


def _read(path: Path) -> dict[str, float]:
    try:
        fresh = time.time() - path.stat().st_mtime < _MAX_AGE_S
        known = orjson.loads(path.read_bytes()) if fresh else {}
    except (OSError, orjson.JSONDecodeError):
        return {}  # measured again
    return known if isinstance(known, dict) else {}


def _write(path: Path, known: dict[str, float]) -> None:
    """Keep what was measured; where nothing can be written it is measured again next time."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(orjson.dumps(known, option=orjson.OPT_INDENT_2))
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
