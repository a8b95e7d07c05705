"""The figures as tables for people."""

from typing import Any

from rich.console import Console
from rich.table import Table

from contenders import BASELINE

TARGETS = {
    ("mixed", "polyvec fp32"): 1.4, ("uniform", "polyvec fp32"): 1.15,
    ("mixed", "polyvec bf16"): 2.4, ("uniform", "polyvec bf16"): 2.1,
    ("mixed", "polyvec int8"): 3.3, ("uniform", "polyvec int8"): 2.8,
}  # fmt: skip
"""Least ratios to sentence-transformers fp32."""
LEAST_AGAINST = {"llama.cpp Q8_0": 3.0, "onnxruntime int8": 1.0, "openvino int8": 1.0}
"""Least ratios of polyvec int8 to the other engines, on both workloads."""
LEAST_INT8_SHARE = 0.60
"""Of the int8 products' ceiling, on uniform texts."""
LEAST_SHARE = 0.90
MOST_SECONDS = {"import polyvec": 0.3, "load + first query": 3.0}
LEAST_OF_REFERENCE = {"packed": 0.9, "streamed bf16": 0.95, "streamed int8": 0.95}
"""Least speed of a source of layers, as a share of resident layers of its precision."""
MOST_MB = {"packed": 7_000, "streamed bf16": 2_000, "streamed int8": 2_000}
MOST_SPREAD = 0.10
"""Of tokens a second over the numbers of texts; also what peak memory may grow by."""


def show(figures: dict[str, Any]) -> None:
    """Print what was measured; a figure that misses its target says so."""
    console = Console(width=118, highlight=False)
    console.print(", ".join(f"{name} {value}" for name, value in figures["machine"].items()))
    for name, reason in figures.get("skipped", {}).items():
        console.print(f"{name} is skipped: {reason}", markup=False)
    if "ceiling" in figures:
        console.print(_ceilings(figures["ceiling"]))
    if "workloads" in figures:
        console.print(_texts(figures["texts"]), _timings(figures), _against(figures))
        console.print(_models(figures))
    if "layer" in figures:
        console.print(_layer(figures["layer"]))
    if "startup" in figures:
        console.print(_startup(figures["startup"]))
    if "linear" in figures:
        console.print(_linear(figures["linear"]))
    if "wide" in figures:
        for name, reason in figures["wide"]["skipped"].items():
            console.print(f"wide: {name} is skipped: {reason}", markup=False)
        console.print(_wide(figures["wide"]))


def _ceilings(ceilings: dict[str, Any]) -> Table:
    table = Table("precision", title="What products alone reach at this model's widths")
    table.add_column("GFLOP/s", justify="right")
    table.add_column("a layer's products on 2,048 tokens, and the fastest way")
    for precision, ceiling in ceilings.items():
        ways = "\n".join(f"{name} {way}" for name, way in ceiling["products"].items())
        table.add_row(precision, f"{ceiling['gflops']:,}", ways)
    return table


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
    table = Table("workload", "contender", title=f"Speed (ratio: to {BASELINE})")
    for heading in ("median", "ratio", "least to most", "by CPU time", "share of ceiling"):
        table.add_column(heading, justify="right")
    for part, contenders in figures["workloads"].items():
        for name, timing in contenders.items():
            least, most = min(timing["ratio_rounds"]), max(timing["ratio_rounds"])
            good = timing["ratio"] >= TARGETS.get((part, name), 0)
            cells = [_time(timing["median_s"]), _judged(f"{timing['ratio']:.2f}", good)]
            cells += [f"{least:.2f} to {most:.2f}", f"{timing['cpu_ratio']:.2f}"]
            table.add_row(part, name, *cells, _share(timing, part, name))
        table.add_section()
    return table


def _share(timing: dict[str, Any], part: str, name: str) -> str:
    if "share" not in timing:
        return ""
    judged = (part, name) == ("uniform", "polyvec int8")
    return _judged(f"{timing['share']:.2f}", not judged or timing["share"] >= LEAST_INT8_SHARE)


def _against(figures: dict[str, Any]) -> Table:
    """How many times as fast polyvec is as each other engine."""
    names = next(iter(figures["workloads"].values())).keys()
    others = [name for name in names if not name.startswith("polyvec")]
    table = Table("workload", "contender", title="Times as fast as")
    for other in others:
        table.add_column(other, justify="right")
    for part, contenders in figures["workloads"].items():
        for name in (name for name in contenders if name not in others):
            ratios = {other: contenders[name]["against"][other] for other in others}
            judged = name == "polyvec int8" and part != "query"
            bars = LEAST_AGAINST if judged else {}
            cells = [_judged(f"{r:.2f}", r >= bars.get(other, 0)) for other, r in ratios.items()]
            table.add_row(part, name, *cells)
    return table


def _models(figures: dict[str, Any]) -> Table:
    table = Table("contender", title=f"Memory, and vectors beside {BASELINE}")
    for heading in ("loaded in", "peak memory", "cosine mean", "least", "neighbours kept"):
        table.add_column(heading, justify="right")
    for name, memory in figures["memory"].items():
        cosine = figures["cosine"][name]
        cells = [f"{memory['load_s']:.1f} s", f"{memory['peak_mb']:,} MB"]
        cells += [f"{cosine['mean']:.5f}", f"{cosine['lowest']:.5f}", f"{cosine['kept']:.0%}"]
        table.add_row(name, *cells)
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


def _linear(rows: list[dict[str, Any]]) -> Table:
    table = Table("texts", "tokens", title="From a file to a file of vectors")
    for heading in ("tokens/s", "of the first", "peak memory"):
        table.add_column(heading, justify="right")
    first, least = rows[0]["tokens_per_s"], rows[0]["peak_mb"]
    for row in rows:
        share, grown = row["tokens_per_s"] / first, row["peak_mb"] / least - 1
        cells = [f"{row['texts']:,}", f"{row['tokens']:,}", f"{row['tokens_per_s']:,.0f}"]
        cells.append(_judged(f"{share:.2f}", abs(share - 1) <= MOST_SPREAD))
        table.add_row(*cells, _judged(f"{row['peak_mb']:,} MB", grown <= MOST_SPREAD))
    return table


def _wide(figures: dict[str, Any]) -> Table:
    table = Table(
        "contender", title=f"8B shape, {figures['layers']} layers, {figures['tokens']:,} tokens"
    )
    headings = ("tokens/s at 32 layers", "of resident", "of llama.cpp Q4_K_M", "peak memory")
    for heading in headings:
        table.add_column(heading, justify="right")
    for name, row in figures["contenders"].items():
        others = {key: value for key, value in row.items() if key.startswith("times_")}
        llama = others.pop("times_llama.cpp Q4_K_M", None)
        resident = next(iter(others.values()), None)
        table.add_row(
            name,
            f"{row['tokens_per_s_of_32']:.1f}",
            _ratio(resident, LEAST_OF_REFERENCE.get(name, 0)),
            _ratio(llama, 1 if name in LEAST_OF_REFERENCE else 0),
            _judged(f"{row['peak_mb']:,} MB", row["peak_mb"] <= MOST_MB.get(name, 10**9)),
        )
    return table


def _ratio(ratio: float | None, least: float) -> str:
    return "" if ratio is None else _judged(f"{ratio:.2f}", ratio >= least)


def _judged(text: str, good: bool) -> str:
    return text if good else f"[red]{text} (short)[/red]"
