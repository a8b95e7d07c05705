"""The BERT-family encoder over packed tokens: learned positions, LayerNorm after, exact GELU.

One block serves BERT, RoBERTa and XLM-RoBERTa, which differ in where positions begin. Like
:mod:`polyvec.model.llama`, it is a function of a :class:`Layer` whose projections are callables.

Shape letters: T packed tokens, D hidden size, V vocabulary, P positions.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from polyvec.kernels import rows
from polyvec.model.packing import Packed
from polyvec.model.parts import Projection, attend, row_blocks
from polyvec.spec import BertArchitecture


class Norm(NamedTuple):
    """A LayerNorm's weights, fp32."""

    gain_D: Tensor
    bias_D: Tensor


@dataclass(frozen=True)
class Embeddings:
    """What a token begins as."""

    words_VD: Tensor
    positions_PD: Tensor
    """fp32, with the row of the first token type added: texts are never pairs here."""
    norm: Norm


@dataclass(frozen=True)
class Layer:
    """One block's weights."""

    qkv: Projection
    """``[T, D] -> [T, 3 * D]``: queries, keys, values."""
    attention_out: Projection
    attention_norm: Norm
    up: Projection
    """``[T, D] -> [T, F]``: ``gelu(up(x))``."""
    down: Projection
    output_norm: Norm


@dataclass(frozen=True)
class Context:
    """What every layer needs to know of a packed batch."""

    packed: Packed
    architecture: BertArchitecture
    dtype: torch.dtype
    """The dtype projections and attention compute in; the residual stream is always fp32."""


def embed(packed: Packed, embeddings: Embeddings, shape: BertArchitecture) -> Tensor:
    """Return the tokens' first states, fp32 ``[T, D]``."""
    words_TD = embeddings.words_VD[packed.token_ids_T].float()
    places_TD = embeddings.positions_PD[positions(packed, shape.position_offset)]
    return add_norm(words_TD, places_TD, embeddings.norm, shape.norm_eps)


def positions(packed: Packed, offset: int | None) -> Tensor:
    """Return each token's row in the table of positions, int64 ``[T]``.

    RoBERTa's count from ``offset`` and skip padding tokens, which get the row before it: a text
    may hold the padding token's own word, and transformers gives it that row.
    """
    if offset is None:
        return packed.positions_T
    padding = offset - 1
    counted_T = (packed.token_ids_T != padding).long()
    before_T = counted_T.cumsum(0) - counted_T
    first_T = torch.arange(len(before_T), device=before_T.device) - packed.positions_T
    return (before_T - before_T[first_T] + 1) * counted_T + padding


def block(states_TD: Tensor, layer: Layer, context: Context) -> Tensor:
    """Run one encoder block; ``states_TD`` is the fp32 residual stream.

    Without gradients the residual stream is updated in place.
    """
    eps, dtype = context.architecture.norm_eps, context.dtype
    attended = layer.attention_out(self_attention(states_TD.to(dtype), layer, context))
    states_TD = add_norm(states_TD, attended, layer.attention_norm, eps)
    expanded = layer.down(layer.up(states_TD.to(dtype)))
    return add_norm(states_TD, expanded, layer.output_norm, eps)


def self_attention(x_TD: Tensor, layer: Layer, context: Context) -> Tensor:
    """Return ``[T, D]``: every token attends to all tokens of its text."""
    heads, head_dim = context.architecture.num_heads, context.architecture.head_dim
    qkv = layer.qkv(x_TD).unflatten(-1, (3 * heads, head_dim))
    queries, keys, values = qkv.split(heads, dim=1)
    return attend(queries, keys, values, context.packed, causal=False)


def add_norm(states_TD: Tensor, update_TD: Tensor, norm: Norm, eps: float) -> Tensor:
    """Add to the fp32 residual stream and normalize it, in place when no gradient needs it."""
    width = states_TD.shape[-1:]
    if torch.is_grad_enabled():
        return F.layer_norm(states_TD + update_TD, width, norm.gain_D, norm.bias_D, eps)
    if rows.compiled(states_TD, update_TD, width=width[0]):
        rows.add_layer_norm(states_TD, update_TD, norm, eps)
        return states_TD
    for part in row_blocks(states_TD):
        summed = states_TD[part].add_(update_TD[part])
        states_TD[part] = F.layer_norm(summed, width, norm.gain_D, norm.bias_D, eps)
    return states_TD
