"""``polyvec merge``: checkpoints to one model, averaged; LoRA adapters folded in."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from polyvec.cli.flags import merge as flags
from polyvec.cli.options import (
    MESSAGES,
    AttentionOption,
    ForceModelOption,
    JsonOption,
    MaxTokensOption,
    PoolingOption,
    PrecisionOption,
)
from polyvec.cli.output import print_json, results_console
from polyvec.errors import InputError

if TYPE_CHECKING:
    from polyvec.model.files import ModelFiles
    from polyvec.publish.merge import Merged


def merge(
    models: flags.Models,
    output: flags.Output,
    weights: flags.Weights = None,
    method: flags.Method = "average",
    held_out: flags.HeldOut = None,
    test: flags.Test = None,
    max_evaluations: flags.MaxEvaluations = 100,
    precision: PrecisionOption = "auto",
    base: flags.Base = None,
    type_name: flags.TypeName = None,
    compare: flags.Compare = True,
    force: ForceModelOption = False,
    as_json: JsonOption = False,
    attention: AttentionOption = None,
    pooling: PoolingOption = None,
    max_tokens: MaxTokensOption = None,
) -> None:
    """Average checkpoints of one model, and fold LoRA adapters into their base.

    Weights pass through some rows at a time, so six 8B checkpoints need less than 4 GB. Sums are
    float64 and rounded once. The models must have the same shape, spec and tokenizer.

    Examples:

    - `polyvec merge run1 run2 run3 --output soup`
    - `polyvec merge run1 run2 --weights 3,1 --output soup`
    - `polyvec merge run1 run2 run3 --method greedy --held-out dev.jsonl --output soup`
    - `polyvec merge ./adapter --base default --output folded`
    """
    from polyvec.publish.merge import merge as write  # this brings torch
    from polyvec.publish.merge import open_checkpoint
    from polyvec.publish.output import check_output

    given = {"attention": attention, "pooling": pooling, "max_tokens": max_tokens}
    stated = {name: value for name, value in given.items() if value is not None}
    sources = [open_checkpoint(name, base, stated) for name in models]
    shares = None if weights is None else _numbers(weights)
    notes: dict[str, Any] = {}
    if method != "average":
        check_output(output.absolute(), "folder", force)
        search = _Search(method, held_out or [], test or [], max_evaluations, precision)
        shares, notes = search.run(sources, output, type_name, shares)
    elif held_out or test:
        raise InputError("--held-out and --test are read by --method greedy and search only.")
    with _bar(sources[0].architecture.num_parameters) as advance:
        merged = write(sources, output, shares, type_name, force, compare, advance, notes)
    if as_json:
        print_json(merged.facts() | notes)
    else:
        _print(merged, notes)


@dataclass(frozen=True)
class _Search:
    """What finds the shares."""

    method: Literal["greedy", "search"]
    held_out: list[Path]
    test: list[Path]
    max_evaluations: int
    precision: str

    def run(
        self,
        sources: "list[ModelFiles]",
        output: Path,
        type_name: str | None,
        given: list[float] | None,
    ) -> tuple[list[float], dict[str, Any]]:
        """Return the shares, and what to tell of how they were found."""
        from polyvec.publish.export import FOLDER_TYPES
        from polyvec.publish.held_out import read_held_out
        from polyvec.publish.merge import check_sources, check_type
        from polyvec.publish.soup import Kitchen, cook

        if given is not None or not self.held_out:
            raise InputError(f"--method {self.method} needs --held-out FILE, and no --weights.")
        check_sources(sources)
        dtype = FOLDER_TYPES[check_type(type_name, sources)]
        memory = output.with_name(f"{output.name}.scores.jsonl")
        judges = read_held_out(self.held_out)
        kitchen = Kitchen(sources, judges, dtype, self.precision, memory, _say_score)
        soup = cook(kitchen.score, len(sources), self.method, self.max_evaluations)
        notes = {"soup": soup.facts(), "held_out_queries": judges.num_queries}
        if self.test:
            others = read_held_out(self.test)
            tester = Kitchen(sources, others, dtype, self.precision, memory)
            notes["test"] = soup.compared(tester.score) | {"queries": others.num_queries}
        return list(soup.shares), notes


def _say_score(shares: tuple[float, ...], score: float) -> None:
    MESSAGES.print(f"[dim]nDCG@10 {score:.4f} with {', '.join(f'{s:.3f}' for s in shares)}[/]")


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(
            f"--weights {text!r} are no numbers with commas between them, like 2,1,1."
        ) from error


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None] | None]:
    """Show written weights on a terminal."""
    if not MESSAGES.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.completed:,.0f} weights"),
        BarColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=MESSAGES) as progress:
        task = progress.add_task("merge", total=total)
        yield lambda rows: progress.advance(task, rows)


def _print(merged: "Merged", notes: dict[str, Any]) -> None:
    console = results_console()
    console.print(
        f"{merged.path}: {merged.tensors} tensors of {merged.type}, "
        f"{merged.size_bytes / 1e6:,.1f} MB"
    )
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("model", "weight", "cosine to it: mean", "lowest"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for part in merged.parts:
        quality = part.quality
        cosines = ("", "") if quality is None else (quality.cosine_mean, quality.cosine_min)
        cells = [f"{c:.5f}" if c != "" else "not measured" for c in cosines]
        table.add_row(part.model, f"{part.weight:.4f}", *cells)
    console.print(table)
    for name, scores in (("held out", notes.get("soup")), ("test", notes.get("test"))):
        if scores:
            singles = ", ".join(f"{score:.4f}" for score in scores["singles"])
            console.print(
                f"nDCG@10, {name}: {scores['score']:.4f}; equal average {scores['equal']:.4f}; "
                f"single models {singles}"
            )
