"""An 8B model in little memory: layers kept, packed or streamed, and llama.cpp beside them.

Writes a folder of Llama-3.1-8B's shape with random weights, a layer at a time, in bf16 (436 MB a
layer and 1.05 GB of token table), to a temporary place, and embeds 256 texts (or ``--texts``) of
128 tokens with each contender (or ``--ways``). ``tokens_per_s`` is as measured;
``tokens_per_s_of_32`` is what it is at 32 layers, where all cost but the layers' is left out. Peak
memory is what the stated number of layers took: only streaming's does not grow with them, so state
32 to see the others'.

Up to 3 layers every contender is loaded at once and rounds go in turn; above, memory allows only
one at a time.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from contenders import Timing, UnavailableError, Worker, load_ours, peak_mb, timed
from foreign import ENGINES, Foreign, check_installed
from texts import UNIFORM_TOKENS, Workloads

if TYPE_CHECKING:
    from torch import Generator, Tensor

WHOLE = 32
TEXTS = 256
TOGETHER = 3
LLAMA = "llama.cpp Q4_K_M"
LLAMA_TEXTS = 16
"""llama.cpp is given so many: its speed does not depend on how many there are, and it is slow. Its
seconds are multiplied to those of all."""
_Q4_K_M = "15"
"""Of llama.cpp's enum ``llama_ftype``."""


class Way(NamedTuple):
    """A way to hold the layers."""

    precision: str
    weights: str
    memory_bytes: int | None = None
    """Allowed; None is no limit."""


WAYS = {
    "resident bf16": Way("bf16", "resident"),
    "resident int8": Way("int8", "resident"),
    "packed": Way("packed", "packed", 7 * 10**9),
    "streamed bf16": Way("bf16", "streamed", 2 * 10**9),
    "streamed int8": Way("int8", "streamed", 2 * 10**9),
}
REFERENCES = {
    "packed": "resident int8",
    "streamed bf16": "resident bf16",
    "streamed int8": "resident int8",
}
"""What each is to keep up with."""


