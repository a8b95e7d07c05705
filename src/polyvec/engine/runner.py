"""Packed tokens through all layers of a model."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from polyvec.engine.cpu import keep_freed_memory
from polyvec.engine.networks import open_network
from polyvec.model.files import ModelFiles
from polyvec.model.packing import Packed
from polyvec.spec import Attention


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
    ) -> None:
        self.network = open_network(files, dtype, device, quantized)
        keep_freed_memory()

    def run(
        self, batches: Sequence[Packed], between_layers: Callable[[], None] | None = None
    ) -> list[Tensor]:
        """Return each batch's token states, fp32 ``[T, D]``, as the model gives them out.

        ``between_layers`` is called before every layer and may run other batches meanwhile.
        """
        network = self.network
        with torch.inference_mode():
            contexts = [network.context(packed) for packed in batches]
            states = [network.embed(packed) for packed in batches]
            for layer in network.source.layers():
                if between_layers is not None:
                    between_layers()
                states = [network.block(x, layer, c) for x, c in zip(states, contexts, strict=True)]
            return [network.finish(x) for x in states]

    @property
    def can_vary_attention(self) -> bool:
        """Whether the network runs causal as well as bidirectional: decoders do."""
        return self.network.can_vary_attention

    def with_attention(self, attention: Attention) -> "Runner":
        """Return a runner on the same weights with another attention."""
        other = copy.copy(self)
        other.network = self.network.with_attention(attention)
        return other
