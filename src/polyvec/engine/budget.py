"""How much memory a way of running a model takes, and what a given amount allows.

Formulas, with ``w`` the weights of a layer's matrices and ``b`` bytes of one in the precision:

- resident: layers * w * b, and the token table in the dtype of products;
- packed: the file's blocks, or 4.25 bits a weight, and two layers expanded: 2 * w * b;
- streamed: two layers: 2 * w * b;
- int8: b is 1, but for queries, keys and values, which stay in the dtype of products unless the
  weights are rounded to 4 bits;
- a batch: what a block makes of each of its tokens, on each core at once;
- a super-batch (packed and streamed): the fp32 residual stream and the rotary angles of each token.

Checked against measured peaks (bench/cpu.py, part ``wide``; tests/test_holding.py).
"""

import resource
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch

from polyvec.engine.holding import Holding
from polyvec.errors import InputError
from polyvec.model.files import ModelFiles
from polyvec.spec import Architecture, BertArchitecture, LlamaArchitecture

MAX_SUPER_TOKENS = 32_768
"""More tokens in step gain nothing: a layer's reading is a few percent of its products by then."""
_MIN_BATCH_TOKENS = 128
_MARGIN_BYTES = 224 * 2**20
"""Threads' stacks, oneDNN's code and scratch, results on their way, and what malloc keeps of freed
memory for each thread: up to 100 MB was seen."""
_SCRATCH_BYTES = 32 * 2**20
_INT4_BITS = 4.25


@dataclass(frozen=True)
class Plan:
    """How a model is held and how many tokens go together."""

    holding: Holding
    batch_tokens: int
    super_tokens: int


@dataclass(frozen=True)
class Needs:
    """Bytes a model takes, held in one way."""

    fixed: int
    """Whatever is embedded: weights, arenas, what the process has already."""
    of_batch_token: int
    """On every core, of each token of a batch."""
    of_super_token: int
    """Of each token that goes in step with others."""

    def least(self, cores: int) -> int:
        """Return the least memory that embeds at all: one smallest batch."""
        return self.total(_MIN_BATCH_TOKENS, cores * _MIN_BATCH_TOKENS, cores)

    def total(self, batch_tokens: int, super_tokens: int, cores: int) -> int:
        """Return the memory of batches and super-batches of so many tokens."""
        return (
            self.fixed + cores * batch_tokens * self.of_batch_token
            + super_tokens * self.of_super_token
        )  # fmt: skip


def needs(
    files: "Sized", holding: Holding, precision: str, dtype: torch.dtype, in_use: int | None = None
) -> Needs:
    """Return what a model takes in memory (see the module's formulas).

    ``in_use`` is what the process has already, in bytes; None asks it.
    """
    in_use = memory_in_use() if in_use is None else in_use
    fixed = in_use + _MARGIN_BYTES + held(files, holding, precision, dtype).total
    shape = files.architecture
    return Needs(fixed, batch_token_bytes(shape, dtype.itemsize), super_token_bytes(shape))


class Sized(Protocol):
    """A model of which the shape is known, and how large its files are."""

    @property
    def architecture(self) -> Architecture:
        """The network's shape."""
        ...

    @property
    def size_bytes(self) -> int:
        """Bytes of the weight files."""
        ...


@dataclass(frozen=True)
class Held:
    """Bytes of a model's weights, held in one way."""

    layers: int
    """Of all layers, arranged for products or in blocks; none when they are streamed."""
    table: int
    """Of the token table, where it is in memory."""
    expanded: int
    """Of two layers ready to multiply with, and what is needed to make them so."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.layers + self.table + self.expanded


def held(files: Sized, holding: Holding, precision: str, dtype: torch.dtype) -> Held:
    """Return what a model's weights take in memory (see the module's formulas)."""
    shape, rounded = files.architecture, precision in ("int8", "packed")
    layer = layer_weights(shape)
    layer_bytes = layer * (1 if rounded else dtype.itemsize)
    if rounded and not holding.four_bits:
        layer_bytes += qkv_weights(shape) * (dtype.itemsize - 1)
    table = shape.vocab_size * shape.hidden_size * dtype.itemsize
    if holding.place == "resident":
        return Held(shape.num_layers * layer_bytes, table, 0)
    expanded = 2 * layer_bytes + _SCRATCH_BYTES
    return Held(
        _blocks_bytes(files, holding, layer) if holding.place == "packed" else 0,
        table if isinstance(shape, BertArchitecture) else 0,
        expanded + (largest_matrix(shape) if rounded else 0),
    )


def layer_weights(shape: Architecture) -> int:
    """Return the weights of one layer's matrices."""
    if isinstance(shape, LlamaArchitecture):
        heads = 2 * shape.num_heads + 2 * shape.num_kv_heads
        attention = shape.hidden_size * shape.head_dim * heads
        return attention + 3 * shape.hidden_size * shape.intermediate_size
    return 4 * shape.hidden_size**2 + 2 * shape.hidden_size * shape.intermediate_size


