"""How fast polyvec embeds on a CPU, beside other engines on the same model, texts and machine.

Run from the repository's root, with the development dependencies installed::

    python bench/cpu.py                         # everything but `linear` and `wide`
    python bench/cpu.py --quick                 # fewer texts and rounds: does it still run?
    python bench/cpu.py --only layer,startup --rounds 9
    python bench/cpu.py --only uniform --contenders "polyvec int8,openvino int8"
    python bench/cpu.py --only linear --sizes 1000,10000,100000
    python bench/cpu.py --only wide --layers 4  # an 8B model's layers, in a temporary folder

Other engines must not change the torch that polyvec runs on, so each may have an environment of its
own, named by a variable: ONNXRUNTIME_PYTHON, OPENVINO_PYTHON, LLAMA_PYTHON. One that is not
installed is skipped, and how to install it is said. llama.cpp has to be built with what the
processor can do.

What it measures:

* ``mixed``: 400 real texts in many languages, 8 to 300 tokens (Django's translations, fetched
  with pip). ``uniform``: 16 texts of 128 tokens. ``query``: one 16-token query, its median
  latency. Each through the library's public call, tokenization included. In ``mixed`` much of the
  ratio is padding: sentence-transformers fills up batches of 32 texts sorted by characters, and
  across scripts characters say little about tokens. How many tokens it so computes is printed.
  ONNX Runtime and OpenVINO are given batches sorted by tokens. ``uniform`` needs no padding and
  compares the computing alone.
* ``ceiling``: what this machine's products reach by themselves at this model's widths, in each
  precision, the fastest of torch's ways; each contender's share of it is in the speed table.
* ``layer``: one layer of the 8B model's shape in bf16 against its four products alone.
* ``startup``: wall time of fresh processes.
* ``linear``: tokens a second for 1,000, 10,000, ... short texts from a file, and the peak memory.
* ``wide``: layers of Llama-3.1-8B's shape with random weights, kept in memory, packed in 4 bits, or
  streamed from the disk, and llama.cpp's Q4_K_M of the same; figures are for 32 layers.

How: every contender has a process of its own, and rounds go contender by contender in turn, so that
a busy machine slows all of them alike. ``ratio`` is the median over rounds of
(sentence-transformers' seconds / the contender's seconds) in that round: 2 is twice as fast as
sentence-transformers in fp32 at its defaults. Where other programs keep the cores busy, threads
that wait for each other distort that; then run ``--threads 1`` and read the CPU time column, which
others' work changes least. Peak memory is each process's own. Before any timing, fp32 vectors must
agree with sentence-transformers' (cosine > 0.99999), so both embed the same tokens by the same
model.

The last line of standard output is one JSON document with all figures.
"""

import argparse
import json
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import linear
import startup
import wide
from compare import WORKLOADS, add_shares, compare
from contenders import OURS, Worker
from foreign import ENGINES
from report import show
from texts import Workloads

PARTS = (*WORKLOADS, "ceiling", "layer", "startup", "linear", "wide")
OPT_IN = ("linear", "wide")
LAYER_TOKENS = (2048, 4096)
CONTENDERS = (*OURS, *ENGINES)
WAYS = (*wide.WAYS, wide.LLAMA)


class Preparation:
    """Writes the models and chooses the texts, in a process that may use torch."""

    def __init__(self, threads: int | None) -> None:
        import torch

        self.threads = threads or torch.get_num_threads()

    def machine(self) -> dict[str, object]:
        """Describe what the figures hold for."""
        from polyvec.engine.cpu import cpu_name, has_fast_bf16

        packages = ("polyvec", "torch", "sentence-transformers", "transformers")
        return {
            "cpu": cpu_name(),
            "fast_bf16": has_fast_bf16(),
            "system": platform.platform(),
            "python": platform.python_version(),
            "threads": self.threads,
            **{package: version(package) for package in packages},
        }

    def workloads(self, folder: Path, quick: bool, gguf: bool) -> Workloads:
        """Write the default model to ``folder`` unless it is there; choose the texts."""
        from default_model import write_default
        from texts import prepare

        return prepare(write_default(folder, gguf=gguf), folder, quick)


