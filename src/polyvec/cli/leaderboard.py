"""``polyvec leaderboard``: models ranked over a benchmark's tasks."""

from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from polyvec.cli.flags import leaderboard as flags
from polyvec.cli.options import MESSAGES, JsonOption
from polyvec.cli.output import print_json, results_console

if TYPE_CHECKING:
    from polyvec.evaluate.borda import Rank
    from polyvec.evaluate.leaderboard import Board


def leaderboard(
    results: flags.Results = None,
    published: flags.WithPublished = True,
    all_tasks: flags.AllTasks = False,
    as_json: JsonOption = False,
) -> None:
    """Rank models by Borda count, with their means over tasks and over types of task.

    The Borda count is mteb's: in every task a model earns a point for each model it beats. It
    depends on who else is ranked; means do not.

    Examples:

    - `polyvec leaderboard evaluation`
    - `polyvec leaderboard run-a run-b --only-mine --all-tasks`
    """
    from polyvec.evaluate.leaderboard import board, read_results

    found = board(
        read_results(results or []), with_published=published or not results, all_tasks=all_tasks
    )
    if as_json:
        print_json(_facts(found))
        return
    results_console().print(_table(found))
    results_console().print(_type_table(found))
    MESSAGES.print(f"[dim]{found.field}[/]")
    _say_what_is_left_out(found)


def _table(found: "Board") -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("rank", justify="right")
    table.add_column("model", overflow="fold")
    for heading in ("Borda", "mean task", "mean type"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in found.ranks:
        cells = [f"{row.points:,.1f}", _number(row.mean_task), _number(row.mean_type)]
        table.add_row(str(row.place), _name(found, row), *cells)
    return table


def _type_table(found: "Board") -> Table:
    kinds = sorted(set(found.types.values()))
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("mean by type", overflow="fold")  # gives way where it is narrow, not numbers
    for kind in kinds:
        table.add_column(_short(kind), justify="right", no_wrap=True)
    for row in found.ranks:
        name = Text(row.model.rpartition("/")[2], style=_name(found, row).style)
        table.add_row(name, *(_number(row.by_type.get(kind), 1) for kind in kinds))
    return table


def _name(found: "Board", row: "Rank") -> Text:
    return Text(row.model, style="" if row.model in found.published else "bold")


def _short(kind: str) -> str:
    """Return a task type's name in a column's width."""
    names = {
        "BitextMining": "bitext",
        "Classification": "class",
        "Clustering": "cluster",
        "InstructionReranking": "instr",
        "MultilabelClassification": "multi",
        "PairClassification": "pair",
        "Reranking": "rerank",
        "Retrieval": "retr",
    }
    return names.get(kind, kind)


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _say_what_is_left_out(found: "Board") -> None:
    for model, tasks in found.missing.items():
        shown = ", ".join(tasks[:3]) + (", ..." if len(tasks) > 3 else "")
        MESSAGES.print(f"[dim]{model} has no result of {len(tasks)} tasks: {shown}[/]")
    left = {task for tasks in found.missing.values() for task in tasks} - set(found.tasks)
    if left:
        MESSAGES.print(
            f"[dim]{len(left)} tasks that not all have run are left out; --all-tasks counts "
            "them.[/]"
        )


def _facts(found: "Board") -> dict[str, Any]:
    return {
        "tasks": found.tasks,
        "models": [_row(row, row.model in found.published) for row in found.ranks],
        "missing": dict(found.missing),
        "note": found.field,
    }


def _row(row: "Rank", is_published: bool) -> dict[str, Any]:
    return {
        "rank": row.place,
        "model": row.model,
        "published": is_published,
        "borda": row.points,
        "mean_task": row.mean_task,
        "mean_type": row.mean_type,
        "by_type": dict(row.by_type),
        "tasks": row.tasks,
    }
