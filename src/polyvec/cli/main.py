"""The ``polyvec`` command."""

import importlib
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import typer
from rich.text import Text
from typer.core import TyperGroup

import polyvec
from polyvec.cli import (
    ask,
    catalogue,
    classify,
    cluster,
    data,
    embed,
    evaluate,
    export,
    generate,
    index,
    leaderboard,
    mcp,
    merge,
    mine,
    models,
    rank,
    report,
    search,
    serve,
    similarity,
    train,
    verify,
)
from polyvec.cli.options import MESSAGES
from polyvec.cli.terminal import visible_lines
from polyvec.errors import PolyvecError

_LATE = {
    "fit": "polyvec.cli.fit",
    "rent": "polyvec.cli.rent",
    "precision": "polyvec.cli.precision",
}
"""Commands whose modules load torch, by their module: read when they are asked for."""
_ABOUT = {
    "fit": "Say which devices run a model: memory, speed, quality and hours, the cheapest first.",
    "rent": "List the cheapest GPUs for rent with enough memory for a model, spot and on demand.",
    "precision": "Measure what bf16 and int8 cost a model on your texts, on the CPU.",
}
"""The first line of each one's help, for the list of all commands."""


class _Commands(TyperGroup):
    """The commands; some are imported when they are named, so that the others start at once."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401 (typer's own click is private)
        """Return the names in the order of the help."""
        return [*super().list_commands(ctx), *_LATE]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401
        """Return a command; of a late one, its place in the list of commands."""
        if cmd_name not in _LATE:
            return super().get_command(ctx, cmd_name)
        return _late(cmd_name, lambda: None, help=_ABOUT[cmd_name])

    def resolve_command(self, ctx: Any, args: Any) -> Any:  # noqa: ANN401
        """Return the command that was asked for, importing it if it is a late one."""
        name, command, rest = super().resolve_command(ctx, args)
        if name in _LATE:
            command = _late(name, getattr(importlib.import_module(_LATE[name]), name))
        return name, command, rest


def _late(name: str, function: Callable[..., None], **given: str) -> Any:  # noqa: ANN401
    late = typer.Typer(rich_markup_mode="markdown", pretty_exceptions_enable=False)
    late.command(name, **given)(function)  # type: ignore[arg-type]
    return typer.main.get_command(late)


app = typer.Typer(
    name="polyvec",
    cls=_Commands,
    help="Texts in any language to vectors, and what to do with them.",
    epilog="Start with: polyvec similarity 'Where is Paris?' 'Paris liegt in Frankreich.'",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("embed")(embed.embed)
app.command("similarity")(similarity.similarity)
app.command("pull")(models.pull)
app.command("models")(models.list_models)
app.command("info")(models.info)
app.command("catalogue")(catalogue.catalogue)
app.command("export")(export.export)
app.command("verify")(verify.verify)
app.command("serve")(serve.serve)
app.command("evaluate")(evaluate.evaluate)
app.command("leaderboard")(leaderboard.leaderboard)
app.command("report")(report.report)
app.command("search")(search.search)
app.command("ask")(ask.ask)
app.command("mcp")(mcp.mcp)
app.command("rank")(rank.rank)
app.add_typer(classify.app, name="classify")
app.command("cluster")(cluster.cluster)
app.command("train")(train.train)
app.command("merge")(merge.merge)
app.command("mine")(mine.mine)
app.add_typer(data.app, name="data")
app.command("generate")(generate.generate)
app.command("index")(index.index)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"polyvec {polyvec.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Texts in any language to vectors, and what to do with them."""


def run() -> None:
    """Run the command line; an error that polyvec foresaw is one message and an exit code."""
    warnings.showwarning = _show_warning
    try:
        app(prog_name="polyvec")
    except PolyvecError as error:
        _say("error:", "bold red", str(error))
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of our output, e.g. `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _show_warning(message: Warning | str, *_where: object, **_: object) -> None:
    _say("warning:", "bold yellow", str(message))


def _say(what: str, style: str, text: str) -> None:
    """Print a message as it is: no markup is read in it, and a terminal obeys nothing in it."""
    printable = text.encode("utf-8", errors="backslashreplace").decode()
    MESSAGES.print(Text.assemble((what, style), " ", visible_lines(printable)))
