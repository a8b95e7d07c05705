"""How a model's layers are read from its files, as each kind of network computes with them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

from polyvec.engine import int8
from polyvec.engine.linear import DenseLinear, gated, gelu, linear
from polyvec.engine.matrices import Arena, Matrices, Rows, is_finite, not_numbers
from polyvec.errors import ModelFileError
from polyvec.kernels.rows import Heads
from polyvec.model import llama, xlmr
from polyvec.model.files import ModelFiles
from polyvec.model.parts import Projection
from polyvec.spec import BertArchitecture, LlamaArchitecture

L = TypeVar("L")

# Saved by old versions of transformers; computed, not learned.
_BUFFERS = ("rotary_emb.inv_freq", "embeddings.position_ids")

Sizes = Mapping[str, tuple[int, ...]]


class LayerReader(ABC, Generic[L]):
    """Reads layers from files and checks their shapes.

    With ``packs``, products are on weights that oneDNN arranged, which costs a copy of them: right
    for layers that stay, not for those that are read again.
    """

    prefixes: tuple[str, ...]
    """What the names of tensors that would change vectors begin with."""

    def __init__(
        self,
        matrices: Matrices,
        dtype: torch.dtype,
        device: torch.device,
        packs: bool = True,
    ) -> None:
        self.matrices, self.files = matrices, matrices.files
        self.dtype, self.device, self.packs = dtype, device, packs
        self._vectors: dict[str, Tensor] = {}

    @abstractmethod
    def read(self, number: int, arena: Arena) -> L:
        """Read a layer into an arena, which must not be in use."""

    @abstractmethod
    def sizes(self, number: int) -> Sizes:
        """Return a layer's tensors and their shapes; biases are those that the files have."""

    def check(self) -> None:
        """Compare files and configuration without reading a weight.

        Raises:
            ModelFileError: A tensor is missing, of another shape, or one that nobody asks for.
        """
        known = set(self.others())
        for number in range(self.files.architecture.num_layers):
            sizes = self.sizes(number)
            for name, size in sizes.items():
                check_shape(self.files, name, size)
            known |= sizes.keys()
        self._refuse_unknown(known)

    def others(self) -> Sequence[str]:
        """Return the names of tensors with the prefixes that are of no layer."""
        return ()

    def _refuse_unknown(self, known: set[str]) -> None:
        """A tensor nobody asked for would have changed the vectors."""
        unknown = {
            name
            for name in self.files.weights.names
            if name.startswith(self.prefixes) and name not in known and not name.endswith(_BUFFERS)
        }
        if unknown:
            raise ModelFileError(
                f"{self.files.path} has {len(unknown)} tensor(s) its configuration does not "
                f"account for: {', '.join(sorted(unknown)[:3])}. The two do not belong together."
            )

    def dense(self, arena: Arena, key: str, names: Sequence[str], width: int) -> DenseLinear:
        """Read projections of one input on top of each other, and their biases."""
        weight_OI = self.matrices.dense(arena, key, self._whole(names), width, self.dtype)
        bias_O = self.biases(names)
        return DenseLinear(
            weight_OI.to(self.device, non_blocking=True),
            None if bias_O is None else bias_O.to(self.dtype),
        )

    def product(self, arena: Arena, key: str, names: Sequence[str], width: int) -> Projection:
        """Read projections of one input as one product."""
        read = self.dense(arena, key, names, width)
        return linear(read.weight_OI, read.bias_O, self.packs)

    def rounded(
        self, arena: Arena, key: str, parts: Sequence[Rows], width: int, bias_O: Tensor | None
    ) -> int8.Int8Linear:
        """Read rows of projections as one product in int8."""
        weight, scale_O = self.matrices.int8(arena, key, parts, width)
        return int8.Int8Linear(weight, scale_O, bias_O, self.dtype)

    def rounded_whole(
        self, arena: Arena, key: str, names: Sequence[str], width: int
    ) -> int8.Int8Linear:
        """Read projections of one input as one product in int8."""
        return self.rounded(arena, key, self._whole(names), width, self.biases(names))

    def heads(self, arena: Arena, names: Sequence[str], width: int) -> int8.Int8Linear | Projection:
        """Read queries, keys and values for an int8 block: not rounded, unless to 4 bits."""
        if self.matrices.has_four_bits:
            return self.rounded_whole(arena, "qkv", names, width)
        return self.product(arena, "qkv", names, width)

    def _whole(self, names: Sequence[str]) -> list[Rows]:
        shapes = [self.files.weights.shape(f"{name}.weight") for name in names]
        return [Rows(f"{n}.weight", 0, shape[0]) for n, shape in zip(names, shapes, strict=True)]

    def biases(self, names: Sequence[str]) -> Tensor | None:
        """Return projections' biases, fp32; a missing one is zeros, and None if all are."""
        present = [f"{name}.bias" in self.files.weights.names for name in names]
        if not any(present):
            return None
        rows = [self.files.weights.shape(f"{name}.weight")[0] for name in names]
        parts = [
            self.vector(f"{name}.bias", size) if there else torch.zeros(size, device=self.device)
            for name, size, there in zip(names, rows, present, strict=True)
        ]
        return torch.cat(parts)

    def vector(self, name: str, size: int) -> Tensor:
        """Read a vector, as fp32; it stays in memory."""
        if name not in self._vectors:
            read = read_checked(self.files, name, (size,)).to(self.device, torch.float32)
            self._vectors[name] = read.clone()
        return self._vectors[name]

    def with_biases(self, sizes: dict[str, tuple[int, ...]]) -> Sizes:
        """Add to weights' shapes those of the biases that the files have."""
        names = self.files.weights.names
        biases = {n.removesuffix("weight") + "bias": s[:1] for n, s in sizes.items() if len(s) == 2}
        return sizes | {name: size for name, size in biases.items() if name in names}


