"""Packed tokens through all layers of a model."""

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any, TypeVar

import torch
from torch import Tensor

from polyvec.engine.cpu import keep_freed_memory
from polyvec.engine.holding import Holding
from polyvec.engine.networks import open_network
from polyvec.engine.workers import map_ahead, workers
from polyvec.model.files import ModelFiles
from polyvec.model.packing import Packed
from polyvec.spec import Attention

R = TypeVar("R")


class Runner:
    """Runs batches layer by layer: one layer over all batches, then the next layer.

    So a layer is needed once per call, wherever it comes from.
    """

    def __init__(
        self,
        files: ModelFiles,
        dtype: torch.dtype,
        device: torch.device,
        quantized: bool = False,
        holding: Holding | None = None,
    ) -> None:
        self.network = open_network(files, dtype, device, quantized, holding)
        self.device = device
        self._is_alone = False
        keep_freed_memory()

    @property
    def is_resident(self) -> bool:
        """Whether all weights are in memory, so that batches need not go in step."""
        return self.network.source.is_resident

    def run(
        self, batches: Sequence[Packed], between_layers: Callable[[], None] | None = None
    ) -> list[Tensor]:
        """Return each batch's token states, fp32 ``[T, D]``, as the model gives them out.

        ``between_layers`` is called before every layer and may run other batches meanwhile; not
        where layers are packed or streamed, of which only one at a time is there.
        """
        with torch.inference_mode():
            return [self.network.finish(x) for x in self._through(batches, between_layers)]

    def _through(
        self, batches: Sequence[Packed], between_layers: Callable[[], None] | None = None
    ) -> list[Tensor]:
        """Return the states after the last layer, unfinished."""
        network = self.network
        contexts = [network.context(packed) for packed in batches]
        states = [network.embed(packed) for packed in batches]
        for layer in network.source.layers():
            if between_layers is not None and self.is_resident:
                between_layers()
            block = partial(network.block, layer=layer)
            states = self._side_by_side(block, states, contexts)
        return states

    def _side_by_side(
        self, block: Callable[..., Tensor], states: list[Tensor], contexts: Sequence[Any]
    ) -> list[Tensor]:
        """Run a layer over batches, a core each where there are several of both."""
        cores = self._cores(len(states))
        # With all weights in memory, run_each has given the batch a thread of its own already.
        if cores < 2 and (not self._is_alone or self.is_resident):
            return [block(x, context=c) for x, c in zip(states, contexts, strict=True)]

        def alone(x: Tensor, context: Any) -> Tensor:  # noqa: ANN401 (the network's own)
            with torch.inference_mode():  # a thread's own setting
                return block(x, context=context)

        return list(workers(cores).map(alone, states, contexts))

    def _cores(self, batches: int) -> int:
        cores = torch.get_num_threads() if self.device.type == "cpu" else 1
        return cores if batches > 1 else 1

    def run_each(
        self, batches: Iterable[Packed], then: Callable[[Tensor, Packed], R], max_tokens: int
    ) -> Iterator[R]:
        """Run batches and give what ``then`` makes of each one's states, in their order.

        With all weights in memory, batches are independent and each core has its own. Else as many
        as have ``max_tokens`` tokens together go in step, layer by layer.
        """
        if not self.is_resident:
            for together in _together(batches, max_tokens):
                yield from self._in_step(together, then)
            return

        def one(packed: Packed) -> R:
            return then(self.run([packed])[0], packed)

        rest = iter(batches)
        first = list(islice(rest, 2))
        cores = self._cores(len(first))
        if cores < 2 and not self._is_alone:
            yield from map(one, chain(first, rest))
        else:
            yield from map_ahead(workers(cores), one, chain(first, rest), 2 * cores)

    def _in_step(
        self, batches: Sequence[Packed], then: Callable[[Tensor, Packed], R]
    ) -> Iterator[R]:
        with torch.inference_mode():
            states = self._through(batches)
        for packed in batches:
            with torch.inference_mode():
                # One at a time and given up at once: all of them finished would be as much again.
                finished = self.network.finish(states.pop(0))
            yield then(finished, packed)

    def time_layer(self, batches: Sequence[Packed]) -> float:
        """Return the seconds that the first layer takes for batches, side by side."""
        network = self.network
        with torch.inference_mode():
            contexts = [network.context(packed) for packed in batches]
            states = [network.embed(packed) for packed in batches]
            block = partial(network.block, layer=next(network.source.layers()))
            start = time.perf_counter()
            self._side_by_side(block, states, contexts)
            return time.perf_counter() - start

    @property
    def can_vary_attention(self) -> bool:
        """Whether the network runs causal as well as bidirectional: decoders do."""
        return self.network.can_vary_attention

    def alone(self) -> "Runner":
        """Return a runner on the same weights that gives a batch one core, even a single one."""
        other = copy.copy(self)
        other._is_alone = self.device.type == "cpu"
        return other

    def with_attention(self, attention: Attention) -> "Runner":
        """Return a runner on the same weights with another attention."""
        other = copy.copy(self)
        other.network = self.network.with_attention(attention)
        return other


def _together(batches: Iterable[Packed], max_tokens: int) -> Iterator[list[Packed]]:
    """Put batches together while their texts have at most ``max_tokens``.

    Idle rows are not counted, as the planner of super-batches does not know of them: a last batch
    would go through all layers by itself for a few. They are a 32nd more at most, which the margin
    of a memory limit holds.
    """
    group: list[Packed] = []
    tokens = 0
    for packed in batches:
        if group and tokens + packed.num_tokens > max_tokens:
            yield group
            group, tokens = [], 0
        group.append(packed)
        tokens += packed.num_tokens
    if group:
        yield group
