"""What commands print: JSON for programs, tables and colours for people."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import orjson
import typer
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

from polyvec.cli.options import MESSAGES
from polyvec.cli.terminal import visible_json
from polyvec.hub import ALIASES

_CELL_WIDTH = 4

if TYPE_CHECKING:
    from polyvec.engine.bulk import BulkReport
    from polyvec.engine.embedder import Embedder, Vectors


def print_json(value: object) -> None:
    """Print a value as one JSON document, with nothing in it that a terminal obeys."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY
    typer.echo(visible_json(orjson.dumps(value, option=options).decode()))


def announce(embedder: "Embedder", model: str) -> None:
    """Say on standard error what embeds, at which precision, and what to expect of it."""
    about = f": {ALIASES[model].about}" if model in ALIASES else ""
    place = embedder.plan.holding.place
    held = "" if place == "resident" or embedder.precision == place else f", weights {place}"
    known = ", measured to keep fp32's vectors" if embedder.is_faithful else ""
    precision = f"{embedder.precision}{known}"
    MESSAGES.print(f"[dim]{model}{about} ({precision} on {embedder.where}{held})[/]")


def bulk_sentence(report: "BulkReport", output: Path) -> str:
    """Return what became of a file of texts."""
    resumed = f" ({report.resumed_rows:,} from an interrupted run)" if report.resumed_rows else ""
    return (
        f"{report.rows:,} texts{resumed}, {report.tokens:,} tokens to {output} "
        f"[{report.rows}, {report.dimension}] in {report.seconds:,.1f} s: "
        f"{report.tokens_per_s:,.0f} tokens/s"
    )


def warn_of_cuts(cut: int, texts: int, max_tokens: int, truncate: str) -> None:
    """Say how many texts were cut, if any were."""
    if cut:
        MESSAGES.print(
            f"[bold yellow]warning:[/] {cut:,} of {texts:,} texts are longer than the "
            f"{max_tokens:,} tokens the model reads and were cut at their {truncate}."
        )


def print_heat_tables(
    console: Console, scores_QD: "Vectors", queries: Sequence[str], documents: Sequence[str]
) -> None:
    """Print similarities coloured, a row's highest bold and underlined.

    Columns that do not fit the console go into a further table below, none is left out.
    """
    label = max(map(len, queries)) + 1
    width = max(_CELL_WIDTH, *(len(name) + 1 for name in documents))
    step = max(1, (console.width - label) // width)
    for start in range(0, len(documents), step):
        columns = slice(start, start + step)
        header = "".join(name.rjust(width) for name in documents[columns])
        console.print(Text(" " * label + header, style="bold"))
        for name, row in zip(queries, scores_QD, strict=True):
            cells = [_cell(score, row.max(), scores_QD, width) for score in row[columns]]
            console.print(Text.assemble(f"{name} ".rjust(label), *cells))


def _cell(score: np.float32, best: np.float32, scores_QD: "Vectors", width: int) -> Text:
    """Colour from dark blue (lowest) to yellow (highest), under ink that stays readable."""
    low, high = float(scores_QD.min()), float(scores_QD.max())
    share = (float(score) - low) / max(high - low, 1e-9)
    red, green, blue = (int(a + (b - a) * share) for a, b in ((30, 250), (40, 210), (110, 60)))
    ink = Color.from_rgb(0, 0, 0) if share > 0.5 else Color.from_rgb(235, 235, 235)
    paper, first = Color.from_rgb(red, green, blue), bool(score == best)
    style = Style(color=ink, bgcolor=paper, bold=first, underline=first)
    return Text(f"{score:.2f}".replace("0.", ".", 1).rjust(width), style=style)


def results_console() -> Console:
    """Return the console for results, on standard output."""
    return Console(highlight=False)