def main() -> None:
    """Measure what the flags ask for, show a table, print one line of JSON."""
    options = _options()
    preparation = Worker(Preparation, options.threads)
    machine: dict[str, Any] = preparation("machine")
    figures: dict[str, Any] = {"machine": machine, "rounds": options.rounds}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        figures |= _with_model(options, folder, preparation, machine["threads"])
    preparation.stop()
    if "layer" in options.only:
        figures["layer"] = _layer(machine["threads"], options.rounds)
    if "startup" in options.only:
        figures["startup"] = startup.measure(options.rounds)
    show(figures)
    print(json.dumps(figures))


def _with_model(
    options: argparse.Namespace, folder: Path, preparation: Worker, threads: int
) -> dict[str, Any]:
    """Measure what needs the default model."""
    figures: dict[str, Any] = {}
    if not {*WORKLOADS, "ceiling", *OPT_IN} & set(options.only):
        return figures
    gguf = any(name.startswith("llama.cpp") for name in options.contenders)
    texts: Workloads = preparation("workloads", folder, options.quick, gguf)
    if "ceiling" in options.only:
        worker = Worker(make_ceiling, folder / "model", threads)
        figures["ceiling"] = worker("measure", options.rounds)
        operations: int = worker("operations_per_token")
        worker.stop()
    if parts := [part for part in options.only if part in WORKLOADS]:
        figures |= compare(options.contenders, folder, texts, parts, options.rounds, threads)
        if "ceiling" in figures:
            add_shares(figures, operations)
    if "linear" in options.only:
        figures["linear"] = linear.measure(folder / "model", texts.mixed, options.sizes, threads)
    if "wide" in options.only:
        figures["wide"] = wide.measure(
            folder, texts, options.layers, options.rounds, threads, options.ways, options.texts
        )
    return figures


def make_ceiling(model: Path, threads: int) -> object:
    """Make the ceiling's worker; imported there, since this process stays without torch."""
    from ceiling import Ceiling
    from polyvec.model.files import open_model
    from polyvec.spec import LlamaArchitecture

    shape = open_model(model).architecture
    assert isinstance(shape, LlamaArchitecture)
    return Ceiling(shape, threads)


def make_layer_bench(threads: int) -> object:
    """Make the layer's worker, likewise."""
    from layer import LayerBench

    return LayerBench(threads)


def _layer(threads: int, rounds: int) -> list[dict[str, Any]]:
    worker = Worker(make_layer_bench, threads)
    figures = [worker("measure", tokens, rounds) for tokens in LAYER_TOKENS]
    worker.stop()
    return figures


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, help="of each measurement (5; with --quick 2)")
    parser.add_argument("--quick", action="store_true", help="a fifth of the texts, fewer rounds")
    parser.add_argument("--threads", type=int, help="for every contender (what torch picks)")
    shown = ",".join(part for part in PARTS if part not in OPT_IN)
    parser.add_argument("--only", default=shown, help=f"of {','.join(PARTS)} (%(default)s)")
    parser.add_argument("--contenders", default=",".join(CONTENDERS), help="of %(default)s")
    parser.add_argument("--sizes", default="1000,10000", help="of `linear`, in texts (%(default)s)")
    parser.add_argument("--layers", type=int, default=4, help="of `wide` (%(default)s)")
    parser.add_argument("--texts", type=int, default=wide.TEXTS, help="of `wide` (%(default)s)")
    parser.add_argument("--ways", default=",".join(WAYS), help="of `wide`: of %(default)s")
    parser.add_argument("--folder", type=Path, help="keeps models and wheels for next time")
    options = parser.parse_args()
    for name, known in (("only", PARTS), ("contenders", CONTENDERS), ("ways", WAYS)):
        setattr(options, name, getattr(options, name).split(","))
        if unknown := set(getattr(options, name)) - set(known):
            parser.error(f"--{name} takes {', '.join(known)}; not {', '.join(sorted(unknown))}")
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.sizes = [int(size) for size in options.sizes.split(",")]
    return options


if __name__ == "__main__":
    main()
