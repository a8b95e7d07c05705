"""What ``polyvec evaluate`` prints for people."""

from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from polyvec.cli.output import results_console

if TYPE_CHECKING:
    from polyvec.evaluate.results import ModelResult

_SHOWN_FAILURES = 3
_SIGNIFICANT_P = 0.05

Comparison = dict[str, dict[str, dict[str, Any]]]


def print_results(results: list["ModelResult"], comparison: Comparison) -> None:
    """Print scores, differences to the first model, languages, dimensions and failures."""
    console = results_console()
    counts = results[0].counts
    console.print(f"{counts['queries']:,} queries, {counts['documents']:,} documents\n")
    console.print(_score_table(results))
    if len(results[0].metrics) > 1:
        console.print(_other_scores(results))
    if len(results) > 1:
        console.print(_difference_table(results, comparison))
    if results[0].languages:
        console.print(_language_table(results))
    if any(result.dimensions for result in results):
        console.print(_dimension_table(results))
    _print_failures(results[0])


def _score_table(results: list["ModelResult"]) -> Table:
    first = results[0].metrics[0]
    table = _table("model", first, "95% interval")
    for result in results:
        main = result.scores[first]
        interval = f"{main['low']:.3f} to {main['high']:.3f}"
        table.add_row(Text(result.model), f"{main['mean']:.3f}", interval)
    return table


def _other_scores(results: list["ModelResult"]) -> Table:
    rest = results[0].metrics[1:]
    table = _table("\nmodel", *(f"\n{name}" for name in rest))
    for result in results:
        cells = [f"{result.scores[name]['mean']:.3f}" for name in rest]
        table.add_row(Text(result.model), *cells)
    return table


def _difference_table(results: list["ModelResult"], comparison: Comparison) -> Table:
    metric = results[0].metrics[0]
    first = escape(f"\n{metric}, against {results[0].model}")
    table = _table(first, "\ndifference", "\n95% interval", "\np (Holm)", "\n")
    for model, row in comparison[metric].items():
        sure = row["p_holm"] < _SIGNIFICANT_P
        word = ("better" if row["difference"] > 0 else "worse") if sure else "may be chance"
        interval = f"{row['low']:+.3f} to {row['high']:+.3f}"
        cells = (f"{row['difference']:+.3f}", interval, f"{row['p_holm']:.4f}", word)
        table.add_row(Text(model), *cells)
    return table


def _table(first: str, *others: str) -> Table:
    """Return a table whose first column gives way where the terminal is narrow, not its numbers."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, no_wrap=not name.startswith("\n "), overflow="fold")
    return table


def _language_table(results: list["ModelResult"]) -> Table:
    metric = results[0].metrics[0]
    names = [escape(f"\n {result.model}") for result in results]
    table = _table(f"\n{metric} by language", "\nqueries", *names)
    for language, first in results[0].languages.items():
        cells = [f"{result.languages[language][metric]['mean']:.3f}" for result in results]
        table.add_row(Text(language), f"{first['queries']['count']:.0f}", *cells)
    return table


def _dimension_table(results: list["ModelResult"]) -> Table:
    metric = results[0].metrics[0]
    sizes = sorted({int(size) for result in results for size in result.dimensions})
    heads = [f"\n{size}" for size in sizes]
    table = _table(f"\n{metric} by dimension", *heads)
    for result in results:
        cells = [f"{result.dimensions[str(size)][metric]:.3f}" for size in sizes]
        table.add_row(Text(result.model), *cells)
    return table


def _print_failures(result: "ModelResult") -> None:
    console = results_console()
    if result.worst:
        console.print(Text(f"\nWorst queries of {result.model}"))
    for failure in result.worst[:_SHOWN_FAILURES]:
        wanted, found = failure["wanted"][0], failure["found"][:1]
        rank = "not found" if wanted["rank"] is None else f"rank {wanted['rank']}"
        lines = [f"- {failure['query']}  {failure['text']}"]
        lines += [f"    wanted ({rank}): {wanted['id']}  {wanted['text']}"]
        lines += [f"    found first ({x['cosine']:.3f}): {x['id']}  {x['text']}" for x in found]
        for line in lines:
            indent = line[: len(line) - len(line.lstrip())]
            console.print(Text(indent + " ".join(line.split()), no_wrap=True, overflow="ellipsis"))
