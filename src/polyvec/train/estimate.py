"""What a run will need, before it starts: memory by count, time by one pass on real records."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from polyvec.train.batches import Item
from polyvec.train.network import Network
from polyvec.train.optimizer import trained
from polyvec.train.ranks import Parallel, Ranks
from polyvec.train.step import Stepper, StepResult

_LONG_S = 60
"""A pass that took longer is not repeated."""
_MEMORY_FACTS = Path("/proc/meminfo")


@dataclass(frozen=True)
class Estimate:
    """What a run will need."""

    weights_gb: float
    """Weights, gradients and Adam's two moments on this rank."""
    available_gb: float
    peak_gb: float
    """The most memory the first batch's pass took, and Adam's moments."""
    tokens_per_step: float
    tokens_per_s: float
    seconds: float
    """Of all steps, evaluations and checkpoints left out."""


def state_gb(network: nn.Module, parallel: Parallel, ranks: Ranks) -> float:
    """Return the memory of fp32 weights, and of gradients and moments of those trained."""
    weights = sum(p.numel() for p in network.parameters())
    learning = sum(p.numel() for p in trained(network).values())
    spread = ranks.world if parallel == "fsdp" else 1
    return (weights + 3 * learning) * 4 / spread / 1e9


def moments_gb(network: nn.Module, parallel: Parallel, ranks: Ranks) -> float:
    """Return the memory of Adam's two moments, which are there from the first step on."""
    learning = sum(p.numel() for p in trained(network).values())
    return 8 * learning / (ranks.world if parallel == "fsdp" else 1) / 1e9


def activation_gb(network: Network, max_tokens: int) -> float:
    """Return about what one pass of ``max_tokens`` keeps for its gradients.

    Per token and layer the block keeps some 10 rows of the hidden size in fp32 (two norms, the
    residual stream, rotated heads) and, in the precision of products, 6 of the hidden size and 4 of
    the feed-forward. Attention's weights (products, on a CPU) are not counted.
    """
    shape, size = network.files.architecture, network.dtype.itemsize
    a_layer = shape.hidden_size * (10 * 4 + 6 * size) + shape.intermediate_size * 4 * size
    layers = 1 if network.checkpointing else shape.num_layers
    kept = network.checkpointing * shape.num_layers * shape.hidden_size * 4
    return max_tokens * (layers * a_layer + kept) / 1e9


def available_gb(device: torch.device) -> float:
    """Return the memory that can be had now: the GPU's free one, or the machine's."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 1e9
    if _MEMORY_FACTS.is_file():
        return _memory_available(_MEMORY_FACTS.read_text()) / 1e9
    if not hasattr(os, "sysconf") or "SC_AVPHYS_PAGES" not in os.sysconf_names:
        return float("inf")
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9


def _memory_available(facts: str) -> float:
    """Return the bytes that Linux would give, the cache of files that it can drop counted in."""
    named = dict(line.split(":", 1) for line in facts.splitlines() if ":" in line)
    return int(named["MemAvailable"].split()[0]) * 1024


def time_step(stepper: Stepper, items: list[Item], accumulate: int) -> tuple[StepResult, float]:
    """Run a batch forward and back, drop its gradients, and return how long that took."""
    found, spent = StepResult(0.0, 0, 0), 0.0
    for _ in range(2):  # the first finds memory and packs; the second counts
        began = time.monotonic()
        found = stepper.run(items, 0, 1.0, last=True)
        spent = time.monotonic() - began
        stepper.module.zero_grad(set_to_none=True)
        for distillation in stepper.distillations:
            distillation.zero_grad(set_to_none=True)
        if stepper.ranks.highest(int(spent > _LONG_S)):
            break
    return found, spent * accumulate
