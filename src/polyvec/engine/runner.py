"""Packed tokens through all layers of a model."""

from collections.abc import Sequence

import torch
from torch import Tensor

from polyvec.engine.layers import LayerSource, ResidentLayers, read_checked
from polyvec.model.files import ModelFiles
from polyvec.model.llama import Context, block, inverse_frequencies, rms_norm, rotation
from polyvec.model.packing import Packed


class Runner:
    """Runs batches layer by layer: one layer over all batches, then the next layer.

    So a layer is needed once per call, wherever it comes from.
    """

    def __init__(self, files: ModelFiles, dtype: torch.dtype, device: torch.device) -> None:
        shape = files.architecture
        table = read_checked(files, "embed_tokens.weight", (shape.vocab_size, shape.hidden_size))
        self.shape, self.attention = shape, files.spec.attention
        self.dtype, self.device = dtype, device
        self.table_VD = table.to(device, dtype)
        gain = read_checked(files, "norm.weight", (shape.hidden_size,))
        self.final_gain_D = gain.to(device, torch.float32)
        self.source: LayerSource = ResidentLayers(files, dtype, device)
        # After the layers, whose shapes have shown by now that head_dim is no corrupt number.
        self.frequencies = _frequencies(files).to(device)

    def run(self, batches: Sequence[Packed]) -> list[Tensor]:
        """Return each batch's token states, fp32 ``[T, D]``, after the final norm."""
        with torch.inference_mode():
            contexts = [self._context(packed) for packed in batches]
            states = [self.table_VD[packed.token_ids_T].float() for packed in batches]
            for layer in self.source.layers():
                states = [block(x, layer, c) for x, c in zip(states, contexts, strict=True)]
            return [
                rms_norm(x, self.final_gain_D, self.shape.norm_eps, torch.float32) for x in states
            ]

    def _context(self, packed: Packed) -> Context:
        angles = rotation(packed.positions_T, self.frequencies)
        return Context(packed, angles, self.shape, self.attention, self.dtype)


def _frequencies(files: ModelFiles) -> Tensor:
    """RoPE's frequencies, divided by the factors a GGUF carries for llama3 scaling."""
    shape = files.architecture
    frequencies = inverse_frequencies(shape.rope, shape.head_dim)
    if "rope_freqs.weight" in files.weights.names:
        frequencies = frequencies / read_checked(files, "rope_freqs.weight", frequencies.shape)
    return frequencies
