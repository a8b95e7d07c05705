"""Small training runs, built in code."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from polyvec.records.record import Record
from polyvec.records.write import write_records
from polyvec.train.estimate import Estimate
from polyvec.train.loop import Trained, train
from polyvec.train.recipe import read_recipe
from polyvec.train.setup import Teacher
from tests import tiny

WORDS = (
    "the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "быстрая", "лиса", "敏捷的",
    "zorro", "marrón", "perro", "texts",
)  # fmt: skip


def records(count: int = 24, negatives: int = 2) -> list[Record]:
    """Return records of several lengths; each query's positive repeats some of its words."""
    draw = np.random.default_rng(0)
    found = []
    for number in range(count):
        words = [str(w) for w in draw.choice(WORDS, 3 + number % 5)]
        wrong = [" ".join(draw.choice(WORDS, 2 + k)) + f" {number}" for k in range(negatives)]
        query, positive = " ".join(words), " ".join([*words[1:], f"number {number}"])
        found.append(Record(query, (positive,), tuple(wrong), source="made"))
    return found


def write_recipe(folder: Path, rows: Sequence[Record] | None = None, extra: str = "") -> Path:
    """Write a small model, records and a recipe; return the recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "base").exists():
        tiny.write_model(folder / "base", tiny.shape(is_causal=False))
    write_records(folder / "train.jsonl", records() if rows is None else rows)
    path = folder / "recipe.toml"
    path.write_text(
        f"""
output = "{folder / "run"}"
[model]
base = "{folder / "base"}"
precision = "fp32"
[[data]]
path = "train.jsonl"
[batch]
size = 8
num_negatives = 2
[optimizer]
lr = 1e-3
steps = 6
warmup_steps = 2
[checkpoint]
every_steps = 2
[log]
plot = false
{extra}
"""
    )
    return path


class FakeTeacher:
    """Embeds a text as counts of its characters."""

    dimension, fingerprint = 16, "counts"

    def encode_query(self, texts: Sequence[str], instruction: str | None = None) -> Any:
        return self.encode_document(texts)

    def encode_document(self, texts: Sequence[str]) -> Any:
        rows = [[sum(ord(c) % 16 == k for c in text) + 0.1 for k in range(16)] for text in texts]
        return np.array(rows, np.float32)


def run(path: Path, teacher: Teacher | None = None, /, **changes: str) -> Trained:
    """Train as a recipe says; ``batch__size="4"`` changes batch.size."""
    stated = {name.replace("__", "."): value for name, value in changes.items()}
    teacher = teacher or FakeTeacher()
    result = train(read_recipe(path, stated), lambda _: teacher, Console(quiet=True))
    assert not isinstance(result, Estimate)
    return result
