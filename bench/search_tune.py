"""What the index's settings do: kind, partitions asked, vectors compared again.

Run after ``bench/search.py``, whose rows it takes, from the repository's root::

    python bench/search_tune.py                     # a quarter of an hour on two quiet cores
    python bench/search_tune.py --kinds rq --set clustered

Each kind of index is made on a table of vectors alone and asked for 10 and for 100 nearest, as the
search's fusion wants them, with 1, 3, 10 or 30 candidates compared again for each wanted. CPU
milliseconds are told beside wall ones: on a busy machine they say more.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, perf_counter, process_time
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table as Shown

import search_engines as engines
from polyvec.hub import cache_folder
from search import WARM_UP, recall

if TYPE_CHECKING:
    from lancedb.table import Table

REFINES = {10: (1, 3, 10, 30), 100: (1, 2, 3, 10)}
"""Candidates compared again for each wanted, by how many are wanted."""
PROBES = (5, 20)
"""Partitions looked at; LanceDB's own number is 20."""
CONSOLE = Console(width=120, highlight=False)


def main() -> None:
    """Make and ask each kind, show a table."""
    options = _options()
    ending = f"{options.set}-{options.passages}-{options.dimension}.npy"
    wide = np.load(options.folder / f"wide-{ending}", mmap_mode="r")
    asked = np.load(options.folder / f"asked-{ending}")[: WARM_UP + options.questions]
    nearest = np.load(options.folder / f"nearest-{ending}")[WARM_UP:][: options.questions]
    table = _table(options.folder / f"tune-{ending.removesuffix('.npy')}", wide)
    shown = Shown("index", "wanted", "compared", "partitions", title=ending)
    for heading in ("recall", "p50 ms", "p99 ms", "CPU ms"):
        shown.add_column(heading, justify="right")
    for kind in options.kinds:
        begun = monotonic()
        table.create_index("vector", config=KINDS[kind](), replace=True)
        CONSOLE.print(f"{kind}: made in {monotonic() - begun:.0f} s, load {os.getloadavg()[0]:.1f}")
        for wanted, refines in REFINES.items():
            for refine, probes in ((r, p) for r in refines for p in PROBES):
                row = _ask(table, asked, nearest[:, :wanted], refine, probes)
                shown.add_row(kind, str(wanted), str(wanted * refine), str(probes), *row)
    CONSOLE.print(shown)


def _table(folder: Path, wide: np.ndarray) -> "Table":
    """Open the table of vectors, or write it."""
    import lancedb

    database = lancedb.connect(str(folder))
    if "vectors" in database.list_tables().tables:
        return database.open_table("vectors")
    rows = pa.list_(pa.float32(), wide.shape[1])
    schema = pa.schema({"id": pa.int32(), "vector": rows})
    reader = pa.RecordBatchReader.from_batches(schema, _batches(wide, schema))
    return database.create_table("vectors", reader)


def _batches(wide: np.ndarray, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for part in engines.blocks(len(wide)):
        flat = pa.array(np.ascontiguousarray(wide[part]).reshape(-1))
        vectors = pa.FixedSizeListArray.from_arrays(flat, wide.shape[1])
        ids = pa.array(range(part.start, part.stop), pa.int32())
        yield pa.record_batch([ids, vectors], schema=schema)


def _ask(
    table: "Table", asked: np.ndarray, right: np.ndarray, refine: int, probes: int
) -> list[str]:
    found, wall_ms, cpu_ms = [], [], []
    for vector in asked:
        begun, used = perf_counter(), process_time()
        query: Any = table.search(vector, vector_column_name="vector", query_type="vector")
        query = query.distance_type("cosine").select(["id", "_distance"]).limit(right.shape[1])
        ids = query.refine_factor(refine).nprobes(probes).to_arrow()["id"].to_pylist()
        wall_ms.append((perf_counter() - begun) * 1e3)
        cpu_ms.append((process_time() - used) * 1e3)
        found.append(ids)
    median, high = np.quantile(wall_ms[WARM_UP:], [0.5, 0.99])
    return [
        f"{recall(found[WARM_UP:], right):.4f}",
        f"{median:.1f}",
        f"{high:.1f}",
        f"{np.median(cpu_ms[WARM_UP:]):.1f}",
    ]


def _rq() -> Any:  # noqa: ANN401 (LanceDB's)
    from lancedb.index import IvfRq

    return IvfRq(distance_type="cosine")


def _sq() -> Any:  # noqa: ANN401
    from lancedb.index import IvfSq

    return IvfSq(distance_type="cosine")


def _pq() -> Any:  # noqa: ANN401
    from lancedb.index import IvfPq

    return IvfPq(distance_type="cosine")


def _hnsw() -> Any:  # noqa: ANN401
    from lancedb.index import HnswSq

    return HnswSq(distance_type="cosine", num_partitions=1, m=16, ef_construction=100)


KINDS: dict[str, Callable[[], Any]] = {"rq": _rq, "sq": _sq, "pq": _pq, "hnsw": _hnsw}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kinds", default="rq,sq", help=f"of {', '.join(KINDS)} (%(default)s)")
    parser.add_argument("--set", default="real", help="real or clustered (%(default)s)")
    parser.add_argument("--passages", type=int, default=100_000, help="%(default)s")
    parser.add_argument("--dimension", type=int, default=4_096, help="%(default)s")
    parser.add_argument("--questions", type=int, default=150, help="%(default)s")
    parser.add_argument("--folder", type=Path, default=cache_folder() / "bench-search")
    options = parser.parse_args()
    options.kinds = options.kinds.split(",")
    if unknown := set(options.kinds) - set(KINDS):
        parser.error(f"--kinds takes {', '.join(KINDS)}; not {', '.join(sorted(unknown))}")
    return options


if __name__ == "__main__":
    main()
