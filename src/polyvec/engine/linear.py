"""Matrix products of a transformer block, on weights arranged once for this machine.

On a CPU, oneDNN packs a weight into its own blocked layout when the model is loaded: twice as
fast as repacking on every call for a short query, equal for a full batch.
"""

import threading

import torch
from torch import Tensor
from torch.nn import functional as F

from polyvec.engine.cpu import has_onednn
from polyvec.model.parts import Projection

# Outputs wider than this are computed in blocks of columns: a block stays in cache for the SiLU
# and below the 32 MB over which malloc maps (and the kernel zeroes) fresh pages on each call.
# At 8B shape that is 187 ms a layer for gate, up and SiLU, instead of 221 (dev/LOG.md).
_MAX_BLOCK_COLUMNS = 4096


class DenseLinear:
    """``x @ weight.T + bias`` by torch, on any device."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None = None) -> None:
        self.weight_OI, self.bias_O = weight_OI, bias_O

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply."""
        return F.linear(x, self.weight_OI, self.bias_O)


class DenseGated:
    """``silu(gate(x)) * up(x)`` by torch, on any device."""

    def __init__(self, gate: DenseLinear, up: DenseLinear) -> None:
        self.gate, self.up = gate, up

    def __call__(self, x: Tensor) -> Tensor:
        """Gate."""
        return F.silu(self.gate(x)) * self.up(x)


class DenseGelu:
    """``gelu(x @ weight.T + bias)``, the exact one, by torch, on any device."""

    def __init__(self, linear: DenseLinear) -> None:
        self.linear = linear

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply and activate."""
        return F.gelu(self.linear(x))


class PackedLinear:
    """``x @ weight.T + bias`` by oneDNN, on a weight packed once.

    With ``packs`` false the weight is used where it lies: as fast for a full batch, and right for
    one that is soon overwritten.
    """

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None = None, packs: bool = True) -> None:
        reorder = torch.ops.mkldnn._reorder_linear_weight
        self.weight = reorder(weight_OI.contiguous()) if packs else weight_OI
        self.bias_O = bias_O

    def __call__(self, x: Tensor, after: str = "none", variant: str = "") -> Tensor:
        """Multiply, and apply ``after`` (oneDNN's name of an activation) before rounding."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self.weight, self.bias_O, after, [], variant
        )
        return y

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        """Multiply, and take the product with ``factor`` elementwise before rounding."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise.binary(
            x, factor, self.weight, self.bias_O, "mul"
        )
        return y


class PackedGelu:
    """``gelu(x @ weight.T + bias)`` by oneDNN, activated before rounding.

    As exact as torch's GELU in fp32 and a third more exact in bf16; up to a quarter faster.
    """

    def __init__(self, linear: DenseLinear, packs: bool = True) -> None:
        self.linear = PackedLinear(linear.weight_OI, linear.bias_O, packs)

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply and activate."""
        return self.linear(x, "gelu", "none")  # "none": no tanh, the exact function


class _Scratch(threading.local):
    """One buffer a thread for outputs too large for malloc to reuse: their pages stay mapped.

    What :meth:`take` gives is overwritten by the next call in the same thread.
    """

    def __init__(self) -> None:
        self.buffer = torch.empty(0, dtype=torch.uint8)

    def take(self, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        """Return a tensor of any content."""
        size = rows * columns * dtype.itemsize
        if self.buffer.numel() < size:
            with torch.inference_mode(mode=False):  # also written to outside inference mode
                self.buffer = torch.empty(size, dtype=torch.uint8)
        return self.buffer[:size].view(dtype).view(rows, columns)


_SCRATCH = _Scratch()


class PackedGated:
    """``silu(gate(x)) * up(x)`` by oneDNN, a block of columns at a time.

    Where there are several blocks, the result is overwritten by the thread's next call.

    In bf16 the activation and the product run inside oneDNN's products, before rounding: more
    exact, and a tenth faster. In fp32 they gain no exactness there and cost a twentieth.
    """

    def __init__(self, gate: DenseLinear, up: DenseLinear, packs: bool = True) -> None:
        columns = gate.weight_OI.shape[0]
        blocks = -(-columns // _MAX_BLOCK_COLUMNS)
        self.columns = columns
        self.fused = gate.weight_OI.dtype == torch.bfloat16
        self.blocks = [
            (PackedLinear(*gate_part, packs), PackedLinear(*up_part, packs))
            for gate_part, up_part in zip(_split(gate, blocks), _split(up, blocks), strict=True)
        ]

    def __call__(self, x: Tensor) -> Tensor:
        """Gate."""
        if len(self.blocks) == 1:
            return self._block(x, *self.blocks[0])
        y, start = _SCRATCH.take(x.shape[0], self.columns, x.dtype), 0
        for gate, up in self.blocks:
            part = self._block(x, gate, up)
            y[:, start : start + part.shape[1]] = part
            start += part.shape[1]
        return y

    def _block(self, x: Tensor, gate: PackedLinear, up: PackedLinear) -> Tensor:
        if self.fused:
            return up.times(x, gate(x, "swish"))
        return F.silu(gate(x), inplace=True).mul_(up(x))


def _split(linear: DenseLinear, blocks: int) -> list[tuple[Tensor, Tensor | None]]:
    weights = linear.weight_OI.chunk(blocks)
    if linear.bias_O is None:
        return [(weight, None) for weight in weights]
    return list(zip(weights, linear.bias_O.chunk(blocks), strict=True))


def linear(weight_OI: Tensor, bias_O: Tensor | None, packs: bool = True) -> Projection:
    """Return the fastest faithful product with a weight in its dtype and on its device."""
    if _packs(weight_OI):
        return PackedLinear(weight_OI, bias_O, packs)
    return DenseLinear(weight_OI, bias_O)


def gated(gate: DenseLinear, up: DenseLinear, packs: bool = True) -> Projection:
    """Return the fastest faithful ``silu(gate(x)) * up(x)``."""
    return PackedGated(gate, up, packs) if _packs(gate.weight_OI) else DenseGated(gate, up)


def gelu(up: DenseLinear, packs: bool = True) -> Projection:
    """Return the fastest faithful ``gelu(up(x))``."""
    return PackedGelu(up, packs) if _packs(up.weight_OI) else DenseGelu(up)


def _packs(weight_OI: Tensor) -> bool:
    return weight_OI.device.type == "cpu" and has_onednn()
