"""A model's weights as modules, run packed by the blocks that the engine runs too.

The weights are fp32 whatever the precision of products: in ``bf16`` each is rounded to bf16 where
it is multiplied, and its gradient is added up in fp32. Names of parameters are those of the files.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from polyvec.errors import InputError, ModelFileError
from polyvec.model import llama, xlmr
from polyvec.model.files import ModelFiles
from polyvec.model.packing import Packed
from polyvec.model.pooling import pool
from polyvec.spec import BertArchitecture, LlamaArchitecture

_META = torch.device("meta")


class Linear(nn.Module):
    """A product with an fp32 weight ``[out, in]``, in the dtype of what is multiplied.

    ``adapter`` is added to it; see :mod:`polyvec.train.lora`.
    """

    def __init__(self, size_in: int, size_out: int, bias: bool) -> None:
        super().__init__()
        self.weight = _parameter(size_out, size_in)
        self.bias = _parameter(size_out) if bias else None
        self.adapter: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Multiply ``[T, in]`` to ``[T, out]``."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        y = F.linear(x, self.weight.to(x.dtype), bias)
        return y if self.adapter is None else y + self.adapter(x)


class Gain(nn.Module):
    """A norm's gain, and its bias where it has one."""

    def __init__(self, size: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = _parameter(size)
        self.bias = _parameter(size) if bias else None


class Table(nn.Module):
    """A table of vectors, looked up by row."""

    def __init__(self, rows: int, size: int) -> None:
        super().__init__()
        self.weight = _parameter(rows, size)

    def forward(self, rows_T: Tensor) -> Tensor:
        """Return fp32 ``[T, size]``."""
        return F.embedding(rows_T, self.weight).float()


def _parameter(*size: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(size, dtype=torch.float32, device=_META))


def _stacked(x: Tensor, *projections: nn.Module) -> Tensor:
    """Return several projections of the same rows side by side, as one product if they are bare."""
    linears = [p for p in projections if isinstance(p, Linear)]
    if any(p.adapter is not None for p in linears):
        return torch.cat([p(x) for p in linears], -1)
    weight = torch.cat([p.weight.to(x.dtype) for p in linears])
    biases = [p.bias.to(x.dtype) for p in linears if p.bias is not None]
    if biases and len(biases) < len(linears):
        return torch.cat([p(x) for p in linears], -1)
    return F.linear(x, weight, torch.cat(biases) if biases else None)


class LlamaBlock(nn.Module):
    """One Llama block's weights."""

    def __init__(self, shape: LlamaArchitecture, has_bias: Callable[[str], bool]) -> None:
        super().__init__()
        hidden, width, size = shape.hidden_size, shape.intermediate_size, shape.head_dim
        queries, keys = shape.num_heads * size, shape.num_kv_heads * size

        def linear(name: str, size_in: int, size_out: int) -> Linear:
            return Linear(size_in, size_out, has_bias(name))

        self.input_layernorm = Gain(hidden)
        self.self_attn = nn.ModuleDict(
            {
                "q_proj": linear("self_attn.q_proj", hidden, queries),
                "k_proj": linear("self_attn.k_proj", hidden, keys),
                "v_proj": linear("self_attn.v_proj", hidden, keys),
                "o_proj": linear("self_attn.o_proj", queries, hidden),
            }
        )
        if shape.qk_norm:
            self.self_attn.update({"q_norm": Gain(size), "k_norm": Gain(size)})
        self.post_attention_layernorm = Gain(hidden)
        self.mlp = nn.ModuleDict(
            {
                "gate_proj": linear("mlp.gate_proj", hidden, width),
                "up_proj": linear("mlp.up_proj", hidden, width),
                "down_proj": linear("mlp.down_proj", width, hidden),
            }
        )

    def forward(self, states_TD: Tensor, context: llama.Context) -> Tensor:
        """Run the block."""
        return llama.block(states_TD, self._layer(), context)

    def _layer(self) -> llama.Layer:
        heads, mlp = self.self_attn, self.mlp
        return llama.Layer(
            attention_gain_D=self.input_layernorm.weight,
            qkv=lambda x: _stacked(x, heads["q_proj"], heads["k_proj"], heads["v_proj"]),
            query_gain_E=_gain(heads, "q_norm"),
            key_gain_E=_gain(heads, "k_norm"),
            attention_out=heads["o_proj"],
            feed_forward_gain_D=self.post_attention_layernorm.weight,
            gated=lambda x: F.silu(mlp["gate_proj"](x)) * mlp["up_proj"](x),
            down=mlp["down_proj"],
        )


def _gain(heads: nn.ModuleDict, name: str) -> Tensor | None:
    return _weight(heads[name]) if name in heads else None


def _weight(module: nn.Module) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight


class BertBlock(nn.Module):
    """One BERT block's weights."""

    def __init__(self, shape: BertArchitecture) -> None:
        super().__init__()
        hidden, width = shape.hidden_size, shape.intermediate_size
        heads = {name: Linear(hidden, hidden, True) for name in ("query", "key", "value")}
        self.attention = nn.Module()
        self.attention.add_module("self", nn.ModuleDict(heads))
        self.attention.add_module("output", _output(hidden, hidden))
        self.intermediate = nn.ModuleDict({"dense": Linear(hidden, width, True)})
        self.output = _output(width, hidden)

    def forward(self, states_TD: Tensor, context: xlmr.Context) -> Tensor:
        """Run the block."""
        return xlmr.block(states_TD, self._layer(), context)

    def _layer(self) -> xlmr.Layer:
        heads, out = (self.attention.get_submodule(name) for name in ("self", "output"))
        assert isinstance(heads, nn.ModuleDict)
        assert isinstance(out, nn.ModuleDict)
        return xlmr.Layer(
            qkv=lambda x: _stacked(x, heads["query"], heads["key"], heads["value"]),
            attention_out=out["dense"],
            attention_norm=_norm(out["LayerNorm"]),
            up=lambda x: F.gelu(self.intermediate["dense"](x)),
            down=self.output["dense"],
            output_norm=_norm(self.output["LayerNorm"]),
        )


def _output(size_in: int, size_out: int) -> nn.ModuleDict:
    parts = {"dense": Linear(size_in, size_out, True), "LayerNorm": Gain(size_out, bias=True)}
    return nn.ModuleDict(parts)


def _norm(gain: Any) -> xlmr.Norm:  # noqa: ANN401 (a ModuleDict's values are untyped)
    return xlmr.Norm(gain.weight.float(), gain.bias.float())


class Network(nn.Module):
    """Packed tokens to pooled vectors, with gradients."""

    def __init__(self, files: ModelFiles, dtype: torch.dtype, checkpointing: bool) -> None:
        super().__init__()
        self.files, self.dtype, self.checkpointing = files, dtype, checkpointing

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks, first to last."""
        raise NotImplementedError

    def context(self, packed: Packed) -> Any:  # noqa: ANN401 (each family has its own)
        """Return what every block needs to know of a batch."""
        raise NotImplementedError

    def first_states(self, packed: Packed) -> Tensor:
        """Return the tokens' first states, fp32 ``[T, D]``."""
        raise NotImplementedError

    def finish(self, states_TD: Tensor) -> Tensor:
        """Return the last block's states as the model gives them out."""
        return states_TD

    def forward(self, packed: Packed) -> Tensor:
        """Return pooled vectors, fp32 ``[texts, D]``, not yet of length 1."""
        context, states_TD = self.context(packed), self.first_states(packed)
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                states_TD = checkpoint(block, states_TD, context, use_reentrant=False)
            else:
                states_TD = block(states_TD, context)
        return pool(self.finish(states_TD), packed, self.files.spec.pooling)


class LlamaTrainable(Network):
    """A Llama-family model."""

    def __init__(
        self, files: ModelFiles, shape: LlamaArchitecture, dtype: torch.dtype, checkpointing: bool
    ) -> None:
        super().__init__(files, dtype, checkpointing)
        self.shape = shape
        self.embed_tokens = Table(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(
            LlamaBlock(shape, lambda name, n=n: f"layers.{n}.{name}.bias" in files.weights.names)  # type: ignore[misc]
            for n in range(shape.num_layers)
        )
        self.norm = Gain(shape.hidden_size)
        self._frequencies: Tensor | None = None

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks, first to last."""
        return self.layers

    def context(self, packed: Packed) -> llama.Context:
        """Return what every block needs to know of a batch."""
        if self._frequencies is None:
            self._frequencies = _frequencies(self.files, self.shape)
        device = packed.token_ids_T.device
        angles = llama.rotation(packed.positions_T, self._frequencies.to(device))
        return llama.Context(packed, angles, self.shape, self.files.spec.attention, self.dtype)

    def first_states(self, packed: Packed) -> Tensor:
        """Return the tokens' first states."""
        states: Tensor = self.embed_tokens(packed.token_ids_T)
        return states

    def finish(self, states_TD: Tensor) -> Tensor:
        """Apply the last norm."""
        return llama.rms_norm(states_TD, self.norm.weight, self.shape.norm_eps, torch.float32)


class BertTrainable(Network):
    """A BERT-family model."""

    def __init__(
        self, files: ModelFiles, shape: BertArchitecture, dtype: torch.dtype, checkpointing: bool
    ) -> None:
        super().__init__(files, dtype, checkpointing)
        self.shape, hidden = shape, shape.hidden_size
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": Table(shape.vocab_size, hidden),
                "position_embeddings": Table(shape.num_positions, hidden),
                "token_type_embeddings": Table(shape.num_token_types, hidden),
                "LayerNorm": Gain(hidden, bias=True),
            }
        )
        layers = nn.ModuleList(BertBlock(shape) for _ in range(shape.num_layers))
        self.encoder = nn.ModuleDict({"layer": layers})

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks, first to last."""
        layers = self.encoder["layer"]
        assert isinstance(layers, nn.ModuleList)
        return layers

    def context(self, packed: Packed) -> xlmr.Context:
        """Return what every block needs to know of a batch."""
        return xlmr.Context(packed, self.shape, self.dtype)

    def first_states(self, packed: Packed) -> Tensor:
        """Return the tokens' first states."""
        tables = {name: _weight(self.embeddings[f"{name}_embeddings"]) for name in _BERT_TABLES}
        places_PD = tables["position"].float() + tables["token_type"][0].float()
        parts = xlmr.Embeddings(tables["word"], places_PD, _norm(self.embeddings["LayerNorm"]))
        return xlmr.embed(packed, parts, self.shape)


