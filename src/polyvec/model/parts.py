"""What every transformer block is made of: products, attention inside each text, and rows.

Shape letters: T packed tokens, D hidden size, H query heads, K key/value heads, E head size; N
texts of length L in a run.
"""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from polyvec.kernels import rows
from polyvec.model.packing import Packed, Run

_BLOCK_ELEMENTS = 2**18
_SHORT_TOKENS = 256
_HALF = (torch.bfloat16, torch.float16)


class Projection(Protocol):
    """A linear map ``[T, in] -> [T, out]`` in the dtype the block computes in."""

    def __call__(self, x: Tensor, /) -> Tensor:
        """Multiply."""
        ...


def attend(
    queries_THE: Tensor,
    keys_TKE: Tensor,
    values_TKE: Tensor,
    packed: Packed,
    causal: bool,
    window: int | None = None,
) -> Tensor:
    """Scaled dot-product attention inside each text; returns ``[T, H * E]``.

    Tokens further apart than ``window`` do not see each other.
    """
    if _takes_varlen(queries_THE):
        return _attend_varlen(queries_THE, keys_TKE, values_TKE, packed, causal, window)
    queries, keys, values = (packed.by_run(x) for x in (queries_THE, keys_TKE, values_TKE))
    parts = [
        _attend_run(_dense(q, run), _dense(k, run), _dense(v, run), causal, window)
        .flatten(0, 1)
        .flatten(1)
        for run, q, k, v in zip(packed.runs, queries, keys, values, strict=True)
        if run.length
    ]
    if packed.num_idle or not parts:
        width = queries_THE.shape[1] * queries_THE.shape[2]
        parts.append(queries_THE.new_zeros(packed.num_idle, width))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _takes_varlen(queries_THE: Tensor) -> bool:
    """Whether torch's attention over texts of any length serves: on a GPU, in half precision."""
    return queries_THE.device.type == "cuda" and queries_THE.dtype in _HALF and len(queries_THE) > 0


def _attend_varlen(
    queries_THE: Tensor,
    keys_TKE: Tensor,
    values_TKE: Tensor,
    packed: Packed,
    causal: bool,
    window: int | None,
) -> Tensor:
    """Attend inside all texts of a batch at once; no padding, whatever their lengths."""
    from torch.nn.attention.varlen import varlen_attn  # takes a second to import

    longest, ends = max(packed.lengths), packed.cu_seqlens
    out_THE = varlen_attn(
        queries_THE.contiguous(),
        keys_TKE.contiguous(),
        values_TKE.contiguous(),
        ends,
        ends,
        longest,
        longest,
        window_size=_varlen_window(causal, window),
        enable_gqa=queries_THE.shape[1] != keys_TKE.shape[1],
    )
    assert isinstance(out_THE, Tensor), "no log-sum-exp was asked for"
    return out_THE.flatten(1)


def _varlen_window(causal: bool, window: int | None) -> tuple[int, int]:
    """Return how far a token sees to the left and right, -1 for all; as :func:`_window_mask`."""
    if window is None:
        return (-1, 0) if causal else (-1, -1)
    return (window - 1, 0) if causal else (window, window)


def _attend_run(
    q_NHLE: Tensor, k_NKLE: Tensor, v_NKLE: Tensor, causal: bool, window: int | None
) -> Tensor:
    """Attend inside the texts of a run; returns ``[N, L, H, E]``."""
    length, grouped = q_NHLE.shape[2], q_NHLE.shape[1] != k_NKLE.shape[1]
    mask = _window_mask(length, window, causal, q_NHLE.device)
    if _is_short_training_on_cpu(q_NHLE) and mask is None and not causal:
        return _attend_by_products(q_NHLE, k_NKLE, v_NKLE)
    out_NHLE = F.scaled_dot_product_attention(
        q_NHLE,
        k_NKLE,
        v_NKLE,
        attn_mask=mask,
        is_causal=causal and mask is None,
        enable_gqa=grouped,
    )
    return out_NHLE.transpose(1, 2)


def _is_short_training_on_cpu(q_NHLE: Tensor) -> bool:
    """Whether torch's fused attention loses to plain products.

    In bf16 with gradients on a CPU: 9 times slower for texts of 20 tokens, 3 times for 128, even
    from 256 to 300, faster from there (dev/LOG.md).
    """
    half_on_cpu = q_NHLE.dtype == torch.bfloat16 and q_NHLE.device.type == "cpu"
    return half_on_cpu and q_NHLE.shape[2] <= _SHORT_TOKENS and torch.is_grad_enabled()


def _attend_by_products(q_NHLE: Tensor, k_NKLE: Tensor, v_NKLE: Tensor) -> Tensor:
    """Attend by two products and an fp32 softmax, the query heads of a key head side by side."""
    texts, heads, length, size = q_NHLE.shape
    kv_heads = k_NKLE.shape[1]
    folded = (texts * kv_heads, heads // kv_heads * length, size)
    q, k, v = q_NHLE.reshape(folded), k_NKLE.flatten(0, 1), v_NKLE.flatten(0, 1)
    weights = torch.bmm(q * size**-0.5, k.transpose(1, 2)).softmax(-1, dtype=torch.float32)
    return torch.bmm(weights.to(v.dtype), v).view(q_NHLE.shape).transpose(1, 2)


def _dense(x_THE: Tensor, run: Run) -> Tensor:
    """View a run's rows as ``[N, heads, L, E]``; nothing is copied."""
    return x_THE.unflatten(0, (run.num_texts, run.length)).transpose(1, 2)


def _window_mask(
    length: int, window: int | None, causal: bool, device: torch.device
) -> Tensor | None:
    """Return which tokens see which for a text longer than the sliding window, else None.

    Same edges as transformers' masks: a causal window holds ``window`` tokens, itself included;
    a bidirectional one reaches ``window`` tokens to each side.
    """
    if window is None or length <= window:
        return None
    place = torch.arange(length, device=device)
    distance = place[:, None] - place[None, :]
    if causal:
        return (distance >= 0) & (distance < window)
    return distance.abs() <= window


def row_blocks(x: Tensor) -> Iterator[slice]:
    """Cut rows into blocks whose fp32 intermediates stay in a core's cache.

    2 ms instead of 15 for a norm at 8B width, 5 instead of 32 for RoPE: whole-batch
    intermediates would be mapped and zeroed by the kernel on every call (dev/LOG.md).
    """
    rows = max(1, _BLOCK_ELEMENTS // max(1, x[:1].numel()))
    return (slice(start, start + rows) for start in range(0, x.shape[0], rows))


def add(states_TD: Tensor, update_TD: Tensor) -> Tensor:
    """Add to the fp32 residual stream, in place when no gradient needs the old value."""
    if torch.is_grad_enabled():
        return states_TD + update_TD
    if rows.compiled(states_TD, update_TD, width=states_TD.shape[-1]):
        rows.add(states_TD, update_TD)
        return states_TD
    for part in row_blocks(states_TD):
        states_TD[part] += update_TD[part]
    return states_TD
