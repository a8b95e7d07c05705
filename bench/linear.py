"""Does cost grow linearly: tokens a second and peak memory as the number of texts grows.

Short texts: Django's translations of 12 to 36 characters, drawn with replacement and numbered so
that no two are alike, embedded as ``polyvec embed`` does it: from a JSONL file to a file of
vectors, in chunks that an interrupted run would go on from. Each size has a fresh process, for its
own peak memory.
"""

import json
import random
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contenders import Worker, load_ours, peak_mb

REPEATS = 5
MIN_CHARACTERS, MAX_CHARACTERS = 12, 36


def measure(
    model: Path, sources: Sequence[str], sizes: Sequence[int], threads: int
) -> list[dict[str, Any]]:
    """Return texts, tokens, tokens a second and peak memory for each size.

    A small size runs up to five times, in turn with the others; its medians count.
    """
    runs: dict[int, list[dict[str, Any]]] = {size: [] for size in sizes}
    for turn in range(REPEATS):
        for size in sizes:
            if turn == 0 or size * (turn + 1) <= max(sizes):
                runs[size].append(_run(model, sources, size, threads))
                # At once: a whole measurement takes 20 minutes, and may be cut short.
                print(json.dumps(runs[size][-1]), file=sys.stderr, flush=True)
    return [_middle(found) for found in runs.values()]


def _middle(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of the runs' speeds and of their peaks, and every speed."""
    speeds, peaks = ([run[key] for run in runs] for key in ("tokens_per_s", "peak_mb"))
    middle = {"tokens_per_s": statistics.median(speeds), "peak_mb": round(statistics.median(peaks))}
    return runs[0] | middle | {"tokens_per_s_rounds": speeds}


def _run(model: Path, sources: Sequence[str], size: int, threads: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        _write_rows(rows, sources, size)
        worker = Worker(Bulk, model, threads)
        figures: dict[str, Any] = worker("embed", rows, Path(folder) / "vectors.npy")
        worker.stop()
    return figures


def _write_rows(path: Path, sources: Sequence[str], size: int) -> None:
    short = [text for text in sources if MIN_CHARACTERS <= len(text) <= MAX_CHARACTERS]
    draw = random.Random(0)
    with path.open("w") as file:
        for number in range(size):
            row = {"text": f"{draw.choice(short)} {number}"}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


class Bulk:
    """A loaded model that embeds files, in a process of its own."""

    def __init__(self, model: Path, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.embedder = load_ours(model, precision="auto")
        self.embedder.encode_document(["warm up"], show_progress=False)

    def embed(self, rows: Path, output: Path) -> dict[str, Any]:
        """Embed a JSONL file into a file of vectors."""
        from polyvec.engine.bulk import BulkSettings, embed_rows
        from polyvec.engine.rows import Columns, read_rows

        loaded = peak_mb()
        given = read_rows([rows], Columns("text", None), None)
        report = embed_rows(self.embedder, given, output, BulkSettings())
        return {
            "texts": report.rows,
            "tokens": report.tokens,
            "tokens_per_s": round(report.tokens_per_s, 1),
            "loaded_mb": loaded,
            "peak_mb": peak_mb(),
            "precision": self.embedder.precision,
        }
