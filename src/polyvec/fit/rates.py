"""What this machine's cores reach, measured once in a fraction of a second each and kept."""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import torch
from torch.nn import functional as F

from polyvec.engine.cpu import cpu_name, has_fast_bf16, has_int8, keep_freed_memory
from polyvec.engine.linear import DenseLinear, linear
from polyvec.hub import cache_folder

FILE = "rates.json"
_ROWS = 2_048
_MAX_SIDE = 4_096
_HEADS = 8
_ROW_WIDTH = 1_536
_MIN_RUNS = 3
_SECONDS = 0.25
_MAX_AGE_S = 30 * 86_400.0


Run = Callable[[], object]

_this_process: dict[str, float] = {}


def product_rate(outputs: int, inputs: int, precision: str, again: bool = False) -> float | None:
    """Return operations a second of ``[2048, inputs] @ [inputs, outputs]`` on one core.

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
    operations = 2.0 * _ROWS * sides[0] * sides[1]
    key = f"product {precision} {sides}"
    return operations / _known(key, lambda: _product(*sides, precision), again)


def attention_rate(head_dim: int, text_tokens: int, dtype: torch.dtype, again: bool) -> float:
    """Return operations a second of attention over texts of one length, on one core."""
    tokens = min(max(text_tokens, 8), _MAX_SIDE)
    texts = max(1, _ROWS // tokens)
    operations = 4.0 * texts * _HEADS * tokens**2 * head_dim

    def make() -> Run:
        qkv = torch.randn(3, texts, _HEADS, tokens, head_dim, dtype=dtype)
        return lambda: F.scaled_dot_product_attention(*qkv)

    return operations / _known(f"attention {dtype} {head_dim} {tokens}", make, again)


def row_rate(dtype: torch.dtype, again: bool) -> float:
    """Return elements a second of an activation, as a measure of all work on rows, on one core."""

    def make() -> Run:
        x = torch.randn(_ROWS, _ROW_WIDTH, dtype=dtype)
        return lambda: F.silu(x)

    return _ROWS * _ROW_WIDTH / _known(f"rows {dtype}", make, again)


def _known(key: str, make: Callable[[], Run], again: bool) -> float:
    """Return a run's seconds: from this process, from the cache, or measured now."""
    key = f"{cpu_name()} {torch.__version__} {key}"
    path = cache_folder() / FILE
    known = {**_read(path), **_this_process}
    if not again and key in known:
        return known[key]
    seconds = _this_process[key] = _measure(make)
    if not _is_busy():
        _write(path, {**_read(path), key: seconds})
    return seconds


def _is_busy() -> bool:
    """Whether other programs want the cores too, and the caches: it holds for now only."""
    return os.getloadavg()[0] > 0.75 * (os.cpu_count() or 1)


def _has(precision: str) -> bool:
    return precision == "fp32" or (has_fast_bf16() if precision == "bf16" else has_int8())


def _measure(make: Callable[[], Run]) -> float:
    """Return the CPU seconds of the fastest run on one core, which other programs change little."""
    keep_freed_memory()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            return _fastest(make())
    finally:
        torch.set_num_threads(threads)


def _fastest(run: Run) -> float:
    run()  # makes the kernel
    spent: list[float] = []
    until = time.perf_counter() + _SECONDS
    while len(spent) < _MIN_RUNS or time.perf_counter() < until:
        started = time.process_time()
        run()
        spent.append(time.process_time() - started)
    return max(min(spent), 1e-9)


def _product(outputs: int, inputs: int, precision: str) -> Run:
    if precision == "int8":
        x = torch.randint(-127, 127, (_ROWS, inputs), dtype=torch.int8)
        weight = torch.randint(-127, 127, (outputs, inputs), dtype=torch.int8)
        prepacked = torch.ops.onednn.qlinear_prepack(weight, None)
        scale, zero = torch.full((outputs,), 0.01), torch.zeros(outputs, dtype=torch.int64)
        given: tuple[Any, ...] = (x, 0.01, 0, prepacked, scale, zero, None, 1.0, 0)
        given += (torch.bfloat16, "none", [], "")
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
