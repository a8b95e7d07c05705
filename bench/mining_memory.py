"""The memory of mining a large corpus, beside the model: peak resident of a process of its own.

    python bench/mining_memory.py                        # a million documents: 1 GB of disk
    python bench/mining_memory.py --documents 100000

Vectors are random, of 384 numbers, so that no model is counted; all else is `polyvec mine`:
vectors in files of 1,024, exact search in blocks, margins, negatives written.
"""

import argparse
import json
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from contenders import peak_mb
from polyvec.data.mining.corpus import Corpus, Document
from polyvec.data.mining.run import mine
from polyvec.data.mining.settings import MineSettings
from polyvec.data.mining.vectors import VectorStore
from polyvec.engine.vectors import Vectors
from polyvec.records.record import Record

DIMENSION = 384


@dataclass
class RandomTeacher:
    """Vectors that depend on the texts, and mean nothing."""

    name: str = "random"
    cut: int = 0
    dimension: int = DIMENSION
    fingerprint: str = "random"
    takes_instructions: bool = False

    def encode_query(self, texts: Sequence[str], instruction: str | None = None) -> Vectors:
        """Return vectors ``[texts, 384]``."""
        return self.encode_document(texts)

    def encode_document(self, texts: Sequence[str]) -> Vectors:
        """Return vectors ``[texts, 384]``."""
        draw = np.random.default_rng(zlib.crc32("".join(texts).encode()))
        return draw.standard_normal((len(texts), DIMENSION), np.float32)


def main() -> None:
    """Mine negatives for queries from a corpus, and print peaks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=2_000)
    stated = parser.parse_args()

    def read() -> Iterator[Document]:
        return (Document(f"document {n}", str(n)) for n in range(stated.documents))

    records = [Record(f"query {n}", (f"document {n}",)) for n in range(stated.queries)]
    before = peak_mb()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store, output = VectorStore(folder / "vectors"), folder / "mined.jsonl"
        mine(records, Corpus(read, "made up"), [RandomTeacher], output, MineSettings(), store)
        size = sum(path.stat().st_size for path in (folder / "vectors").rglob("*.*"))
    facts = {"documents": stated.documents, "queries": stated.queries}
    facts |= {"vectors_mb": size >> 20, "peak_mb_before": before, "peak_mb": peak_mb()}
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
