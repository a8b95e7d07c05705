"""The ``polyvec`` command."""

import os
import sys
import warnings

import typer

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
    fit,
    generate,
    index,
    leaderboard,
    mcp,
    merge,
    mine,
    models,
    rank,
    rent,
    report,
    search,
    serve,
    similarity,
    train,
    verify,
)
from polyvec.cli.options import MESSAGES
from polyvec.errors import PolyvecError

app = typer.Typer(
    name="polyvec",
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
app.command("fit")(fit.fit)
app.command("rent")(rent.rent)
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
        MESSAGES.print(f"[bold red]error:[/] {_plain(str(error))}")
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of our output, e.g. `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _show_warning(message: Warning | str, *_where: object, **_: object) -> None:
    MESSAGES.print(f"[bold yellow]warning:[/] {_plain(str(message))}")


def _plain(text: str) -> str:
    """Keep rich from reading markup in a message, and unprintable characters out of it."""
    printable = text.encode("utf-8", errors="backslashreplace").decode()
    return printable.replace("[", r"\[")
