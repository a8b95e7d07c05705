"""The Llama-family transformer over packed tokens: RMSNorm, RoPE, GQA, SwiGLU.

One block serves Llama, SmolLM2, Mistral, Qwen2 and Qwen3, bidirectional or causal. It is a
function of a :class:`Layer`, whose projections are plain callables, so that the engine can
hand it oneDNN-packed, quantized or streamed weights and training can hand it modules.

Shape letters: T packed tokens, D hidden size, H query heads, K key/value heads, E head size,
F feed-forward size; N texts of length L in a run.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from polyvec.kernels import rows
from polyvec.kernels.rotation import LANES
from polyvec.kernels.rows import Heads, compiled
from polyvec.model.packing import Packed
from polyvec.model.parts import Projection, add, attend, row_blocks
from polyvec.spec import Attention, LlamaArchitecture, Rope


@dataclass(frozen=True)
class Layer:
    """One block's weights."""

    attention_gain_D: Tensor
    qkv: Projection
    """``[T, D] -> [T, (H + 2K) * E]``: queries, keys, values."""
    query_gain_E: Tensor | None
    key_gain_E: Tensor | None
    attention_out: Projection
    feed_forward_gain_D: Tensor
    gated: Projection
    """``[T, D] -> [T, F]``: ``silu(gate(x)) * up(x)``."""
    down: Projection


class Rotation(NamedTuple):
    """Cosines and signed sines of each token's rotary angles, fp32 ``[T, 1, E]`` each."""

    cos: Tensor
    sin: Tensor


@dataclass(frozen=True)
class Context:
    """What every layer needs to know of a packed batch."""

    packed: Packed
    rotation: Rotation
    architecture: LlamaArchitecture
    attention: Attention
    dtype: torch.dtype
    """The dtype projections and attention compute in; the residual stream is always fp32."""


def block(states_TD: Tensor, layer: Layer, context: Context) -> Tensor:
    """Run one transformer block; ``states_TD`` is the fp32 residual stream.

    Without gradients the residual stream is updated in place.
    """
    eps, dtype = context.architecture.norm_eps, context.dtype
    normed = rms_norm(states_TD, layer.attention_gain_D, eps, dtype)
    attended = self_attention(normed, layer, context)
    states_TD = add(states_TD, layer.attention_out(attended))
    normed = rms_norm(states_TD, layer.feed_forward_gain_D, eps, dtype)
    return add(states_TD, layer.down(layer.gated(normed)))


def self_attention(normed_TD: Tensor, layer: Layer, context: Context) -> Tensor:
    """Return ``[T, H * E]``: every text's tokens attend within their own text."""
    shape = context.architecture
    sizes = (shape.num_heads, shape.num_kv_heads, shape.num_kv_heads)
    qkv = _positioned(layer.qkv(normed_TD), layer, context)
    queries, keys, values = qkv.split(sizes, dim=1)
    causal = context.attention == "causal"
    return attend(queries, keys, values, context.packed, causal, shape.sliding_window)


def _positioned(qkv_TX: Tensor, layer: Layer, context: Context) -> Tensor:
    """Norm heads where the family does, and turn queries and keys: ``[T, H + 2K, E]``."""
    shape = context.architecture
    heads, kv_heads, size = shape.num_heads, shape.num_kv_heads, shape.head_dim
    if compiled(qkv_TX, width=size, unit=2 * LANES):
        gains = (layer.query_gain_E, layer.key_gain_E)
        angles = context.rotation.cos.squeeze(1), context.rotation.sin.squeeze(1)
        return rows.heads(qkv_TX, Heads(heads, kv_heads, size, *gains, shape.norm_eps), angles)
    qkv = qkv_TX.unflatten(-1, (heads + 2 * kv_heads, size))
    queries, keys, values = qkv.split((heads, kv_heads, kv_heads), dim=1)
    if layer.query_gain_E is not None and layer.key_gain_E is not None:
        queries = rms_norm(queries, layer.query_gain_E, shape.norm_eps, context.dtype)
        keys = rms_norm(keys, layer.key_gain_E, shape.norm_eps, context.dtype)
        return torch.cat(
            (rotate(queries, context.rotation), rotate(keys, context.rotation), values), 1
        )
    turned = rotate(qkv[:, : heads + kv_heads], context.rotation)
    return torch.cat((turned, values), dim=1)


def rms_norm(x: Tensor, gain: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """Root-mean-square norm over the last axis, computed in fp32, given back in ``dtype``."""
    if x.dtype == torch.float32 and compiled(x, gain, width=x.shape[-1]):
        return rows.rms_norm(x, gain, eps, dtype)
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    scale = norm.square().div(x.shape[-1]).add(eps).rsqrt()
    if torch.is_grad_enabled():
        return (x * scale * gain).to(dtype)
    y = torch.empty(x.shape, dtype=dtype, device=x.device)
    for part in row_blocks(x):
        y[part] = (x[part] * scale[part]).mul_(gain)
    return y


def rotate(x_THE: Tensor, rotation: Rotation) -> Tensor:
    """Rotate each head's halves by its position's angles (RoPE, the layout of transformers).

    Computed in fp32, given back in the dtype of ``x_THE``.
    """
    if torch.is_grad_enabled():
        return _rotate(x_THE.float(), *rotation).to(x_THE.dtype)
    y_THE = torch.empty(x_THE.shape, dtype=x_THE.dtype, device=x_THE.device)
    for part in row_blocks(x_THE):
        y_THE[part] = _rotate(x_THE[part].float(), rotation.cos[part], rotation.sin[part])
    return y_THE


def _rotate(x_THE: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return (x_THE * cos).addcmul_(x_THE.roll(x_THE.shape[-1] // 2, -1), sin)


def rotation(positions_T: Tensor, inverse_frequencies: Tensor) -> Rotation:
    """Return the rotation of tokens at ``positions_T``."""
    angles = positions_T[:, None].float() * inverse_frequencies
    cos, sin = angles.cos(), angles.sin()
    return Rotation(torch.cat((cos, cos), -1)[:, None], torch.cat((-sin, sin), -1)[:, None])


def inverse_frequencies(rope: Rope, head_dim: int) -> Tensor:
    """Return RoPE's angular frequencies, fp32 ``[E / 2]``.

    ``llama3`` scaling is transformers' ``_compute_llama3_parameters``: wavelengths longer than
    ``original_max_tokens / low_freq_factor`` are stretched by ``factor``, those shorter than
    ``original_max_tokens / high_freq_factor`` stay, and those between are blended.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    frequencies = 1.0 / (rope.theta**exponents)
    if rope.kind == "default":
        return frequencies
    if rope.kind == "linear":
        return frequencies / rope.factor
    turns = rope.original_max_tokens * frequencies / (2 * math.pi)
    kept = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    kept = kept.clamp(0, 1)
    return (1 - kept) * frequencies / rope.factor + kept * frequencies
