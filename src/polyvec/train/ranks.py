"""Processes that train together: who this is, what they share, and how a model is spread.

Under ``torchrun`` every process has ``RANK`` and ``WORLD_SIZE``; alone there is one. Ranks talk by
nccl on GPUs and gloo on CPUs.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from polyvec.errors import DeviceError
from polyvec.train.network import Network, initial_value, load_weights

Parallel = Literal["none", "ddp", "fsdp"]
_SHARD_FROM_PARAMETERS = 1_000_000_000


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for the others."""
        if self.world > 1:
            dist.barrier()

    def highest(self, number: int) -> int:
        """Return the highest of the ranks' numbers."""
        return self._reduced(number, dist.ReduceOp.MAX)

    def total(self, number: float) -> float:
        """Return the sum of the ranks' numbers."""
        return self._reduced(number, dist.ReduceOp.SUM)

    def _reduced(self, number: Any, how: Any) -> Any:  # noqa: ANN401 (int or float, as given)
        if self.world == 1:
            return number
        kind = torch.int64 if isinstance(number, int) else torch.float64
        tensor = torch.tensor(number, dtype=kind, device=self.device)
        dist.all_reduce(tensor, how)
        return tensor.item()

    def gather_rows(self, rows_ND: Tensor, counts: list[int]) -> Tensor:
        """Return all ranks' rows, one rank's after the other; rank r has ``counts[r]``."""
        if self.world == 1:
            return rows_ND
        padded = rows_ND.new_zeros((max(counts), rows_ND.shape[1]))
        padded[: len(rows_ND)] = rows_ND
        found = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(found, padded)
        return torch.cat([part[:count] for part, count in zip(found, counts, strict=True)])


def is_first_process() -> bool:
    """Whether this is the process that speaks for all; known before and after they are joined."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def join_ranks() -> Iterator[Ranks]:
    """Join the processes torchrun started, or be the only one.

    Raises:
        DeviceError: There are more processes than GPUs on a machine that has some.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        if local >= torch.cuda.device_count():
            raise DeviceError(
                f"Process {local} of this machine has no GPU: there are "
                f"{torch.cuda.device_count()}. Start no more processes than GPUs."
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    if world == 1:
        yield Ranks(0, 1, device)
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), world, device)
    finally:
        dist.destroy_process_group()


def choose_parallel(stated: str, ranks: Ranks, num_parameters: int) -> Parallel:
    """Return how a model is spread over the ranks."""
    if ranks.world == 1:
        return "none"
    if stated == "auto":
        large = num_parameters >= _SHARD_FROM_PARAMETERS
        return "fsdp" if large and ranks.device.type == "cuda" else "ddp"
    return "fsdp" if stated == "fsdp" else "ddp"


def spread(
    network: Network, parallel: Parallel, ranks: Ranks, values: Mapping[str, Tensor]
) -> nn.Module:
    """Load the network's weights on this rank and return what is called in training.

    Sharded weights are read tensor by tensor, and each rank keeps its part.

    Args:
        network: Without weights yet.
        parallel: Whole copies or parts.
        ranks: This process.
        values: Weights that are not the model's files': adapters, a checkpoint's.
    """
    if parallel != "fsdp":
        load_weights(network, ranks.device, values)
        return DistributedDataParallel(network) if parallel == "ddp" else network
    mesh = init_device_mesh(ranks.device.type, (ranks.world,))
    policy = MixedPrecisionPolicy(
        param_dtype=network.dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for block in network.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(network, mesh=mesh, mp_policy=policy)
    network.to_empty(device=ranks.device)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            fill(parameter, initial_value(network, name, parameter, values))
    return network


def fill(tensor: Tensor, value: Tensor) -> None:
    """Give a tensor, or this rank's part of it, its value."""
    value = value.to(tensor.device)
    if isinstance(tensor, DTensor):
        part = distribute_tensor(value, tensor.device_mesh, tensor.placements, src_data_rank=None)
        tensor.to_local().copy_(part.to_local())
    else:
        tensor.copy_(value)


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor that may be spread over ranks as a whole one; all ranks must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@contextmanager
def gradients_stay(module: nn.Module, stay: bool) -> Iterator[None]:
    """While ``stay``, backward passes add to this rank's gradients and send none."""
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(not stay)
        yield
    else:
        ddp = isinstance(module, DistributedDataParallel) and stay
        with module.no_sync() if ddp else nullcontext():  # type: ignore[operator]
            yield
