"""Transformer blocks in int8 (W8A8): rotated activations, one scale a token, one an output.

The products run in oneDNN on VNNI or AMX, int8 by int8 into int32, scaled by output there; the
token's scale, the bias and whatever follows are one compiled pass over the rows
(:mod:`polyvec.kernels.rows`). What makes it faithful is the rotation: without it the default
backbone keeps a cosine of .982 to fp32 in the mean, with it .997; and that queries, keys and
values, a seventh of the products and a third of the error, are not rounded (dev/LOG.md).

Shape letters as in :mod:`polyvec.model.llama`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from polyvec.kernels import rows
from polyvec.kernels.rows import Heads, Quantized
from polyvec.model import llama, xlmr
from polyvec.model.parts import Projection, attend

# Rows of gate and up that go through one product: wider outputs would leave the cache before the
# activation reads them.
_MAX_BLOCK_ROWS = 4096


class Int8Linear:
    """``x @ weight.T``, still to be multiplied by each token's scale; ``bias_O`` is added there.

    ``weight`` is laid out by :func:`polyvec.kernels.blocks.pack_int8`, its rows to be multiplied by
    ``scale_O``.
    """

    def __init__(
        self, weight: Tensor, scale_O: Tensor, bias_O: Tensor | None, dtype: torch.dtype
    ) -> None:
        self.weight, self.scale_O, self.dtype = weight, scale_O, dtype
        self.zeros_O = torch.zeros(len(scale_O), dtype=torch.int64)
        self.bias_O = None if bias_O is None else bias_O.float()

    def __call__(self, values_TI: Tensor) -> Tensor:
        """Multiply int8 rows; returns ``[T, out]`` in the dtype the block computes in."""
        y: Tensor = torch.ops.onednn.qlinear_pointwise(
            values_TI, 1.0, 0, self.weight, self.scale_O, self.zeros_O, None,
            1.0, 0, self.dtype, "none", [], "",
        )  # fmt: skip
        return y


@dataclass(frozen=True)
class LlamaLayer:
    """One Llama block's weights in int8."""

    attention_gain_D: Tensor
    qkv: Int8Linear | Projection
    """In int8 only where the weights are in 4 bits anyway."""
    heads: Heads
    attention_out: Int8Linear
    feed_forward_gain_D: Tensor
    gate_up: tuple[Int8Linear, ...]
    """Blocks of columns (:func:`column_blocks`); each gives ``[gate | up]`` of its own."""
    width: int
    down: Int8Linear


@dataclass(frozen=True)
class BertLayer:
    """One BERT block's weights in int8; queries, keys and values as in :class:`LlamaLayer`."""

    qkv: Int8Linear | Projection
    heads: Heads
    attention_out: Int8Linear
    attention_norm: xlmr.Norm
    up: Int8Linear
    down: Int8Linear
    output_norm: xlmr.Norm


def column_blocks(width: int) -> list[tuple[int, int]]:
    """Return the blocks, as (start, stop), in which a feed-forward's columns are computed."""
    blocks = -(-2 * width // _MAX_BLOCK_ROWS)
    step = -(-width // blocks)
    return [(start, min(start + step, width)) for start in range(0, width, step)]


def llama_block(states_TD: Tensor, layer: LlamaLayer, context: llama.Context) -> Tensor:
    """Run one block; the fp32 residual stream ``states_TD`` is updated in place."""
    eps = context.architecture.norm_eps
    attended = _attend(_llama_heads(states_TD, layer, context), layer, context)
    _add(states_TD, layer.attention_out, rows.quantize(attended))
    x = rows.rms_norm_int8(states_TD, layer.feed_forward_gain_D, eps)
    _add(states_TD, layer.down, rows.quantize(_feed_forward(x, layer)))
    return states_TD


def _llama_heads(states_TD: Tensor, layer: LlamaLayer, context: llama.Context) -> Tensor:
    """Return queries, keys and values, normed and turned: ``[T, H + 2K, E]``."""
    gain_D, eps = layer.attention_gain_D, context.architecture.norm_eps
    angles = context.rotation.cos.squeeze(1), context.rotation.sin.squeeze(1)
    if isinstance(layer.qkv, Int8Linear):
        x = rows.rms_norm_int8(states_TD, gain_D, eps)
        return _heads(x, layer.qkv, layer.heads, angles)
    normed = rows.rms_norm(states_TD, gain_D, eps, context.dtype)
    return rows.heads(layer.qkv(normed), layer.heads, angles)


def _heads(
    x: Quantized, qkv: Int8Linear, heads: Heads, angles: tuple[Tensor, Tensor] | None
) -> Tensor:
    return rows.heads(qkv(x.values_TD), heads, angles, x.scale_T, qkv.bias_O)


def _attend(turned: Tensor, layer: LlamaLayer, context: llama.Context) -> Tensor:
    queries, keys = layer.heads.queries, layer.heads.keys
    causal, window = context.attention == "causal", context.architecture.sliding_window
    q, k, v = turned.split((queries, keys, keys), dim=1)
    return attend(q, k, v, context.packed, causal, window)


def _feed_forward(x: Quantized, layer: LlamaLayer) -> Tensor:
    out_TF = torch.empty(len(x.scale_T), layer.width, dtype=layer.down.dtype)
    start = 0
    for block in layer.gate_up:
        product = block(x.values_TD)
        end = start + product.shape[1] // 2
        rows.swiglu(product, out_TF[:, start:end], x.scale_T, block.bias_O)
        start = end
    return out_TF


def _add(states_TD: Tensor, linear: Int8Linear, x: Quantized) -> None:
    rows.add(states_TD, linear(x.values_TD), x.scale_T, linear.bias_O)


def bert_block(states_TD: Tensor, layer: BertLayer, context: xlmr.Context) -> Tensor:
    """Run one encoder block; the fp32 residual stream ``states_TD`` is updated in place."""
    eps, count = context.architecture.norm_eps, layer.heads.queries
    q, k, v = _bert_heads(states_TD, layer, context.dtype).split(count, dim=1)
    attended = attend(q, k, v, context.packed, causal=False)
    _add_norm(states_TD, layer.attention_out, attended, layer.attention_norm, eps)
    x = rows.quantize(states_TD)
    expanded = rows.gelu(layer.up(x.values_TD), x.scale_T, layer.up.bias_O)
    _add_norm(states_TD, layer.down, expanded, layer.output_norm, eps)
    return states_TD


def _bert_heads(states_TD: Tensor, layer: BertLayer, dtype: torch.dtype) -> Tensor:
    """Return queries, keys and values: ``[T, 3 H, E]``."""
    if isinstance(layer.qkv, Int8Linear):
        return _heads(rows.quantize(states_TD), layer.qkv, layer.heads, None)
    qkv = layer.qkv(states_TD.to(dtype))
    return qkv.unflatten(-1, (3 * layer.heads.queries, layer.heads.size))


def _add_norm(
    states_TD: Tensor, linear: Int8Linear, x_TI: Tensor, norm: xlmr.Norm, eps: float
) -> None:
    x = rows.quantize(x_TI)
    rows.add_layer_norm(states_TD, linear(x.values_TD), norm, eps, x.scale_T, linear.bias_O)