class Wide:
    """polyvec on the wide model, in a process of its own."""

    def __init__(self, folder: Path, way: Way, texts: list[str], threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        options: dict[str, Any] = {"precision": way.precision}
        if way.weights != "resident":
            options |= {"weights": way.weights, "memory_bytes": way.memory_bytes}
        self.embedder = load_ours(folder, **options)
        self.texts = texts
        self.embedder.encode_document(texts[:2], show_progress=False)

    def timings(self, _workload: str, times: int) -> list[Timing]:
        """Embed the texts ``times`` times."""
        return [timed(self._run) for _ in range(times)]

    def _run(self) -> None:
        self.embedder.encode_document(self.texts, show_progress=False)

    def facts(self) -> dict[str, int]:
        """Return the peak memory."""
        return {"peak_mb": peak_mb()}


Contender = Worker | Foreign
Make = Callable[[], Contender]


class Writer:
    """Writes the wide model, in a process that may use torch."""

    def __init__(self, small: Path, folder: Path) -> None:
        self.small, self.folder = small, folder

    def write(self, layers: int) -> None:
        """Write the folder: the small model's tokenizer and settings, random weights."""
        import torch

        from layer import SHAPE

        shutil.copytree(self.small, self.folder, ignore=shutil.ignore_patterns("*.safetensors"))
        config = json.loads((self.small / "config.json").read_text())
        config |= {
            "hidden_size": SHAPE.hidden_size,
            "num_hidden_layers": layers,
            "num_attention_heads": SHAPE.num_heads,
            "num_key_value_heads": SHAPE.num_kv_heads,
            "head_dim": SHAPE.head_dim,
            "intermediate_size": SHAPE.intermediate_size,
            "vocab_size": SHAPE.vocab_size,
            "rope_theta": SHAPE.rope.theta,
            "dtype": "bfloat16",
        }
        (self.folder / "config.json").write_text(json.dumps(config))
        generator = torch.Generator().manual_seed(0)
        places = self._save("table", _table(SHAPE.vocab_size, SHAPE.hidden_size, generator))
        for layer in range(layers):
            places |= self._save(f"layer-{layer}", _layer(layer, generator))
        index = {"metadata": {}, "weight_map": places}
        (self.folder / "model.safetensors.index.json").write_text(json.dumps(index))

    def _save(self, name: str, tensors: "dict[str, Tensor]") -> dict[str, str]:
        from safetensors.torch import save_file

        save_file(tensors, self.folder / f"{name}.safetensors", {"format": "pt"})
        return dict.fromkeys(tensors, f"{name}.safetensors")

    def export(self, output: Path) -> None:
        """Write the folder as a BF16 GGUF."""
        from polyvec.model.files import open_model
        from polyvec.publish.export import export

        export(open_model(self.folder), output, "gguf", "BF16")


def _table(rows: int, hidden: int, generator: "Generator") -> "dict[str, Tensor]":
    import torch

    parts = [_random(rows // 8, hidden, generator) for _ in range(8)]
    norm = torch.ones(hidden, dtype=torch.bfloat16)
    return {"embed_tokens.weight": torch.cat(parts), "norm.weight": norm}


def _layer(layer: int, generator: "Generator") -> "dict[str, Tensor]":
    import torch

    from layer import SHAPE

    hidden, width = SHAPE.hidden_size, SHAPE.intermediate_size
    heads, groups = SHAPE.num_heads * SHAPE.head_dim, SHAPE.num_kv_heads * SHAPE.head_dim
    sizes = {
        "self_attn.q_proj": (heads, hidden),
        "self_attn.k_proj": (groups, hidden),
        "self_attn.v_proj": (groups, hidden),
        "self_attn.o_proj": (hidden, heads),
        "mlp.gate_proj": (width, hidden),
        "mlp.up_proj": (width, hidden),
        "mlp.down_proj": (hidden, width),
    }
    weights = {name: _random(*size, generator) for name, size in sizes.items()}
    gain = torch.ones(hidden, dtype=torch.bfloat16)
    weights |= {name: gain.clone() for name in ("input_layernorm", "post_attention_layernorm")}
    return {f"layers.{layer}.{name}.weight": tensor for name, tensor in weights.items()}


def _random(rows: int, columns: int, generator: "Generator") -> "Tensor":
    import torch

    return torch.randn(rows, columns, generator=generator).mul_(0.02).to(torch.bfloat16)


def measure(
    folder: Path,
    workloads: Workloads,
    layers: int,
    rounds: int,
    threads: int,
    ways: Sequence[str],
    count: int,
) -> dict[str, Any]:
    """Write the model, time the contenders on ``count`` texts, and delete the model again."""
    wide = folder / f"wide-{layers}"
    wide.mkdir()
    try:
        writer = Worker(Writer, folder / "model", wide / "model")
        writer("write", layers)
        texts = (workloads.uniform * -(-count // len(workloads.uniform)))[:count]
        workloads = replace(workloads, uniform=texts)
        makers: dict[str, Make] = {
            name: partial(Worker, Wide, wide / "model", WAYS[name], texts, threads)
            for name in ways
            if name in WAYS
        }
        if LLAMA in ways:
            makers[LLAMA] = partial(_llama, wide, writer, workloads, threads)
        spent, peaks, skipped = _run_all(makers, rounds, together=layers <= TOGETHER)
        spent |= {LLAMA: [s * count / LLAMA_TEXTS for s in spent[LLAMA]]} if LLAMA in spent else {}
        writer.stop()
    finally:
        shutil.rmtree(wide, ignore_errors=True)
    tokens = count * UNIFORM_TOKENS
    return {
        "layers": layers,
        "tokens": tokens,
        "skipped": skipped,
        "contenders": {
            name: _summary(name, spent, tokens, layers) | {"peak_mb": peaks[name]} for name in spent
        },
    }


def _llama(wide: Path, writer: Worker, workloads: Workloads, threads: int) -> Foreign:
    """Export the model, let llama.cpp quantize it, and load it there."""
    engine = replace(ENGINES["llama.cpp Q8_0"], model="model-Q4_K_M.gguf")
    python = os.environ.get(engine.variable, sys.executable)
    check_installed(engine, python)
    exact, output = wide / "model-BF16.gguf", wide / engine.model
    writer("export", exact)
    script = str(Path(__file__).with_name("llama_peer.py"))
    command = [python, script, "quantize", str(exact), str(output), _Q4_K_M]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"llama.cpp could not quantize:\n{done.stderr[-2000:]}")
    exact.unlink()
    foreign = Foreign(engine, wide, threads, workloads.query_prefix)
    foreign.prepare(replace(workloads, uniform=workloads.uniform[:LLAMA_TEXTS]))
    return foreign


Spent = dict[str, list[float]]
"""Seconds of each round, by contender."""


def _run_all(
    makers: dict[str, Make], rounds: int, *, together: bool
) -> tuple[Spent, dict[str, int], dict[str, str]]:
    """Return seconds, peak memory and what was skipped, all loaded together or one at a time."""
    spent, peaks, skipped = Spent(), dict[str, int](), dict[str, str]()
    loaded: dict[str, Contender] = {}
    for name, make in makers.items():
        try:
            loaded[name] = make()
        except UnavailableError as error:
            skipped[name] = str(error)
        if not together:
            spent |= _rounds(loaded, rounds, peaks)
            loaded.clear()
    return spent | _rounds(loaded, rounds, peaks), peaks, skipped


def _rounds(loaded: dict[str, Contender], rounds: int, peaks: dict[str, int]) -> Spent:
    """Time what is loaded, in turn, after a round to warm up; write down its peak and end it."""
    spent: Spent = {name: [] for name in loaded}
    for _ in range(rounds + 1):
        for name, contender in loaded.items():
            (timing,) = contender("timings", "uniform", 1)
            spent[name].append(timing.wall_s)
    spent = {name: seconds[1:] for name, seconds in spent.items()}
    for name, contender in loaded.items():
        peaks[name] = contender("facts")["peak_mb"]
        contender.stop()
    return spent


def _summary(name: str, spent: Spent, tokens: int, layers: int) -> dict[str, Any]:
    seconds = statistics.median(spent[name])
    summary: dict[str, Any] = {
        "seconds_rounds": [round(taken, 3) for taken in spent[name]],
        "tokens_per_s": round(tokens / seconds, 1),
        "tokens_per_s_of_32": round(tokens / seconds * layers / WHOLE, 2),
    }
    for other in (REFERENCES.get(name), LLAMA):
        if other in spent and other != name:
            pairs = zip(spent[other], spent[name], strict=True)
            ratio = statistics.median(theirs / ours for theirs, ours in pairs)
            summary[f"times_{other}"] = round(ratio, 3)
    return summary