_BERT_TABLES = ("word", "position", "token_type")


def cut_layers(files: ModelFiles, num_layers: int | None) -> ModelFiles:
    """Return a model of only the first layers; its other weights are not read.

    Raises:
        InputError: The model has no such number of layers.
    """
    have = files.architecture.num_layers
    if num_layers is None or num_layers == have:
        return files
    if not 0 < num_layers < have:
        raise InputError(
            f"model.num_layers is {num_layers} and {files.path} has {have}; give 1 to {have}."
        )
    return replace(files, architecture=replace(files.architecture, num_layers=num_layers))


def build_network(files: ModelFiles, dtype: torch.dtype, checkpointing: bool) -> Network:
    """Build a model's modules, without weights yet (on the ``meta`` device)."""
    shape = files.architecture
    if isinstance(shape, BertArchitecture):
        return BertTrainable(files, shape, dtype, checkpointing)
    return LlamaTrainable(files, shape, dtype, checkpointing)


def load_weights(network: Network, device: torch.device, values: Mapping[str, Tensor]) -> None:
    """Give parameters the values stated, and the others those of the model's files, as fp32.

    Raises:
        ModelFileError: A tensor is missing, of another shape, or has values that are no numbers.
    """
    for name, parameter in list(network.named_parameters()):
        value = initial_value(network, name, parameter, values).to(device)
        owner, _, leaf = name.rpartition(".")
        trained = nn.Parameter(value, requires_grad=parameter.requires_grad)
        setattr(network.get_submodule(owner), leaf, trained)


