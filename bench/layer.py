"""One transformer layer of the 8B model's shape against this machine's own bf16 products.

The layer is polyvec's own block on random weights. The ceiling is what the same four products
take when nothing else is done: for each of them the fastest of several ways to compute it.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from polyvec.engine.cpu import keep_freed_memory
from polyvec.engine.linear import DenseLinear, PackedLinear, gated, linear
from polyvec.model.llama import Context, Layer, block, inverse_frequencies, rotation
from polyvec.model.packing import Packed
from polyvec.spec import LlamaArchitecture, Rope

SHAPE = LlamaArchitecture(
    model_type="llama", hidden_size=4096, num_layers=1, num_heads=32, num_kv_heads=8,
    head_dim=128, intermediate_size=14336, vocab_size=128256, norm_eps=1e-5,
    rope=Rope(theta=500000.0, kind="llama3", factor=8.0), max_positions=131072,
)  # fmt: skip
"""Llama-3.1-8B's layer."""
TEXT_TOKENS = 128
_BLOCK_COLUMNS = 2048

Run = Callable[[], object]
Key = tuple[str, str]
"""A product and a way to compute it."""
BLOCK: Key = ("block", "")


class LayerBench:
    """Random weights of the layer; measures in rounds, each round every candidate once."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        torch.manual_seed(0)
        keep_freed_memory()  # as the runner does
        hidden, width = SHAPE.hidden_size, SHAPE.intermediate_size
        heads = SHAPE.num_heads * SHAPE.head_dim
        qkv_rows = heads + 2 * SHAPE.num_kv_heads * SHAPE.head_dim
        self.weights = {
            "qkv": _random(qkv_rows, hidden),
            "o": _random(hidden, heads),
            "gate+up": _random(2 * width, hidden),
            "down": _random(hidden, width),
        }
        gate, up = self.weights["gate+up"].chunk(2)
        self.layer = Layer(
            attention_gain_D=torch.rand(hidden),
            qkv=linear(self.weights["qkv"], None),
            query_gain_E=None,
            key_gain_E=None,
            attention_out=linear(self.weights["o"], None),
            feed_forward_gain_D=torch.rand(hidden),
            gated=gated(DenseLinear(gate), DenseLinear(up)),
            down=linear(self.weights["down"], None),
        )

    def measure(self, tokens: int, rounds: int) -> dict[str, object]:
        """Return milliseconds of the block and of the ceiling's products, and their share."""
        runs = {BLOCK: self._block(tokens)}
        for name, weight in self.weights.items():
            x = torch.randn(tokens, weight.shape[1]).to(torch.bfloat16)
            runs |= {(name, way): run for way, run in _products(x, weight)}
        wall, cpu = _interleaved(runs, rounds)
        ways = {name: _fastest(wall, name) for name in self.weights}
        ceiling_ms = sum(wall[name, way] for name, way in ways.items())
        ceiling_cpu = sum(cpu[name, _fastest(cpu, name)] for name in self.weights)
        operations = 2 * tokens * sum(weight.numel() for weight in self.weights.values())
        return {
            "tokens": tokens,
            "block_ms": round(wall[BLOCK], 1),
            "ceiling_ms": round(ceiling_ms, 1),
            "share": round(ceiling_ms / wall[BLOCK], 3),
            "share_cpu": round(ceiling_cpu / cpu[BLOCK], 3),
            "ceiling_gflops": round(operations / ceiling_ms / 1e6),
            "products": {name: f"{wall[name, way]:.1f} ms, {way}" for name, way in ways.items()},
        }

    def _block(self, tokens: int) -> Run:
        """The block in place on its own residual stream, as in the runner."""
        packed = Packed.of([[0] * TEXT_TOKENS] * (tokens // TEXT_TOKENS))
        angles = rotation(packed.positions_T, inverse_frequencies(SHAPE.rope, SHAPE.head_dim))
        context = Context(packed, angles, SHAPE, "bidirectional", torch.bfloat16)
        states = torch.randn(tokens, SHAPE.hidden_size)
        return lambda: block(states, self.layer, context)


def _products(x: Tensor, weight: Tensor) -> Iterator[tuple[str, Run]]:
    """Give the ways to compute ``x @ weight.T``: by torch, by oneDNN, by oneDNN in blocks."""
    out = torch.empty(x.shape[0], weight.shape[0], dtype=x.dtype)
    yield "torch.mm", lambda: torch.mm(x, weight.t(), out=out)
    packed = PackedLinear(weight)
    yield "packed", lambda: packed(x)
    if weight.shape[0] > _BLOCK_COLUMNS:  # outputs small enough for malloc to reuse their pages
        parts = [PackedLinear(part) for part in weight.chunk(-(-weight.shape[0] // _BLOCK_COLUMNS))]
        yield "packed, in blocks", lambda: _each(parts, x)


def _each(parts: Sequence[PackedLinear], x: Tensor) -> None:
    """Multiply with each block and drop the result, as a ceiling may."""
    for part in parts:
        part(x)


def _interleaved(runs: dict[Key, Run], rounds: int) -> tuple[dict[Key, float], dict[Key, float]]:
    """Return each run's median wall and CPU milliseconds; the first round only warms up."""
    times: dict[Key, list[tuple[float, float]]] = {key: [] for key in runs}
    for _ in range(rounds + 1):
        for key, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            spent = (time.perf_counter() - wall, time.process_time() - cpu)
            times[key].append((spent[0] * 1e3, spent[1] * 1e3))
    walls = {key: statistics.median(wall for wall, _ in spent[1:]) for key, spent in times.items()}
    cpus = {key: statistics.median(cpu for _, cpu in spent[1:]) for key, spent in times.items()}
    return walls, cpus


def _fastest(times: dict[Key, float], name: str) -> str:
    return min((ms, way) for (product, way), ms in times.items() if product == name)[1]


def _random(rows: int, columns: int) -> Tensor:
    return (torch.randn(rows, columns) * 0.02).to(torch.bfloat16)
