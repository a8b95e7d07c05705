"""What this machine's products reach by themselves: the ceiling of any engine on it.

A model's four kinds of product (q/k/v, attention's output, gate and up, down) are computed at its
widths on a full batch, by every way torch has in fp32, bf16 and int8, and nothing else is done: no
scale is found, no result kept. The fastest way counts.
"""

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from polyvec.engine.cpu import keep_freed_memory
from polyvec.engine.linear import PackedLinear
from polyvec.spec import LlamaArchitecture

PRECISIONS = ("fp32", "bf16", "int8")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
TOKENS = 2048
Run = Callable[[], object]
Key = tuple[str, str, str]
"""Precision, product, way."""


def products(shape: LlamaArchitecture) -> dict[str, tuple[int, int]]:
    """Return the products of one layer: outputs and inputs of each weight."""
    hidden, width, heads = shape.hidden_size, shape.intermediate_size, shape.num_heads
    return {
        "qkv": ((heads + 2 * shape.num_kv_heads) * shape.head_dim, hidden),
        "o": (hidden, heads * shape.head_dim),
        "gate+up": (2 * width, hidden),
        "down": (hidden, width),
    }


class Ceiling:
    """Random weights at a model's widths; measures in rounds, each round every way once."""

    def __init__(self, shape: LlamaArchitecture, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        keep_freed_memory()  # as the runner does
        self.sizes, self.num_layers = products(shape), shape.num_layers
        self.runs: dict[Key, Run] = {}
        for product, (rows, columns) in self.sizes.items():
            weight, x = torch.randn(rows, columns), torch.randn(TOKENS, columns)
            for precision in PRECISIONS:
                ways = _int8(x, weight) if precision == "int8" else _floating(x, weight, precision)
                self.runs |= {(precision, product, way): run for way, run in ways}

    def measure(self, rounds: int) -> dict[str, dict[str, object]]:
        """Return for each precision its GFLOP/s and the way that was fastest for each product."""
        with torch.no_grad():
            spent = self._interleaved(rounds)
        return {precision: self._best(spent, precision) for precision in PRECISIONS}

    def operations_per_token(self) -> int:
        """Return the operations of a token's products, twice the weights that it meets.

        Attention's own products are left out, as they are in a ceiling.
        """
        return 2 * self.num_layers * sum(rows * columns for rows, columns in self.sizes.values())

    def _interleaved(self, rounds: int) -> dict[Key, float]:
        """Return each run's fastest round, in seconds; within one, short runs are repeated."""
        times: dict[Key, list[float]] = {key: [] for key in self.runs}
        for run in self.runs.values():
            _seconds(run, 2)  # warms up: the kernel is made on first use
        repeats = {key: 1 + int(0.05 / _seconds(run, 2)) for key, run in self.runs.items()}
        for _ in range(rounds):
            for key, run in self.runs.items():
                times[key].append(_seconds(run, repeats[key]))
        return {key: min(spent) for key, spent in times.items()}

    def _best(self, spent: dict[Key, float], precision: str) -> dict[str, object]:
        fastest = {
            product: min(
                (s, way) for (p, q, way), s in spent.items() if (p, q) == (precision, product)
            )
            for product in self.sizes
        }
        operations = 2 * TOKENS * sum(rows * columns for rows, columns in self.sizes.values())
        seconds = sum(taken for taken, _ in fastest.values())
        ways = {
            product: f"{taken * 1e3:.2f} ms, {way}" for product, (taken, way) in fastest.items()
        }
        return {"gflops": round(operations / seconds / 1e9), "products": ways}


def _floating(x: Tensor, weight: Tensor, precision: str) -> Iterator[tuple[str, Run]]:
    x, weight = x.to(DTYPES[precision]), weight.to(DTYPES[precision])
    out = torch.empty(len(x), len(weight), dtype=x.dtype)
    yield "torch.mm", lambda: torch.mm(x, weight.t(), out=out)
    packed = PackedLinear(weight)
    yield "oneDNN, packed", lambda: packed(x)


def _int8(x: Tensor, weight: Tensor) -> Iterator[tuple[str, Run]]:
    """Give the int8 products: oneDNN's with one scale a tensor, int32 sums, u8 and s8 inputs."""
    scale, zero = torch.full((len(weight),), 0.01), torch.zeros(len(weight), dtype=torch.int64)
    quantized = (weight * 30).clamp(-127, 127).to(torch.int8)
    signed = (x * 30).clamp(-127, 127).to(torch.int8)
    out = torch.empty(len(x), len(weight), dtype=torch.int32)
    transposed = quantized.t()
    yield "torch._int_mm", lambda: torch._int_mm(signed, transposed, out=out)
    columns_first = transposed.contiguous()
    yield "torch._int_mm, contiguous", lambda: torch._int_mm(signed, columns_first, out=out)
    inputs = {"u8": (x * 30 + 128).clamp(0, 255).to(torch.uint8), "s8": signed}
    for name, given in inputs.items():
        packed = torch.ops.onednn.qlinear_prepack(quantized, list(given.shape))
        point = 128 if name == "u8" else 0
        for dtype in (torch.float32, torch.bfloat16):

            def run(
                given: Tensor = given,
                packed: Tensor = packed,
                point: int = point,
                dtype: torch.dtype = dtype,
            ) -> Tensor:
                product: Tensor = torch.ops.onednn.qlinear_pointwise(
                    given, 0.01, point, packed, scale, zero, None, 1.0, 0, dtype, "none", [], ""
                )
                return product

            yield f"oneDNN qlinear, {name} to {dtype}".replace("torch.", ""), run


def _seconds(run: Run, times: int) -> float:
    started = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - started) / times
