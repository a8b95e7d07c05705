"""The kinds of network the runner drives, behind one interface."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeAlias, TypeVar

import torch
from torch import Tensor

from polyvec.engine import int8
from polyvec.engine.holding import Holding
from polyvec.engine.layers import LayerSource
from polyvec.engine.matrices import Matrices
from polyvec.engine.readers import (
    BertReader,
    Int8BertReader,
    Int8LlamaReader,
    LlamaReader,
    read_checked,
)
from polyvec.engine.tables import Table
from polyvec.errors import SpecError
from polyvec.model import llama, xlmr
from polyvec.model.files import ModelFiles
from polyvec.model.packing import Packed
from polyvec.spec import Attention, BertArchitecture, LlamaArchitecture

C = TypeVar("C")
L = TypeVar("L")
_LlamaLayer: TypeAlias = llama.Layer | int8.LlamaLayer
_BertLayer: TypeAlias = xlmr.Layer | int8.BertLayer


class Network(ABC, Generic[C, L]):
    """Tokens to states: embedded, through every layer, finished.

    ``C`` is what a layer needs to know of a batch, ``L`` what it is made of.
    """

    source: LayerSource[L]

    @abstractmethod
    def context(self, packed: Packed) -> C:
        """Return what every layer needs to know of a batch."""

    @abstractmethod
    def embed(self, packed: Packed) -> Tensor:
        """Return the tokens' first states, fp32 ``[T, D]``, which the blocks may overwrite."""

    @abstractmethod
    def block(self, states_TD: Tensor, layer: L, context: C) -> Tensor:
        """Run one layer."""

    def finish(self, states_TD: Tensor) -> Tensor:
        """Return the last layer's states as the model gives them out."""
        return states_TD

    @property
    def can_vary_attention(self) -> bool:
        """Whether the network runs causal as well as bidirectional: decoders do."""
        return False

    def with_attention(self, attention: Attention) -> "Network[C, L]":
        """Return a network on the same weights with another attention."""
        if attention == "bidirectional":
            return self
        raise SpecError("A BERT-family encoder is bidirectional; it cannot run causal attention.")


class LlamaNetwork(Network[llama.Context, _LlamaLayer]):
    """The Llama family: tokens have no position but RoPE's, and a last norm finishes."""

    def __init__(
        self,
        files: ModelFiles,
        shape: LlamaArchitecture,
        dtype: torch.dtype,
        device: torch.device,
        quantized: bool,
        holding: Holding,
    ) -> None:
        self.shape, self.attention, self.dtype = shape, files.spec.attention, dtype
        sizes = (shape.vocab_size, shape.hidden_size)
        self.table: Table = holding.table(files, "embed_tokens.weight", sizes, dtype, device)
        gain = read_checked(files, "norm.weight", (shape.hidden_size,))
        self.final_gain_D = gain.to(device, torch.float32)
        read = Int8LlamaReader if quantized else LlamaReader
        self.source = holding.source(
            files, lambda matrices: read(matrices, shape, dtype, device, holding.packs)
        )
        self._block: Callable[[Tensor, Any, llama.Context], Tensor] = (
            int8.llama_block if quantized else llama.block
        )
        # After the layers, whose shapes have shown by now that head_dim is no corrupt number.
        self.frequencies = _frequencies(files, shape).to(device)

    def context(self, packed: Packed) -> llama.Context:
        """Return what every layer needs to know of a batch."""
        angles = llama.rotation(packed.positions_T, self.frequencies)
        return llama.Context(packed, angles, self.shape, self.attention, self.dtype)

    def embed(self, packed: Packed) -> Tensor:
        """Return the tokens' first states."""
        return self.table.rows(packed.token_ids_T)

    def block(self, states_TD: Tensor, layer: _LlamaLayer, context: llama.Context) -> Tensor:
        """Run one layer."""
        return self._block(states_TD, layer, context)

    def finish(self, states_TD: Tensor) -> Tensor:
        """Apply the last norm."""
        return llama.rms_norm(states_TD, self.final_gain_D, self.shape.norm_eps, torch.float32)

    @property
    def can_vary_attention(self) -> bool:
        """A decoder runs both ways."""
        return True

    def with_attention(self, attention: Attention) -> "LlamaNetwork":
        """Return a network on the same weights with another attention."""
        other = copy.copy(self)
        other.attention = attention
        return other


class BertNetwork(Network[xlmr.Context, _BertLayer]):
    """The BERT family: learned positions, and the last layer's norm is the last of all."""

    def __init__(
        self,
        files: ModelFiles,
        shape: BertArchitecture,
        dtype: torch.dtype,
        device: torch.device,
        quantized: bool,
        holding: Holding,
    ) -> None:
        self.shape, self.dtype = shape, dtype
        read = Int8BertReader if quantized else BertReader
        self.source = holding.source(
            files, lambda matrices: read(matrices, shape, dtype, device, holding.packs)
        )
        self.embeddings = _embeddings(files, shape, dtype, device)
        self._block: Callable[[Tensor, Any, xlmr.Context], Tensor] = (
            int8.bert_block if quantized else xlmr.block
        )

    def context(self, packed: Packed) -> xlmr.Context:
        """Return what every layer needs to know of a batch."""
        return xlmr.Context(packed, self.shape, self.dtype)

    def embed(self, packed: Packed) -> Tensor:
        """Return the tokens' first states."""
        return xlmr.embed(packed, self.embeddings, self.shape)

    def block(self, states_TD: Tensor, layer: _BertLayer, context: xlmr.Context) -> Tensor:
        """Run one layer."""
        return self._block(states_TD, layer, context)


def open_network(
    files: ModelFiles,
    dtype: torch.dtype,
    device: torch.device,
    quantized: bool = False,
    holding: Holding | None = None,
) -> Network[Any, Any]:
    """Open a model's weights as the network its architecture is; ``quantized`` to int8."""
    shape, holding = files.architecture, holding or Holding()
    if isinstance(shape, BertArchitecture):
        return BertNetwork(files, shape, dtype, device, quantized, holding)
    return LlamaNetwork(files, shape, dtype, device, quantized, holding)


def _frequencies(files: ModelFiles, shape: LlamaArchitecture) -> Tensor:
    """RoPE's frequencies, divided by the factors a GGUF carries for llama3 scaling."""
    frequencies = llama.inverse_frequencies(shape.rope, shape.head_dim)
    if "rope_freqs.weight" in files.weights.names:
        frequencies = frequencies / read_checked(files, "rope_freqs.weight", frequencies.shape)
    return frequencies


def _embeddings(
    files: ModelFiles, shape: BertArchitecture, dtype: torch.dtype, device: torch.device
) -> xlmr.Embeddings:
    rows = {
        "word": shape.vocab_size,
        "position": shape.num_positions,
        "token_type": shape.num_token_types,
    }
    words, places, types = (
        read_checked(files, f"embeddings.{name}_embeddings.weight", (count, shape.hidden_size))
        for name, count in rows.items()
    )
    reader = BertReader(Matrices(files), shape, dtype, device)
    return xlmr.Embeddings(
        words_VD=words.to(device, dtype),
        positions_PD=(places.float() + types[0].float()).to(device),
        norm=reader.norm("embeddings.LayerNorm"),
    )