class _Llama(LayerReader[L]):
    """What reading a Llama's layers has in common, whatever the precision."""

    prefixes = ("layers.",)

    def __init__(
        self,
        matrices: Matrices,
        shape: LlamaArchitecture,
        dtype: torch.dtype,
        device: torch.device,
        packs: bool = True,
    ) -> None:
        super().__init__(matrices, dtype, device, packs)
        self.shape = shape

    def sizes(self, number: int) -> Sizes:
        """Return a layer's tensors and their shapes."""
        shape, prefix = self.shape, f"layers.{number}."
        hidden, width, size = shape.hidden_size, shape.intermediate_size, shape.head_dim
        queries, keys = shape.num_heads * size, shape.num_kv_heads * size
        attention, feed_forward = f"{prefix}self_attn.", f"{prefix}mlp."
        sizes: dict[str, tuple[int, ...]] = {
            f"{prefix}input_layernorm.weight": (hidden,),
            f"{attention}q_proj.weight": (queries, hidden),
            f"{attention}k_proj.weight": (keys, hidden),
            f"{attention}v_proj.weight": (keys, hidden),
            f"{attention}o_proj.weight": (hidden, queries),
            f"{prefix}post_attention_layernorm.weight": (hidden,),
            f"{feed_forward}gate_proj.weight": (width, hidden),
            f"{feed_forward}up_proj.weight": (width, hidden),
            f"{feed_forward}down_proj.weight": (hidden, width),
        }
        if shape.qk_norm:
            sizes |= {f"{attention}{name}_norm.weight": (size,) for name in "qk"}
        return self.with_biases(sizes)

    def gains(self, number: int) -> tuple[Tensor, Tensor]:
        """Read the gains of the two norms."""
        names = ("input_layernorm", "post_attention_layernorm")
        first, second = (
            self.vector(f"layers.{number}.{name}.weight", self.shape.hidden_size) for name in names
        )
        return first, second

    def head_gains(self, number: int) -> tuple[Tensor | None, Tensor | None]:
        """Read the gains of queries' and keys' norms, where the family has them."""
        if not self.shape.qk_norm:
            return None, None
        query, key = (
            self.vector(f"layers.{number}.self_attn.{name}_norm.weight", self.shape.head_dim)
            for name in "qk"
        )
        return query, key

    def names(self, number: int, *projections: str) -> list[str]:
        """Return projections' names."""
        return [f"layers.{number}.{name}_proj" for name in projections]


