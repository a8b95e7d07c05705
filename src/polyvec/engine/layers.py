"""Where the runner gets a model's layers from."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from polyvec.engine import int8
from polyvec.engine.linear import DenseLinear, gated, gelu, linear
from polyvec.errors import ModelFileError
from polyvec.kernels.rows import Heads
from polyvec.model import llama, xlmr
from polyvec.model.files import ModelFiles
from polyvec.spec import BertArchitecture, LlamaArchitecture

L = TypeVar("L")
L_co = TypeVar("L_co", covariant=True)

# Saved by old versions of transformers; computed, not learned.
_BUFFERS = ("rotary_emb.inv_freq", "embeddings.position_ids")


class LayerSource(Protocol[L_co]):
    """A model's blocks, first to last. The runner does not know where they come from."""

    def layers(self) -> Iterator[L_co]:
        """Give each layer, ready to multiply with."""
        ...


class ResidentLayers(Generic[L]):
    """All layers in memory, arranged for this machine once."""

    def __init__(self, reader: "LayerReader[L]") -> None:
        count = reader.files.architecture.num_layers
        self._layers = [reader.read(number) for number in range(count)]
        reader.refuse_unread()

    def layers(self) -> Iterator[L]:
        """Give each layer."""
        return iter(self._layers)


class LayerReader(ABC, Generic[L]):
    """Reads layers from files and checks their shapes."""

    prefixes: tuple[str, ...]
    """What the names of tensors that would change vectors begin with."""

    def __init__(self, files: ModelFiles, dtype: torch.dtype, device: torch.device) -> None:
        self.files, self.dtype, self.device = files, dtype, device
        self.unread = {name for name in files.weights.names if name.startswith(self.prefixes)}

    @abstractmethod
    def read(self, number: int) -> L:
        """Read a layer."""

    def projection(self, name: str, rows: int, columns: int) -> DenseLinear:
        """Read a weight, and a bias if there is one."""
        weight = self.tensor(f"{name}.weight", (rows, columns))
        bias = None
        if f"{name}.bias" in self.files.weights.names:
            bias = self.tensor(f"{name}.bias", (rows,)).to(self.device, self.dtype)
        return DenseLinear(weight.to(self.device, self.dtype), bias)

    def vector(self, name: str, size: int) -> Tensor:
        """Read a vector, as fp32."""
        return self.tensor(name, (size,)).to(self.device, torch.float32)

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Read a tensor of a shape; see :func:`read_checked`."""
        self.unread.discard(name)
        tensor = read_checked(self.files, name, shape)
        # A sum shows any of them in one pass; it may also overflow, so the values decide.
        if not tensor.sum(dtype=torch.float32).isfinite() and not tensor.isfinite().all():
            raise ModelFileError(
                f"{self.files.path}: tensor {name} has values that are not numbers or infinite. "
                "Every vector would be lost in them: the file is damaged, or training diverged."
            )
        return tensor

    def refuse_unread(self) -> None:
        """A tensor nobody asked for would have changed the vectors."""
        unread = {name for name in self.unread if not name.endswith(_BUFFERS)}
        if unread:
            raise ModelFileError(
                f"{self.files.path} has {len(unread)} tensor(s) its configuration does not "
                f"account for: {', '.join(sorted(unread)[:3])}. The two do not belong together."
            )


@dataclass(frozen=True)
class LlamaParts:
    """One Llama block's weights as the files have them."""

    attention_gain_D: Tensor
    qkv: list[DenseLinear]
    head_gains: tuple[Tensor | None, Tensor | None]
    out: DenseLinear
    feed_forward_gain_D: Tensor
    gate: DenseLinear
    up: DenseLinear
    down: DenseLinear


@dataclass(frozen=True)
class BertParts:
    """One BERT block's weights as the files have them."""

    qkv: list[DenseLinear]
    out: DenseLinear
    attention_norm: xlmr.Norm
    up: DenseLinear
    down: DenseLinear
    output_norm: xlmr.Norm


