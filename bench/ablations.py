"""The paper's tables on a small scale: losses, negatives, and merged against the best single run.

    python bench/debian_records.py data/debian
    polyvec mine data/debian/train.jsonl -o data/debian/mined.jsonl ...
    python bench/ablations.py data/debian runs/ablations --steps 200 --only losses,merged

Every run is a recipe of its own in the output folder, all on the same records, steps and seed but
for what the row names. Stopped, the same command goes on: a finished run is read, an unfinished one
resumed. ``random`` has another record's positive instead of the mined negative; ``merged`` averages
runs of three seeds and learning rates (``polyvec merge``).
"""

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from polyvec.records.read import read_records
from polyvec.records.record import Record
from polyvec.records.write import write_records

RECIPE = """
output = "{output}"
seed = {seed}
[model]
base = "default"
num_layers = {layers}
max_query_tokens = 48
max_document_tokens = 48
[[data]]
path = "{data}"
[loss]
{loss}
[batch]
size = {batch}
num_negatives = {negatives}
[optimizer]
lr = {lr}
warmup_steps = {warmup}
steps = {steps}
[evaluation]
paths = ["{held_out}"]
[checkpoint]
every_steps = 20
keep = 1
"""

POLYVEC = str(Path(sys.executable).with_name("polyvec"))
HN_ONLY = "temperature = 0.05"
GEMINI = f'{HN_ONLY}\nin_batch = "positives"'
GECKO = f"{GEMINI}\nsame_tower_queries = true"
QWEN3 = (
    f'{HN_ONLY}\nin_batch = "all"\nsame_tower_queries = true\nsame_tower_documents = true\n'
    "false_negative_margin = 0.1"
)


@dataclass(frozen=True)
class Variant:
    """A row of a table."""

    table: str
    name: str
    loss: str = HN_ONLY
    data: str = "mined.jsonl"
    negatives: int = 1
    lr: float = 2e-4
    seed: int = 0


VARIANTS = [
    Variant("losses", "hard negatives only"),
    Variant("losses", "Gemini", GEMINI),
    Variant("losses", "Gecko", GECKO),
    Variant("losses", "Qwen3-Embedding", QWEN3),
    Variant("negatives", "mined"),
    Variant("negatives", "random", data="random.jsonl"),
    Variant("negatives", "mined, in-batch too", GEMINI),
    Variant("negatives", "random, in-batch too", GEMINI, "random.jsonl"),
    Variant("merged", "seed 0", GEMINI),
    Variant("merged", "seed 1, rate 3e-4", GEMINI, lr=3e-4, seed=1),
    Variant("merged", "seed 2, rate 1.5e-4", GEMINI, lr=1.5e-4, seed=2),
]


def main() -> None:
    """Run what is not there yet, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--only", default="losses,negatives,merged")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    _random_negatives(options.data)
    for table in options.only.split(","):
        rows = [variant for variant in VARIANTS if variant.table == table]
        found = {row.name: _score(_run(row, options)) for row in rows}
        if table == "merged":
            found["merged"] = _merged([_folder(row, options) for row in rows], options)
        print(f"\n{table}: mean ndcg@10 on held-out records")
        for name, score in found.items():
            print(f"  {name:24} {score:.4f}", flush=True)


def _random_negatives(folder: Path) -> None:
    """Write the records of ``mined.jsonl`` with another record's positive as negative."""
    mined, target = folder / "mined.jsonl", folder / "random.jsonl"
    if not mined.is_file():
        raise SystemExit(f"{mined} is not there: mine it (polyvec mine; see this file's head).")
    if not target.is_file():
        write_records(target, _with_random(list(read_records(mined))))


def _with_random(records: list[Record]) -> Iterator[Record]:
    draw = random.Random(0)
    for record in records:
        other = draw.choice(records)
        while set(other.positives) & set(record.positives):
            other = draw.choice(records)
        yield replace(record, negatives=other.positives[:1], negative_ids=())


def _folder(variant: Variant, options: argparse.Namespace) -> Path:
    words = (variant.data.removesuffix(".jsonl"), variant.lr, variant.seed, variant.loss)
    key = "-".join(str(word) for word in words)
    name = "".join(c if c.isalnum() or c == "-" else "_" for c in key)
    folder: Path = options.output / f"{name}-{options.steps}"
    return folder


def _run(variant: Variant, options: argparse.Namespace) -> Path:
    """Train a row, unless it is done; rows of two tables that are the same are one run."""
    folder = _folder(variant, options).absolute()
    recipe = folder.with_suffix(".toml")
    recipe.write_text(
        RECIPE.format(
            output=folder,
            seed=variant.seed,
            layers=options.layers,
            data=(options.data / variant.data).absolute(),
            loss=variant.loss,
            batch=options.batch,
            negatives=variant.negatives,
            lr=variant.lr,
            warmup=max(1, options.steps // 20),
            steps=options.steps,
            held_out=(options.data / "held_out.jsonl").absolute(),
        )
    )
    if not (folder / "result.json").is_file():
        subprocess.run([POLYVEC, "train", recipe], check=True)
    return folder


def _score(folder: Path) -> float:
    result = json.loads((folder / "result.json").read_text())
    return float(result["evaluation"]["last"]["mean"])


def _merged(folders: list[Path], options: argparse.Namespace) -> float:
    """Average the runs' models, and score the average as the runs were scored."""
    merged = options.output / f"merged-{options.steps}"
    if not merged.is_dir():
        models = [str(folder / "model") for folder in folders]
        subprocess.run([POLYVEC, "merge", *models, "-o", str(merged)], check=True)
    held_out = options.data / "held_out.jsonl"
    return _evaluate(merged, held_out)


def _evaluate(model: Path, held_out: Path) -> float:
    import torch

    from polyvec.model.files import open_model
    from polyvec.train.batches import Reader
    from polyvec.train.evaluation import evaluate, read_held_out
    from polyvec.train.network import build_network, load_weights
    from polyvec.train.ranks import Ranks
    from polyvec.train.recipe import EvaluationSettings

    files = open_model(model)
    network = build_network(files, torch.float32, False)
    load_weights(network, torch.device("cpu"), {})
    spec = replace(files.spec, max_tokens=48)
    reader = Reader(files.tokenizer, {"query": spec, "document": spec})
    settings = EvaluationSettings(paths=(str(held_out),))
    ranks = Ranks(0, 1, torch.device("cpu"))
    found = evaluate(network, reader, read_held_out(settings), settings.metric, 8192, ranks)
    return found["mean"]


if __name__ == "__main__":
    main()