def qkv_weights(shape: Architecture) -> int:
    """Return the weights of one layer's queries, keys and values."""
    return shape.hidden_size * (shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim


def largest_matrix(shape: Architecture) -> int:
    """Return the weights of the largest matrix that is read at once."""
    return shape.hidden_size * max(
        shape.intermediate_size, (shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim, 4096
    )


def _blocks_bytes(files: Sized, holding: Holding, layer: int) -> int:
    if holding.four_bits:
        return int(files.architecture.num_layers * layer * _INT4_BITS / 8)
    table = files.architecture.vocab_size * files.architecture.hidden_size
    # The table stays in the file, in no more bits than the file's mean.
    share = 1 - table / files.architecture.num_parameters
    return int(files.size_bytes * share)


def live_token_bytes(shape: Architecture, itemsize: int) -> int:
    """Return what a block makes of a token of a batch."""
    heads = (shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim
    wide = 2 * min(shape.intermediate_size, 4096) + 2 * shape.intermediate_size
    return itemsize * (3 * heads + 4 * shape.hidden_size + wide) + 4 * shape.hidden_size


def batch_token_bytes(shape: Architecture, itemsize: int) -> int:
    """Return what a block makes of a token of a batch, and what malloc keeps of it."""
    # malloc keeps as much again, after some ten layers (dev/LOG.md)
    return live_token_bytes(shape, itemsize) * 2


def super_token_bytes(shape: Architecture) -> int:
    """Return what stays of a token that goes in step with others, from layer to layer."""
    return 4 * shape.hidden_size + 2 * 4 * shape.head_dim + 64


def memory_in_use() -> int:
    """Return the bytes of memory this process has resident now."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def plan_memory(
    files: ModelFiles,
    choices: list[Holding],
    precision: str,
    dtype: torch.dtype,
    wanted: Plan,
    memory_bytes: int,
    cores: int,
) -> Plan:
    """Return the first holding that fits, with as many tokens together as there is room for.

    Raises:
        InputError: Not even the last one fits; the message says what it needs.
    """
    for holding in choices:
        need = needs(files, holding, precision, dtype)
        if need.least(cores) <= memory_bytes:
            return filled(replace(wanted, holding=holding), need, memory_bytes, cores)
    least = min(needs(files, h, precision, dtype).least(cores) for h in choices)
    raise InputError(
        f"{memory_bytes / 1e9:.2f} GB of memory is too little for {files.path.name} in "
        f"{precision}, {' or '.join(h.place for h in choices)}: at least {least / 1e9:.2f} GB is "
        f"needed, of which {memory_in_use() / 1e9:.2f} GB is in use already. Allow that, or choose "
        "another precision (int8 takes half of bf16) or a smaller model."
    )


def filled(plan: Plan, need: Needs, memory_bytes: int, cores: int) -> Plan:
    """Give batches their wanted size, or the largest that fits, then super-batches what is left."""
    batch = plan.batch_tokens
    while batch > _MIN_BATCH_TOKENS and need.total(batch, 4 * batch, cores) > memory_bytes:
        batch //= 2
    batch = max(batch, _MIN_BATCH_TOKENS)
    left = memory_bytes - need.total(batch, 0, cores)
    tokens = max(_MIN_BATCH_TOKENS, left // need.of_super_token)
    return Plan(plan.holding, batch, min(plan.super_tokens, tokens))
