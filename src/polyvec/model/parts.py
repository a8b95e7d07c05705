"""What every transformer block is made of: products, attention inside each text, and rows.

Shape letters: T packed tokens, D hidden size, H query heads, K key/value heads, E head size; N
texts of length L in a run.
"""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from polyvec.model.packing import Packed, Run

_BLOCK_ELEMENTS = 2**18


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
    parts = []
    for run in packed.runs:
        if run.length == 0:
            continue
        q, k, v = (_dense(x, run) for x in (queries_THE, keys_TKE, values_TKE))
        mask = _window_mask(run.length, window, causal, q.device)
        out_NHLE = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            is_causal=causal and mask is None,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        parts.append(out_NHLE.transpose(1, 2).reshape(run.num_texts * run.length, -1))
    if not parts:
        return queries_THE.flatten(1)
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _dense(x_THE: Tensor, run: Run) -> Tensor:
    """View a run's rows as ``[N, heads, L, E]``; nothing is copied."""
    return x_THE[run.start : run.end].unflatten(0, (run.num_texts, run.length)).transpose(1, 2)


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
    for rows in row_blocks(states_TD):
        states_TD[rows] += update_TD[rows]
    return states_TD
