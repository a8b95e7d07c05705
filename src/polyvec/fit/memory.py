"""The peak memory of a way to run a model, by part.

The engine's own arithmetic (:mod:`polyvec.engine.budget`) gives every part. What it promises is an
upper bound, with room for what malloc may keep; here is what is expected instead, checked against
measured peaks by ``bench/fit.py`` and in ``tests/test_fit_memory.py``.
"""

from dataclasses import dataclass, replace

import torch

from polyvec.engine.budget import (
    MAX_SUPER_TOKENS,
    Plan,
    filled,
    held,
    largest_matrix,
    live_token_bytes,
    needs,
    super_token_bytes,
)
from polyvec.engine.calibrate import CANDIDATES, MAX_BATCH_TOKENS, fitting_tokens
from polyvec.engine.holding import Holding
from polyvec.fit.facts import ModelFacts
from polyvec.spec import Architecture, BertArchitecture

_PROCESS_BYTES = 280 * 10**6
"""Python, torch, a tokenizer, threads' stacks and oneDNN's code, as measured after loading."""
_GPU_PROCESS_BYTES = 600 * 10**6
"""CUDA's context, its libraries and what they keep: assumed, no GPU was at hand."""
_KEPT_BYTES = 113 * 10**6
"""What malloc keeps, at most, of a table that was expanded to fp32 while it was loaded."""
_KEPT_FROM_BYTES, _KEPT_BELOW_BYTES = 8 * 2**20, 32 * 2**20
"""The widest block of a batch that leaves holes in malloc's arenas (their pieces have 64 MiB), and
where malloc gives a block straight back to the kernel."""
_KEPT_FROM_LAYERS, _KEPT_ALL_LAYERS = 4, 10
"""The holes grow from layer to layer, and then no more (dev/LOG.md, 32 layers)."""
GPU_BATCH_TOKENS = 16_384
"""Of a batch on a GPU (:mod:`polyvec.engine.calibrate`)."""


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak, by part."""

    process: int
    weights: int
    table: int
    expanded: int
    """Two layers read or expanded, where layers are not resident."""
    batches: int
    """What a block makes of the tokens of a batch, on each core."""
    in_step: int
    """Of the tokens of a super-batch."""
    loading: int = 0
    """What only loading takes, beyond the rest, and what is left of it."""
    host: int = 0
    """In the machine's own memory, where the rest is a GPU's."""

    @property
    def total(self) -> int:
        """Bytes at the peak, on the device."""
        return (
            self.process + self.weights + self.table + self.expanded + self.batches
            + self.in_step + self.loading
        )  # fmt: skip


@dataclass(frozen=True)
class Tokens:
    """How many go together."""

    batch: int
    """Of a batch; each core has one."""
    in_step: int
    """Of a super-batch, where layers are packed or streamed; else none."""


def cpu_memory(
    facts: ModelFacts,
    holding: Holding,
    precision: str,
    dtype: torch.dtype,
    cores: int,
    together: Tokens | None = None,
) -> Memory:
    """Return the expected peak on a CPU, for a corpus that fills every batch.

    Args:
        facts: The model.
        holding: Where its layers are.
        precision: ``fp32``, ``bf16``, ``int8`` or ``packed``.
        dtype: What is computed in beside int8 products.
        cores: Each has a batch.
        together: How many tokens; None is what the engine takes without a limit of memory.
    """
    shape, kept = facts.architecture, held(facts, holding, precision, dtype)
    rounded = precision in ("int8", "packed")
    together = together or _unlimited(shape, holding, dtype)
    batches = cores * together.batch * _live_bytes(shape, dtype, rounded)
    batches += int(batches * _share_kept(shape, holding, dtype, together.batch))
    in_step = together.in_step * super_token_bytes(shape)
    memory = Memory(
        _PROCESS_BYTES, kept.layers, kept.table, kept.expanded, batches, in_step,
    )  # fmt: skip
    return replace(memory, loading=_loading(facts, memory, holding, rounded, dtype))


def _unlimited(shape: Architecture, holding: Holding, dtype: torch.dtype) -> Tokens:
    in_step = 0 if holding.place == "resident" else MAX_SUPER_TOKENS
    return Tokens(_batch_tokens(shape, dtype, holding), in_step)


def tokens_within(
    facts: ModelFacts,
    holding: Holding,
    precision: str,
    dtype: torch.dtype,
    cores: int,
    memory_bytes: int,
) -> Tokens | None:
    """Return how many tokens the engine takes together where it is told ``--memory``.

    None where it would refuse: what it promises does not fit.
    """
    need = needs(facts, holding, precision, dtype, in_use=_PROCESS_BYTES)
    if need.least(cores) > memory_bytes:
        return None
    most = min(MAX_BATCH_TOKENS[dtype], fitting_tokens(facts.architecture, dtype))
    plan = filled(Plan(holding, most, MAX_SUPER_TOKENS), need, memory_bytes, cores)
    return Tokens(plan.batch_tokens, 0 if holding.place == "resident" else plan.super_tokens)


def _share_kept(shape: Architecture, holding: Holding, dtype: torch.dtype, tokens: int) -> float:
    """Return what malloc keeps of batches, beside what is alive, where they go in step."""
    block = tokens * shape.intermediate_size * dtype.itemsize
    if holding.place == "resident" or not _KEPT_FROM_BYTES <= block < _KEPT_BELOW_BYTES:
        return 0.0
    grown = (shape.num_layers - _KEPT_FROM_LAYERS) / (_KEPT_ALL_LAYERS - _KEPT_FROM_LAYERS)
    return min(1.0, max(0.0, grown))


def _batch_tokens(shape: Architecture, dtype: torch.dtype, holding: Holding) -> int:
    """Return the largest batch: resident models try larger ones to find the fastest."""
    most = fitting_tokens(shape, dtype)
    if holding.place == "resident":
        return max([n for n in CANDIDATES if n <= most] or [256])
    return min(MAX_BATCH_TOKENS[dtype], most)


def _live_bytes(shape: Architecture, dtype: torch.dtype, rounded: bool) -> int:
    """Return what a block makes of a token of a batch.

    An encoder's activation is a part of its product, but not in int8.
    """
    live = live_token_bytes(shape, dtype.itemsize)
    if isinstance(shape, BertArchitecture) and not rounded:
        live -= dtype.itemsize * 2 * min(shape.intermediate_size, 4096)
    return live


def _loading(
    facts: ModelFacts, memory: Memory, holding: Holding, rounded: bool, dtype: torch.dtype
) -> int:
    """Return what loading adds to the peak of a resident model."""
    shape = facts.architecture
    if holding.place != "resident":
        return 0
    left = 0
    if facts.has_blocks and dtype != torch.float32:
        left = min(_KEPT_BYTES, 4 * shape.vocab_size * shape.hidden_size)
    if not rounded:
        return left
    # The widest matrix as rounded values and as oneDNN packs it, and the table read beside them.
    while_loading = memory.table + 4 * largest_matrix(shape)
    return max(left, while_loading - memory.batches)


def gpu_memory(facts: ModelFacts, holding: Holding, dtype: torch.dtype) -> Memory:
    """Return the expected peak on a GPU; not measured yet, since none was at hand."""
    shape, kept = facts.architecture, held(facts, holding, str(dtype), dtype)
    tokens = GPU_BATCH_TOKENS * _live_bytes(shape, dtype, rounded=False)
    is_resident = holding.place == "resident"
    in_step = 0 if is_resident else MAX_SUPER_TOKENS * super_token_bytes(shape)
    on_device = kept.layers if is_resident else 0
    host = _PROCESS_BYTES + kept.expanded + kept.layers * (not is_resident)
    return Memory(
        _GPU_PROCESS_BYTES, on_device, kept.table, kept.expanded, tokens, in_step, host=host
    )
