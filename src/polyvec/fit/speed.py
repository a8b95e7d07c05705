"""Tokens a second: a roofline of products, attention and what is done to rows.

An embedder reads each token once and has no KV cache, so its time is arithmetic. Seconds a token:

- products: 2 operations a weight of the layers, at the rate of products of these widths; queries,
  keys and values of an int8 model at the rate of the dtype they stay in (not of 4 bits);
- attention: 4 * text tokens * heads * head size operations a layer, at attention's own rate;
- rows: norms, rotary angles, activations and rounding, by the elements that they touch;
- streamed and packed layers: as long as reading them all takes once per super-batch, if that is
  longer than the rest together.
"""

from dataclasses import dataclass

import torch

from polyvec.engine.budget import MAX_SUPER_TOKENS, layer_weights, qkv_weights
from polyvec.engine.cpu import compute_dtype
from polyvec.engine.holding import Holding
from polyvec.fit.devices import Device
from polyvec.fit.rates import attention_rate, product_rate, row_rate
from polyvec.spec import Architecture, BertArchitecture

CPU_ROWS_SHARE = {"fp32": 1.0, "bf16": 1.7, "int8": 1.15}
"""Row elements a second beside those of torch's SiLU on a core: fitted to what ``bench/cpu.py`` and
``bench/fit.py`` measured of three models on an Intel Xeon with AMX (docs/fit.md). polyvec's
compiled rows touch an element several times for a pass through memory; int8 rounds them too."""
GPU_PRODUCTS_SHARE = 0.4
"""Of the stated peak that a GPU's packed batches reach: assumed, as `evaluate mmteb --dry-run`
does; none was at hand to measure."""
GPU_ROWS_SHARE = 0.6
"""Of the stated bandwidth that work on rows reaches there: assumed."""
_BYTES_PER_ELEMENT = 2
_DISK_BYTES_PER_S = 1.4e9
"""Of layers streamed from files: measured here (the lowest of 1.4 to 2.1 GB/s)."""
_PCIE_BYTES_PER_S = 12e9
"""Of layers copied to a GPU: half of PCIe 4's 32 GB/s and less; assumed."""


@dataclass(frozen=True)
class Speed:
    """What a way to run a model reaches."""

    tokens_per_s: float
    how: str
    """Whether its rates are measured here, or whose figures they are."""


def operations_per_token(shape: Architecture) -> int:
    """Return the operations of a token's products in all layers."""
    return 2 * shape.num_layers * layer_weights(shape)


def _attention_operations(shape: Architecture, text_tokens: int) -> int:
    return 4 * text_tokens * shape.num_heads * shape.head_dim * shape.num_layers


def _row_elements(shape: Architecture) -> int:
    """Return the elements that are read or written beside products, a token in all layers."""
    heads = (shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim
    return shape.num_layers * (8 * shape.hidden_size + 3 * shape.intermediate_size + 3 * heads)


def _product_seconds(
    shape: Architecture, precision: str, dtype: torch.dtype, keeps_qkv: bool, again: bool
) -> float | None:
    """Return the seconds of a token's products on one core, or None without the instructions."""
    up = shape.intermediate_size * (1 if isinstance(shape, BertArchitecture) else 2)
    rate = product_rate(up, shape.hidden_size, precision, again)
    if rate is None:
        return None
    kept = 2 * shape.num_layers * qkv_weights(shape) if keeps_qkv else 0
    seconds = (operations_per_token(shape) - kept) / rate
    if kept:
        wide = "bf16" if dtype == torch.bfloat16 else "fp32"
        seconds += kept / (product_rate(up, shape.hidden_size, wide, again) or rate)
    return seconds


def cpu_speed(
    shape: Architecture,
    precision: str,
    holding: Holding,
    cores: int,
    text_tokens: int,
    file_bytes: int,
    again: bool = False,
) -> Speed | None:
    """Return the speed on this machine, or None where it lacks the instructions."""
    counted = "int8" if precision == "packed" else precision
    dtype = compute_dtype(precision)
    keeps_qkv = precision == "int8" and not holding.four_bits
    products = _product_seconds(shape, counted, dtype, keeps_qkv, again)
    if products is None:
        return None
    attention = attention_rate(shape.head_dim, text_tokens, dtype, again)
    seconds = products + _attention_operations(shape, text_tokens) / attention
    seconds += _row_elements(shape) / (CPU_ROWS_SHARE[counted] * row_rate(dtype, again))
    seconds /= cores  # each has a batch of its own
    if holding.place == "streamed":
        seconds = max(seconds, file_bytes / _DISK_BYTES_PER_S / MAX_SUPER_TOKENS)
    return Speed(1 / seconds, "products measured on this machine")


def device_speed(shape: Architecture, device: Device, place: str, text_tokens: int) -> Speed | None:
    """Return a listed GPU's speed in bf16, or None where its maker states no rate."""
    if device.bf16_tflops is None or device.bandwidth_gb_per_s is None:
        return None
    rate = device.bf16_tflops * 1e12 * GPU_PRODUCTS_SHARE
    seconds = (operations_per_token(shape) + _attention_operations(shape, text_tokens)) / rate
    moved = _row_elements(shape) * _BYTES_PER_ELEMENT
    seconds += moved / (device.bandwidth_gb_per_s * 1e9 * GPU_ROWS_SHARE)
    if place != "resident":
        layers = shape.num_layers * layer_weights(shape) * 2
        seconds = max(seconds, layers / _PCIE_BYTES_PER_S / MAX_SUPER_TOKENS)
    return Speed(1 / seconds, f"stated peak, {GPU_PRODUCTS_SHARE:.0%} of it assumed")
