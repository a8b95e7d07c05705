"""The Llama-family transformer over packed tokens: RMSNorm, RoPE, GQA, SwiGLU.

One block serves Llama, SmolLM2, Mistral, Qwen2 and Qwen3, bidirectional or causal. It is a
function of a :class:`Layer`, whose projections are plain callables, so that the engine can
hand it oneDNN-packed, quantized or streamed weights and training can hand it modules.

Shape letters: T packed tokens, D hidden size, H query heads, K key/value heads, E head size,
F feed-forward size; N texts of length L in a run.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from polyvec.model.packing import Packed, Run
from polyvec.spec import Architecture, Attention, Rope

_BLOCK_ELEMENTS = 2**18


class Projection(Protocol):
    """A linear map ``[T, in] -> [T, out]`` in the dtype the block computes in."""

    def __call__(self, x: Tensor, /) -> Tensor:
        """Multiply."""
        ...


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
    architecture: Architecture
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
    states_TD = _add(states_TD, layer.attention_out(attended))
    normed = rms_norm(states_TD, layer.feed_forward_gain_D, eps, dtype)
    return _add(states_TD, layer.down(layer.gated(normed)))


def self_attention(normed_TD: Tensor, layer: Layer, context: Context) -> Tensor:
    """Return ``[T, H * E]``: every text's tokens attend within their own text."""
    shape = context.architecture
    heads, kv_heads = shape.num_heads, shape.num_kv_heads
    qkv = layer.qkv(normed_TD).unflatten(-1, (heads + 2 * kv_heads, shape.head_dim))
    queries, keys, values = qkv.split((heads, kv_heads, kv_heads), dim=1)
    if layer.query_gain_E is not None and layer.key_gain_E is not None:
        queries = rms_norm(queries, layer.query_gain_E, shape.norm_eps, context.dtype)
        keys = rms_norm(keys, layer.key_gain_E, shape.norm_eps, context.dtype)
        rotated = rotate(torch.cat((queries, keys), dim=1), context.rotation)
    else:
        rotated = rotate(qkv[:, : heads + kv_heads], context.rotation)
    queries, keys = rotated.split((heads, kv_heads), dim=1)
    return attend(queries, keys, values, context)


def attend(queries_THE: Tensor, keys_TKE: Tensor, values_TKE: Tensor, context: Context) -> Tensor:
    """Scaled dot-product attention inside each text; returns ``[T, H * E]``."""
    parts = []
    for run in context.packed.runs:
        if run.length == 0:
            continue
        q, k, v = (_dense(x, run) for x in (queries_THE, keys_TKE, values_TKE))
        mask = _window_mask(run.length, context, q.device)
        causal = mask is None and context.attention == "causal"
        out_NHLE = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1]
        )
        parts.append(out_NHLE.transpose(1, 2).reshape(run.num_texts * run.length, -1))
    if not parts:
        return queries_THE.flatten(1)
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _dense(x_THE: Tensor, run: Run) -> Tensor:
    """View a run's rows as ``[N, heads, L, E]``; nothing is copied."""
    return x_THE[run.start : run.end].unflatten(0, (run.num_texts, run.length)).transpose(1, 2)


def _window_mask(length: int, context: Context, device: torch.device) -> Tensor | None:
    """Return which tokens see which for a text longer than the sliding window, else None.

    Same edges as transformers' masks: a causal window holds ``window`` tokens, itself included;
    a bidirectional one reaches ``window`` tokens to each side.
    """
    window = context.architecture.sliding_window
    if window is None or length <= window:
        return None
    place = torch.arange(length, device=device)
    distance = place[:, None] - place[None, :]
    if context.attention == "causal":
        return (distance >= 0) & (distance < window)
    return distance.abs() <= window


def rms_norm(x: Tensor, gain: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """Root-mean-square norm over the last axis, computed in fp32, given back in ``dtype``."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    scale = norm.square().div(x.shape[-1]).add(eps).rsqrt()
    if torch.is_grad_enabled():
        return (x * scale * gain).to(dtype)
    y = torch.empty(x.shape, dtype=dtype, device=x.device)
    for rows in _row_blocks(x):
        y[rows] = (x[rows] * scale[rows]).mul_(gain)
    return y


def rotate(x_THE: Tensor, rotation: Rotation) -> Tensor:
    """Rotate each head's halves by its position's angles (RoPE, the layout of transformers).

    Computed in fp32, given back in the dtype of ``x_THE``.
    """
    if torch.is_grad_enabled():
        return _rotate(x_THE.float(), *rotation).to(x_THE.dtype)
    y_THE = torch.empty(x_THE.shape, dtype=x_THE.dtype, device=x_THE.device)
    for rows in _row_blocks(x_THE):
        y_THE[rows] = _rotate(x_THE[rows].float(), rotation.cos[rows], rotation.sin[rows])
    return y_THE


def _rotate(x_THE: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return (x_THE * cos).addcmul_(x_THE.roll(x_THE.shape[-1] // 2, -1), sin)


def _row_blocks(x: Tensor) -> Iterator[slice]:
    """Cut rows into blocks whose fp32 intermediates stay in a core's cache.

    2 ms instead of 15 for a norm at 8B width, 5 instead of 32 for RoPE: whole-batch
    intermediates would be mapped and zeroed by the kernel on every call (dev/LOG.md).
    """
    rows = max(1, _BLOCK_ELEMENTS // max(1, x[:1].numel()))
    return (slice(start, start + rows) for start in range(0, x.shape[0], rows))


def _add(states_TD: Tensor, update_TD: Tensor) -> Tensor:
    """Add to the fp32 residual stream, in place when no gradient needs the old value."""
    if torch.is_grad_enabled():
        return states_TD + update_TD
    for rows in _row_blocks(states_TD):
        states_TD[rows] += update_TD[rows]
    return states_TD


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