class LlamaReader(_Llama[llama.Layer]):
    """Reads a Llama's layers in fp32 or bf16.

    Norm gains are not folded into the projections: that would round bf16 weights once more
    (cosine to fp32 .9987 instead of .9991 on the default backbone) and save nothing measurable.
    """

    def read(self, number: int, arena: Arena) -> llama.Layer:
        """Read a layer."""
        shape, hidden = self.shape, self.shape.hidden_size
        attention_gain, feed_forward_gain = self.gains(number)
        query_gain, key_gain = self.head_gains(number)
        q, k, v, out, gate, up, down = self.names(
            number, *(f"self_attn.{name}" for name in "qkvo"), "mlp.gate", "mlp.up", "mlp.down"
        )
        return llama.Layer(
            attention_gain_D=attention_gain,
            qkv=self.product(arena, "qkv", (q, k, v), hidden),
            query_gain_E=query_gain,
            key_gain_E=key_gain,
            attention_out=self.product(arena, "out", (out,), shape.num_heads * shape.head_dim),
            feed_forward_gain_D=feed_forward_gain,
            gated=gated(
                self.dense(arena, "gate", (gate,), hidden),
                self.dense(arena, "up", (up,), hidden),
                self.packs,
            ),
            down=self.product(arena, "down", (down,), shape.intermediate_size),
        )


class Int8LlamaReader(_Llama[int8.LlamaLayer]):
    """Reads a Llama's layers and rounds their weights to int8, once, from what the files hold."""

    def read(self, number: int, arena: Arena) -> int8.LlamaLayer:
        """Read a layer."""
        shape, hidden = self.shape, self.shape.hidden_size
        attention_gain, feed_forward_gain = self.gains(number)
        heads = (shape.num_heads, shape.num_kv_heads, shape.head_dim, *self.head_gains(number))
        q, k, v, out, down = self.names(
            number, *(f"self_attn.{name}" for name in "qkvo"), "mlp.down"
        )
        attended = shape.num_heads * shape.head_dim
        return int8.LlamaLayer(
            attention_gain_D=attention_gain,
            qkv=self.heads(arena, (q, k, v), hidden),
            heads=Heads(*heads, shape.norm_eps),
            attention_out=self.rounded_whole(arena, "out", (out,), attended),
            feed_forward_gain_D=feed_forward_gain,
            gate_up=self._gate_up(number, arena),
            width=shape.intermediate_size,
            down=self.rounded_whole(arena, "down", (down,), shape.intermediate_size),
        )

    def _gate_up(self, number: int, arena: Arena) -> tuple[int8.Int8Linear, ...]:
        """Read gate and up in blocks of columns; each block is ``[gate | up]`` of its columns."""
        names = self.names(number, "mlp.gate", "mlp.up")
        biases = [self.biases([name]) for name in names]
        blocks = []
        for start, stop in int8.column_blocks(self.shape.intermediate_size):
            parts = [Rows(f"{name}.weight", start, stop) for name in names]
            bias = None
            if any(part is not None for part in biases):
                zeros = torch.zeros(self.shape.intermediate_size)
                bias = torch.cat([(zeros if b is None else b)[start:stop] for b in biases])
            key = f"gate_up.{start}"
            blocks.append(self.rounded(arena, key, parts, self.shape.hidden_size, bias))
        return tuple(blocks)


