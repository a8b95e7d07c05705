"""How many tokens a batch should have on this machine: measured once for a kind of model, and kept.

What is best depends on caches and on how many rows a processor's matrix units want, which no table
says; between 512 and 4,096 tokens the default model differs by a fifth here.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

import orjson
import torch

from polyvec.engine.cpu import cpu_name
from polyvec.engine.runner import Runner
from polyvec.hub import cache_folder
from polyvec.model.packing import Packed
from polyvec.spec import Architecture

MAX_BATCH_TOKENS = {torch.float32: 1_024, torch.bfloat16: 2_048}
"""Of a batch on one core: rows enough for the products to run near their peak, few enough to stay
in cache: measured on the default backbone (dev/LOG.md). bf16 and int8 on AMX need more rows than
fp32 to be fed."""

_DEVICE_BATCH_TOKENS = 16_384
"""On a GPU: enough that its products run at their peak; not measured yet."""

CANDIDATES = (512, 1_024, 2_048, 4_096)
_MAX_KEPT_BYTES = 31 * 2**20

FILE = "calibration.json"
_TEXT_TOKENS = 128
_ROUNDS = 3
_MAX_SECONDS = 3.0
"""After so long the best found is taken, and larger batches are not tried."""


def batch_tokens(shape: Architecture, dtype: torch.dtype, device: torch.device) -> int:
    """Return a batch's tokens until they are measured on this machine."""
    if device.type != "cpu":
        return _DEVICE_BATCH_TOKENS
    return min(MAX_BATCH_TOKENS[dtype], fitting_tokens(shape, dtype))


def fitting_tokens(shape: Architecture, dtype: torch.dtype) -> int:
    """Return the most tokens of a batch that is fast.

    A batch's queries, keys and values must stay under the 32 MiB above which malloc gives every
    block back to the kernel.
    """
    width = (shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim
    return max(256, _MAX_KEPT_BYTES // (width * dtype.itemsize) // 256 * 256)


def calibrated_tokens(
    runner: Runner, shape: Architecture, precision: str, candidates: Sequence[int]
) -> int:
    """Return the fastest of candidates, from the cache or measured now (up to seconds)."""
    key, path = _key(shape, precision), cache_folder() / FILE
    known = _read(path)
    if known.get(key) in candidates:
        return int(known[key])
    best = _measured(runner, candidates)
    _write(path, {**_read(path), key: best})
    return best


def _measured(runner: Runner, candidates: Sequence[int]) -> int:
    """Time a layer on every core with each candidate's tokens, in turn; the least a token wins."""
    ids = list(range(5, 5 + _TEXT_TOKENS))
    cores = torch.get_num_threads()
    spent: dict[int, float] = {}
    started = time.perf_counter()
    for _ in range(_ROUNDS):
        for tokens in sorted(candidates):
            packed = Packed.of([ids] * max(1, tokens // _TEXT_TOKENS))
            seconds = runner.time_layer([packed] * cores) / len(packed.token_ids_T)
            spent[tokens] = min(seconds, spent.get(tokens, seconds))
            if time.perf_counter() - started > _MAX_SECONDS:
                return min(spent, key=spent.__getitem__)
    return min(spent, key=spent.__getitem__)


def _key(shape: Architecture, precision: str) -> str:
    facts = (str(shape), precision, cpu_name(), torch.get_num_threads(), torch.__version__)
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _read(path: Path) -> dict[str, int]:
    try:
        known = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}  # measured again
    return known if isinstance(known, dict) else {}


def _write(path: Path, known: dict[str, int]) -> None:
    """Keep what was measured; where nothing can be written it is measured again next time."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(orjson.dumps(known, option=orjson.OPT_INDENT_2))
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