class LlamaReader(LayerReader[llama.Layer]):
    """Reads a Llama's layers.

    Norm gains are not folded into the projections: that would round bf16 weights once more
    (cosine to fp32 .9987 instead of .9991 on the default backbone) and save nothing measurable.
    """

    prefixes = ("layers.",)

    def __init__(
        self,
        files: ModelFiles,
        shape: LlamaArchitecture,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__(files, dtype, device)
        self.shape = shape

    def read(self, number: int) -> llama.Layer:
        """Read a layer."""
        part = self.parts(number)
        return llama.Layer(
            attention_gain_D=part.attention_gain_D,
            qkv=linear(*_stack(part.qkv)),
            query_gain_E=part.head_gains[0],
            key_gain_E=part.head_gains[1],
            attention_out=linear(part.out.weight_OI, part.out.bias_O),
            feed_forward_gain_D=part.feed_forward_gain_D,
            gated=gated(part.gate, part.up),
            down=linear(part.down.weight_OI, part.down.bias_O),
        )

    def parts(self, number: int) -> "LlamaParts":
        """Read a layer's weights, as they are."""
        shape, prefix = self.shape, f"layers.{number}."
        hidden, width = shape.hidden_size, shape.intermediate_size
        queries, keys = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
        qkv = [
            self.projection(f"{prefix}self_attn.{name}_proj", rows, hidden)
            for name, rows in (("q", queries), ("k", keys), ("v", keys))
        ]
        return LlamaParts(
            attention_gain_D=self.vector(prefix + "input_layernorm.weight", hidden),
            qkv=qkv,
            head_gains=(self.head_gain(prefix, "q_norm"), self.head_gain(prefix, "k_norm")),
            out=self.projection(prefix + "self_attn.o_proj", hidden, queries),
            feed_forward_gain_D=self.vector(prefix + "post_attention_layernorm.weight", hidden),
            gate=self.projection(prefix + "mlp.gate_proj", width, hidden),
            up=self.projection(prefix + "mlp.up_proj", width, hidden),
            down=self.projection(prefix + "mlp.down_proj", hidden, width),
        )

    def head_gain(self, prefix: str, name: str) -> Tensor | None:
        """Read the gain of a head's norm, where the architecture has one."""
        if not self.shape.qk_norm:
            return None
        return self.vector(f"{prefix}self_attn.{name}.weight", self.shape.head_dim)


class Int8LlamaReader(LayerReader[int8.LlamaLayer]):
    """Reads a Llama's layers and rounds their weights to int8."""

    prefixes = LlamaReader.prefixes

    def __init__(
        self, files: ModelFiles, shape: LlamaArchitecture, dtype: torch.dtype, device: torch.device
    ) -> None:
        super().__init__(files, dtype, device)
        self.shape = shape
        # The weights are rounded once, from what the file holds.
        self.plain = LlamaReader(files, shape, torch.float32, device)
        self.unread = self.plain.unread

    def read(self, number: int) -> int8.LlamaLayer:
        """Read a layer."""
        shape, dtype = self.shape, self.dtype
        part = self.plain.parts(number)
        heads = (shape.num_heads, shape.num_kv_heads, shape.head_dim, *part.head_gains)
        return int8.LlamaLayer(
            attention_gain_D=part.attention_gain_D,
            qkv=int8.Int8Linear(*_stack(part.qkv), dtype),
            heads=Heads(*heads, shape.norm_eps),
            attention_out=int8.Int8Linear(part.out.weight_OI, part.out.bias_O, dtype),
            feed_forward_gain_D=part.feed_forward_gain_D,
            gate_up=int8.gate_up(_pair(part.gate), _pair(part.up), dtype),
            width=shape.intermediate_size,
            down=int8.Int8Linear(*_pair(part.down), dtype),
        )


class BertReader(LayerReader[xlmr.Layer]):
    """Reads a BERT's, RoBERTa's or XLM-RoBERTa's layers, and the tables before them.

    Poolers and other heads (``pooler.``, ``cls.``, ``lm_head.``) make no token states and are not
    read.
    """

    prefixes = ("embeddings.", "encoder.")

    def __init__(
        self,
        files: ModelFiles,
        shape: BertArchitecture,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__(files, dtype, device)
        self.shape = shape

    def read(self, number: int) -> xlmr.Layer:
        """Read a layer."""
        part = self.parts(number)
        return xlmr.Layer(
            qkv=linear(*_stack(part.qkv)),
            attention_out=linear(part.out.weight_OI, part.out.bias_O),
            attention_norm=part.attention_norm,
            up=gelu(part.up),
            down=linear(part.down.weight_OI, part.down.bias_O),
            output_norm=part.output_norm,
        )

    def parts(self, number: int) -> BertParts:
        """Read a layer's weights, as they are."""
        hidden, width = self.shape.hidden_size, self.shape.intermediate_size
        prefix = f"encoder.layer.{number}."
        qkv = [
            self.projection(f"{prefix}attention.self.{name}", hidden, hidden)
            for name in ("query", "key", "value")
        ]
        return BertParts(
            qkv=qkv,
            out=self.projection(prefix + "attention.output.dense", hidden, hidden),
            attention_norm=self.norm(prefix + "attention.output.LayerNorm"),
            up=self.projection(prefix + "intermediate.dense", width, hidden),
            down=self.projection(prefix + "output.dense", hidden, width),
            output_norm=self.norm(prefix + "output.LayerNorm"),
        )

    def norm(self, name: str) -> xlmr.Norm:
        """Read a LayerNorm."""
        size = self.shape.hidden_size
        return xlmr.Norm(self.vector(f"{name}.weight", size), self.vector(f"{name}.bias", size))


class Int8BertReader(LayerReader[int8.BertLayer]):
    """Reads a BERT's layers and rounds their weights to int8."""

    prefixes = BertReader.prefixes

    def __init__(self, plain: BertReader, dtype: torch.dtype) -> None:
        super().__init__(plain.files, dtype, plain.device)
        self.plain = BertReader(plain.files, plain.shape, torch.float32, plain.device)
        self.unread = self.plain.unread = plain.unread

    def read(self, number: int) -> int8.BertLayer:
        """Read a layer."""
        shape, part, dtype = self.plain.shape, self.plain.parts(number), self.dtype
        return int8.BertLayer(
            qkv=int8.Int8Linear(*_stack(part.qkv), dtype),
            heads=Heads(shape.num_heads, shape.num_heads, shape.head_dim),
            attention_out=int8.Int8Linear(*_pair(part.out), dtype),
            attention_norm=part.attention_norm,
            up=int8.Int8Linear(*_pair(part.up), dtype),
            down=int8.Int8Linear(*_pair(part.down), dtype),
            output_norm=part.output_norm,
        )


def read_checked(files: ModelFiles, name: str, shape: tuple[int, ...]) -> Tensor:
    """Read a tensor and refuse another shape than the configuration's.

    Raises:
        ModelFileError: The tensor is missing, unreadable, or of another shape.
    """
    tensor = files.weights.tensor(name)
    if tuple(tensor.shape) != shape:
        raise ModelFileError(
            f"{files.path}: tensor {name} is {list(tensor.shape)} and the configuration asks for "
            f"{list(shape)}. The weights and the configuration do not belong together."
        )
    return tensor


def _pair(part: DenseLinear) -> tuple[Tensor, Tensor | None]:
    return part.weight_OI, part.bias_O


def _stack(parts: list[DenseLinear]) -> tuple[Tensor, Tensor | None]:
    """Put projections of the same input on top of each other; a missing bias is zeros."""
    weight = torch.cat([part.weight_OI for part in parts])
    if all(part.bias_O is None for part in parts):
        return weight, None
    biases = [
        part.weight_OI.new_zeros(part.weight_OI.shape[0]) if part.bias_O is None else part.bias_O
        for part in parts
    ]
    return weight, torch.cat(biases)