class _Bert(LayerReader[L]):
    """What reading a BERT's, RoBERTa's or XLM-RoBERTa's layers has in common.

    Poolers and other heads (``pooler.``, ``cls.``, ``lm_head.``) make no token states and are not
    read.
    """

    prefixes = ("embeddings.", "encoder.")

    def __init__(
        self,
        matrices: Matrices,
        shape: BertArchitecture,
        dtype: torch.dtype,
        device: torch.device,
        packs: bool = True,
    ) -> None:
        super().__init__(matrices, dtype, device, packs)
        self.shape = shape

    def others(self) -> Sequence[str]:
        """Return the names of the tables before the layers."""
        tables = [f"{kind}_embeddings.weight" for kind in ("word", "position", "token_type")]
        return [f"embeddings.{n}" for n in (*tables, "LayerNorm.weight", "LayerNorm.bias")]

    def sizes(self, number: int) -> Sizes:
        """Return a layer's tensors and their shapes."""
        hidden, width = self.shape.hidden_size, self.shape.intermediate_size
        prefix = f"encoder.layer.{number}."
        sizes: dict[str, tuple[int, ...]] = {
            f"{name}.weight": (hidden, hidden) for name in self.attention_names(number)
        }
        sizes[f"{prefix}intermediate.dense.weight"] = (width, hidden)
        sizes[f"{prefix}output.dense.weight"] = (hidden, width)
        for norm in ("attention.output.LayerNorm", "output.LayerNorm"):
            sizes |= {f"{prefix}{norm}.{kind}": (hidden,) for kind in ("weight", "bias")}
        return self.with_biases(sizes)

    def attention_names(self, number: int) -> list[str]:
        """Return the names of queries, keys, values and what follows."""
        prefix = f"encoder.layer.{number}.attention."
        return [*(f"{prefix}self.{n}" for n in ("query", "key", "value")), f"{prefix}output.dense"]

    def norm(self, name: str) -> xlmr.Norm:
        """Read a LayerNorm."""
        size = self.shape.hidden_size
        return xlmr.Norm(self.vector(f"{name}.weight", size), self.vector(f"{name}.bias", size))


class BertReader(_Bert[xlmr.Layer]):
    """Reads a BERT's layers in fp32 or bf16."""

    def read(self, number: int, arena: Arena) -> xlmr.Layer:
        """Read a layer."""
        hidden, prefix = self.shape.hidden_size, f"encoder.layer.{number}."
        *qkv, out = self.attention_names(number)
        up, down = f"{prefix}intermediate.dense", f"{prefix}output.dense"
        return xlmr.Layer(
            qkv=self.product(arena, "qkv", qkv, hidden),
            attention_out=self.product(arena, "out", (out,), hidden),
            attention_norm=self.norm(prefix + "attention.output.LayerNorm"),
            up=gelu(self.dense(arena, "up", (up,), hidden), self.packs),
            down=self.product(arena, "down", (down,), self.shape.intermediate_size),
            output_norm=self.norm(prefix + "output.LayerNorm"),
        )


class Int8BertReader(_Bert[int8.BertLayer]):
    """Reads a BERT's layers and rounds their weights to int8."""

    def read(self, number: int, arena: Arena) -> int8.BertLayer:
        """Read a layer."""
        shape, prefix = self.shape, f"encoder.layer.{number}."
        hidden = shape.hidden_size
        *qkv, out = self.attention_names(number)
        up, down = f"{prefix}intermediate.dense", f"{prefix}output.dense"
        return int8.BertLayer(
            qkv=self.heads(arena, qkv, hidden),
            heads=Heads(shape.num_heads, shape.num_heads, shape.head_dim),
            attention_out=self.rounded_whole(arena, "out", (out,), hidden),
            attention_norm=self.norm(prefix + "attention.output.LayerNorm"),
            up=self.rounded_whole(arena, "up", (up,), hidden),
            down=self.rounded_whole(arena, "down", (down,), shape.intermediate_size),
            output_norm=self.norm(prefix + "output.LayerNorm"),
        )


def check_shape(files: ModelFiles, name: str, shape: tuple[int, ...]) -> None:
    """Refuse a tensor of another shape than the configuration's.

    Raises:
        ModelFileError: The tensor is missing or of another shape.
    """
    found = files.weights.shape(name)
    if found != shape:
        raise ModelFileError(
            f"{files.path}: tensor {name} is {list(found)} and the configuration asks for "
            f"{list(shape)}. The weights and the configuration do not belong together."
        )


def read_checked(files: ModelFiles, name: str, shape: tuple[int, ...]) -> Tensor:
    """Read a tensor and refuse another shape, or values that are no numbers.

    Raises:
        ModelFileError: The tensor is missing, unreadable, of another shape or not finite.
    """
    check_shape(files, name, shape)
    tensor = files.weights.tensor(name)
    if not is_finite(tensor):
        raise not_numbers(files, name)
    return tensor
