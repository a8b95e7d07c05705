"""The figures as tables for people."""

from typing import Any

from rich.console import Console
from rich.table import Table

TARGETS = {
    ("mixed", "polyvec fp32"): 1.4, ("mixed", "polyvec bf16"): 2.4,
    ("uniform", "polyvec fp32"): 1.15, ("uniform", "polyvec bf16"): 2.05,
}  # fmt: skip
"""Least ratios to sentence-transformers fp32."""
LEAST_SHARE = 0.90
MOST_SECONDS = {"import polyvec": 0.3, "load + first query": 3.0}


def show(figures: dict[str, Any]) -> None:
    """Print what was measured; a figure that misses target says so."""
    console = Console(width=110, highlight=False)
    console.print(", ".join(f"{name} {value}" for name, value in figures["machine"].items()))
    if "workloads" in figures:
        console.print(_texts(figures["texts"]), _timings(figures), _models(figures))
    if "layer" in figures:
        console.print(_layer(figures["layer"]))
    if "startup" in figures:
        console.print(_startup(figures["startup"]))


def _texts(texts: dict[str, Any]) -> str:
    return (
        f"mixed: {texts['mixed']} texts, {texts['languages']} languages, {texts['tokens']:,} tokens"
        f" (mean {texts['mean_tokens']}, {texts['min_tokens']} to {texts['max_tokens']}). uniform: "
        f"16 texts of 128 tokens. query: 16 tokens, {texts['query_tokens_with_instruction']} with "
        "its instruction. Padded as sentence-transformers does, mixed is "
        f"{texts['padded_tokens']:,} tokens; sorted by tokens it would be "
        f"{texts['padded_tokens_at_best']:,}."
    )


def _timings(figures: dict[str, Any]) -> Table:
    table = Table("workload", "peer", title="Speed (ratio: to sentence-transformers fp32)")
    for heading in ("median", "ratio", "least to most", "by CPU time"):
        table.add_column(heading, justify="right")
    for part, peers in figures["workloads"].items():
        for name, timing in peers.items():
            least, most = min(timing["ratio_rounds"]), max(timing["ratio_rounds"])
            good = timing["ratio"] >= TARGETS.get((part, name), 0)
            cells = [_time(timing["median_s"]), _judged(f"{timing['ratio']:.2f}", good)]
            cells += [f"{least:.2f} to {most:.2f}", f"{timing['cpu_ratio']:.2f}"]
            table.add_row(part, name, *cells)
        table.add_section()
    return table


def _models(figures: dict[str, Any]) -> Table:
    table = Table("peer", title="Memory, and vectors beside sentence-transformers fp32")
    for heading in ("loaded in", "peak memory", "cosine mean", "least"):
        table.add_column(heading, justify="right")
    for name, memory in figures["memory"].items():
        cosine = figures["cosine"][name]
        cells = [f"{memory['load_s']:.1f} s", f"{memory['peak_mb']:,} MB"]
        table.add_row(name, *cells, f"{cosine['mean']:.5f}", f"{cosine['min']:.5f}")
    return table


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def _layer(rows: list[dict[str, Any]]) -> Table:
    table = Table("tokens", "layer", "products alone", "share", "by CPU time", "ceiling")
    table.title = "One layer of 8B shape, bf16"
    for row in rows:
        table.add_row(
            f"{row['tokens']:,}",
            f"{row['block_ms']:.0f} ms",
            f"{row['ceiling_ms']:.0f} ms",
            _judged(f"{row['share']:.3f}", row["share"] >= LEAST_SHARE),
            f"{row['share_cpu']:.3f}",
            f"{row['ceiling_gflops']:,} GFLOP/s",
        )
    return table


def _startup(seconds: dict[str, float]) -> Table:
    table = Table("fresh process", "wall time", title="Start-up")
    for name, spent in seconds.items():
        table.add_row(name, _judged(f"{spent:.2f} s", spent < MOST_SECONDS.get(name, float("inf"))))
    return table


def _judged(text: str, good: bool) -> str:
    return text if good else f"[red]{text} (short)[/red]"
