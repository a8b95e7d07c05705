"""``polyvec evaluate --benchmark``: a benchmark's tasks, planned, run and resumed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from polyvec.cli.options import MESSAGES
from polyvec.cli.output import print_json, results_console

if TYPE_CHECKING:
    from polyvec.engine.peers import Peer
    from polyvec.evaluate.benchmark_plan import Plan
    from polyvec.evaluate.benchmarks import Benchmark, Outcome, TaskOutcome
    from polyvec.fit.elsewhere import Elsewhere


@dataclass(frozen=True)
class BenchmarkOptions:
    """What the flags of ``polyvec evaluate --benchmark`` ask for."""

    name: str
    tasks: Sequence[str]
    output: Path
    cache: Path
    is_dry: bool
    as_json: bool


def run_benchmarks(openers: Sequence[Callable[[], "Peer"]], options: BenchmarkOptions) -> None:
    """Run a benchmark on every model, one after the other; exit with 1 if anything is missing.

    Args:
        openers: What loads each model, when its turn comes.
        options: Of the command.
    """
    from polyvec.evaluate.benchmarks import open_benchmark, plan_benchmark

    benchmark = open_benchmark(options.name, options.tasks)
    for name, why in benchmark.skipped.items():
        MESSAGES.print(f"skipped: {name}: {why}", style="bold red", markup=False)
    facts, is_whole = [], not benchmark.skipped
    for opener in openers:
        peer = opener()
        plan = plan_benchmark(benchmark, peer, options.output)
        _show_plan(peer, plan, options)
        if options.is_dry:
            facts.append(_plan_facts(peer, plan))
            continue
        outcome = _run(benchmark, peer, plan, options)
        is_whole = is_whole and all(task.score is not None for task in outcome.tasks)
        facts.append(_outcome_facts(outcome))
        if not options.as_json:
            results_console().print(_table(outcome))
            MESSAGES.print(f"[dim]Results: {outcome.folder}[/]")
    if options.as_json:
        print_json(facts)
    if not is_whole:
        raise typer.Exit(1)


def _show_plan(peer: "Peer", plan: "Plan", options: BenchmarkOptions) -> None:
    left = [task for task in plan.tasks if not task.done]
    unknown = [task.task for task in left if task.tokens is None]
    if options.is_dry and not options.as_json:
        results_console().print(_plan_table(plan))
    about = "" if plan.speed.is_exact else "about "
    MESSAGES.print(
        f"{peer.name}: {len(left)} of {len(plan.tasks)} tasks to do, {about}"
        f"{plan.tokens / 1e6:,.2f} million tokens; here {plan.speed.tokens_per_s:,.0f} tokens/s "
        f"were measured, so {_duration(plan.hours)}.",
        markup=False,
    )
    for found in _elsewhere(plan):
        price = "assumed" if found.is_assumed else "the cheapest that `polyvec rent` saw last"
        MESSAGES.print(
            f"  {found.device.name}: {_duration(found.hours)}, ${found.dollars:,.2f} (computed "
            f"from its maker's figures, as `polyvec fit` does; ${found.price_per_h:.2f} an hour: "
            f"{price})",
            style="dim",
            markup=False,
        )
    if unknown:
        MESSAGES.print(f"  without {', '.join(unknown)}, whose texts are not known", markup=False)


def _elsewhere(plan: "Plan") -> "list[Elsewhere]":
    """Return what the tasks take on other devices, of a model whose shape is known."""
    from polyvec.fit.elsewhere import elsewhere
    from polyvec.fit.prices import known_prices

    if plan.architecture is None:
        return []
    known = known_prices()
    offers = known.offers if known else []
    return elsewhere(plan.architecture, plan.tokens, plan.tokens_per_text, offers)


def _duration(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.1f} hours"
    return f"{hours * 60:.0f} minutes" if hours * 60 >= 1 else f"{hours * 3600:.0f} seconds"


def _plan_table(plan: "Plan") -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    for heading in ("task", "type"):
        table.add_column(heading)
    for heading in ("texts", "tokens", "minutes here"):
        table.add_column(heading, justify="right")
    for task in plan.tasks:
        minutes = (task.tokens or 0) / plan.speed.tokens_per_s / 60
        known = task.tokens is not None
        table.add_row(
            task.task,
            task.kind,
            f"{task.texts:,}" if task.texts is not None else "?",
            f"{task.tokens:,.0f}" if known else "?",
            "done" if task.done else f"{minutes:,.1f}" if known else "?",
        )
    return table


def _run(
    benchmark: "Benchmark", peer: "Peer", plan: "Plan", options: BenchmarkOptions
) -> "Outcome":
    from polyvec.evaluate.benchmarks import run_benchmark

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"))
    with Progress(
        *columns, TimeElapsedColumn(), console=MESSAGES, disable=not MESSAGES.is_terminal
    ) as bars:
        bar = bars.add_task(peer.name, total=len(benchmark.tasks), said="")
        texts = 0

        def on_texts(count: int, _characters: int) -> None:
            nonlocal texts
            texts += count
            bars.update(bar, said=f"{texts:,} texts")

        def on_task(task: "TaskOutcome") -> None:
            bars.update(bar, advance=1)
            _say(task)

        try:
            return run_benchmark(
                benchmark,
                peer,
                options.output,
                options.cache,
                order=[task.task for task in plan.tasks],
                on_texts=on_texts,
                on_task=on_task,
            )
        except KeyboardInterrupt:
            MESSAGES.print("Interrupted. Give the same command again to go on.")
            raise typer.Exit(130) from None


def _say(task: "TaskOutcome") -> None:
    if task.score is None:
        MESSAGES.print(f"{task.task} failed: {task.error}", style="bold red", markup=False)
    else:
        earlier = " (of an earlier run)" if task.was_done else ""
        MESSAGES.print(f"{task.task}: {task.score * 100:.2f}{earlier}", style="dim", markup=False)


def _table(outcome: "Outcome") -> Table:
    table = Table(title=f"{outcome.model}: {outcome.benchmark}", box=None, padding=(0, 1, 0, 0))
    table.add_column("task")
    table.add_column("score", justify="right")
    table.add_column("lowest and highest subset")
    for task in outcome.tasks:
        ordered = sorted(task.subsets.items(), key=lambda item: item[1])
        ends = f"{_subset(*ordered[0])}, {_subset(*ordered[-1])}" if len(ordered) > 1 else ""
        score = "failed" if task.score is None else f"{task.score * 100:.2f}"
        table.add_row(task.task, score, ends)
    for name in outcome.skipped:
        table.add_row(name, "skipped", "")
    return table


def _subset(name: str, score: float) -> str:
    return f"{name} {score * 100:.1f}"


def _plan_facts(peer: "Peer", plan: "Plan") -> dict[str, Any]:
    return {
        "model": peer.name,
        "tokens": round(plan.tokens),
        "tokens_per_s": plan.speed.tokens_per_s,
        "hours": plan.hours,
        "elsewhere": [
            {
                "device": found.device.name,
                "hours": found.hours,
                "dollars": found.dollars,
                "price_is_assumed": found.is_assumed,
            }
            for found in _elsewhere(plan)
        ],
        "tasks": [
            {
                "task": task.task,
                "type": task.kind,
                "texts": task.texts,
                "tokens": None if task.tokens is None else round(task.tokens),
                "done": task.done,
            }
            for task in plan.tasks
        ],
    }


def _outcome_facts(outcome: "Outcome") -> dict[str, Any]:
    return {
        "model": outcome.model,
        "fingerprint": outcome.fingerprint,
        "benchmark": outcome.benchmark,
        "results": str(outcome.folder),
        "tasks": [
            {
                "task": task.task,
                "type": task.kind,
                "score": task.score,
                "subsets": dict(task.subsets),
                "error": task.error,
            }
            for task in outcome.tasks
        ],
        "skipped": dict(outcome.skipped),
    }
