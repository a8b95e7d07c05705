"""How fast polyvec trains on a CPU, beside sentence-transformers' trainer, and how much memory.

    python bench/debian_records.py data/debian
    python bench/train.py data/debian/train.jsonl

Both train the same model (the default backbone, its first layers, bidirectional, all weights) on
the same pairs of mixed length with the same loss (in-batch negatives) and batch size, AdamW and
clipped gradients, each in a process of its own, in turn. The first steps do not count. Tokens are
real ones, without padding. On a machine where others work read the CPU time's column. Needs what
sentence-transformers' trainer needs: pip install accelerate datasets.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

WARM_UP = 2
MAX_TOKENS = 256
CONTENDERS = (
    "sentence-transformers fp32",
    "sentence-transformers bf16",
    "polyvec fp32",
    "polyvec bf16",
)
Figures = dict[str, Any]


class Clock:
    """Wall and CPU time of steps, and the tokens in them."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float, int, int]] = []
        self.tokens = self.computed = 0

    def mark(self) -> None:
        """Note that a step ended."""
        self.marks.append((time.perf_counter(), time.process_time(), self.tokens, self.computed))

    def figures(self) -> Figures:
        """Return tokens a second after the warm-up, and the process's peak memory."""
        first, last = self.marks[WARM_UP - 1], self.marks[-1]
        wall, cpu, tokens, computed = (b - a for a, b in zip(first, last, strict=True))
        return {
            "tokens_per_s": tokens / wall,
            "tokens_per_cpu_s": tokens / cpu,
            "padding": computed / tokens,
            "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        }


def ours(folder: Path, records: Path, precision: str, batch: int, steps: int) -> Figures:
    """Train with polyvec."""
    from rich.console import Console

    from polyvec.train.losses import LossSettings
    from polyvec.train.optimizer import clip_gradients
    from polyvec.train.ranks import join_ranks
    from polyvec.train.recipe import (
        BatchSettings,
        DataSettings,
        ModelSettings,
        OptimizerSettings,
        Recipe,
    )
    from polyvec.train.setup import Teacher, prepare

    def no_teacher(name: str) -> Teacher:
        raise SystemExit(f"no teacher {name} here")

    clock = Clock()
    with tempfile.TemporaryDirectory() as output, join_ranks() as ranks:
        recipe = Recipe(
            output=f"{output}/run",
            data=(DataSettings(str(records)),),
            model=ModelSettings(
                base=str(folder),
                precision="bf16" if precision == "bf16" else "fp32",
                max_query_tokens=MAX_TOKENS,
                max_document_tokens=MAX_TOKENS,
            ),
            loss=LossSettings(temperature=0.05, in_batch="positives", hard_negatives=False),
            batch=BatchSettings(size=batch, num_negatives=0, max_tokens=10**6),
            optimizer=OptimizerSettings(steps=steps + WARM_UP),
        )
        ready = prepare(recipe, ranks, no_teacher, Console(quiet=True), fresh=True)
        for step in range(ready.steps):
            found = ready.stepper.run(ready.items(step)[0], step, 1.0, last=True)
            clip_gradients(ready.network.parameters(), 1.0)
            ready.optimizer.step()
            ready.optimizer.zero_grad(set_to_none=True)
            clock.tokens += found.tokens
            clock.computed += found.tokens
            clock.mark()
        for part in ready.records.values():
            part.close()
    return clock.figures()


def theirs(folder: Path, records: Path, precision: str, batch: int, steps: int) -> Figures:
    """Train with sentence-transformers."""
    import torch
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers import TrainerCallback

    clock = Clock()

    class Counting(MultipleNegativesRankingLoss):
        def forward(self, sentence_features: Any, labels: Any) -> Any:  # noqa: ANN401
            columns = list(sentence_features)
            clock.tokens += sum(int(c["attention_mask"].sum()) for c in columns)
            clock.computed += sum(c["attention_mask"].numel() for c in columns)
            return super().forward(columns, labels)

    class Ticking(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            clock.mark()

    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    model.max_seq_length = MAX_TOKENS
    lines = (json.loads(line) for line in records.open(encoding="utf-8"))
    rows = list(islice(lines, batch * (steps + WARM_UP)))
    prompt = model.prompts.get("query") or ""
    pairs = {
        "anchor": [prompt + row["query"] for row in rows],
        "positive": [row["positives"][0] for row in rows],
    }
    with tempfile.TemporaryDirectory() as output:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=output,
            per_device_train_batch_size=batch,
            max_steps=steps + WARM_UP,
            bf16=precision == "bf16",
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        trainer = SentenceTransformerTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict(pairs),
            loss=Counting(model, scale=20.0),
            callbacks=[Ticking()],
        )
        trainer.train()
    return clock.figures()


TRAINERS: dict[str, Callable[[Path, Path, str, int, int], Figures]] = {
    "polyvec": ours, "sentence-transformers": theirs,
}  # fmt: skip


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("records", type=Path)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        name, precision = options.worker.rsplit(" ", 1)
        train = TRAINERS[name]
        found = train(options.folder, options.records, precision, options.batch, options.steps)
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = _model(Path(scratch) / "model", options.layers)
        records = _sample(options.records, Path(scratch), options.batch * (options.steps + WARM_UP))
        _report(_contest(options, folder, records))


def _model(folder: Path, layers: int) -> Path:
    import torch

    from polyvec.hub import resolve
    from polyvec.model.files import open_model
    from polyvec.train.checkpoint import write_model
    from polyvec.train.network import build_network, cut_layers

    place = resolve("smollm2")
    files = cut_layers(open_model(place.path, place.facts), layers)
    names = [name for name, _ in build_network(files, torch.float32, False).named_parameters()]
    write_model(folder, files, {}, names, ())
    return folder


def _sample(records: Path, scratch: Path, count: int) -> Path:
    path = scratch / "records.jsonl"
    with records.open("rb") as source:
        path.write_bytes(b"".join(islice(source, count)))
    return path


def _contest(options: argparse.Namespace, folder: Path, records: Path) -> dict[str, list[Figures]]:
    found: dict[str, list[Figures]] = {name: [] for name in options.contenders.split(",")}
    for number in range(options.rounds):
        for name, figures in found.items():
            figures.append(_worker(options, name, folder, records))
            print(f"round {number + 1}, {name}: {_line(figures[-1])}", flush=True)
    return found


def _worker(options: argparse.Namespace, name: str, folder: Path, records: Path) -> Figures:
    command = [
        sys.executable, __file__, str(records), "--worker", name, "--folder", str(folder),
        "--batch", str(options.batch), "--steps", str(options.steps),
    ]  # fmt: skip
    env = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def _line(figures: Figures) -> str:
    return (
        f"{figures['tokens_per_s']:,.0f} tokens/s, {figures['tokens_per_cpu_s']:,.0f} per CPU "
        f"second, {figures['peak_gb']:.2f} GB, {figures['padding']:.2f} computed per token"
    )


def _report(found: dict[str, list[Figures]]) -> None:
    """Print medians, and ratios to the first contender of the same precision, round by round."""
    for name, rounds in found.items():
        middle = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
        peer = f"sentence-transformers {name.rsplit(' ', 1)[1]}"
        text = _line(middle)
        if name != peer and peer in found:
            for key in ("tokens_per_s", "tokens_per_cpu_s"):
                pairs = zip(rounds, found[peer], strict=True)
                ratio = statistics.median(a[key] / b[key] for a, b in pairs)
                text += f", {ratio:.2f}x {key}"
        print(f"{name}: {text}")


if __name__ == "__main__":
    main()