def initial_value(
    network: Network, name: str, parameter: Tensor, values: Mapping[str, Tensor]
) -> Tensor:
    """Return a parameter's value: the one stated, else the files'."""
    if name in values:
        return values[name].to(torch.float32, copy=True)
    return read_weight(network.files, name, tuple(parameter.shape))


def read_weight(files: ModelFiles, name: str, shape: tuple[int, ...]) -> Tensor:
    """Read a tensor as fp32 and check it.

    Raises:
        ModelFileError: It is missing, of another shape, or has values that are no numbers.
    """
    tensor = files.weights.tensor(name).to(torch.float32, copy=True)
    if tuple(tensor.shape) != shape:
        raise ModelFileError(
            f"{files.path}: tensor {name} has the shape {tuple(tensor.shape)} and the "
            f"configuration asks for {shape}. They do not belong together."
        )
    if not bool(tensor.isfinite().all()):
        raise ModelFileError(
            f"{files.path}: tensor {name} has values that are not numbers or infinite; nothing can "
            "be trained from it."
        )
    return tensor


def _frequencies(files: ModelFiles, shape: LlamaArchitecture) -> Tensor:
    """RoPE's frequencies, divided by the factors a GGUF carries for llama3 scaling."""
    frequencies = llama.inverse_frequencies(shape.rope, shape.head_dim)
    if "rope_freqs.weight" in files.weights.names:
        frequencies = frequencies / files.weights.tensor("rope_freqs.weight").float()
    return frequencies
