"""``polyvec generate``: training records written by language models."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from polyvec.cli.options import MESSAGES, DeviceOption, JsonOption, PrecisionOption
from polyvec.cli.output import print_json, results_console
from polyvec.errors import InputError
from polyvec.settings import resolve_settings

if TYPE_CHECKING:
    from polyvec.data.generate.run import Status
    from polyvec.data.generate.settings import GenerateSettings
    from polyvec.data.generate.tasks import Inputs

_WHO, _WHAT, _CHECKS = "Who writes", "What is written", "What is kept"


def generate(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="retrieval, classification, sts, bitext: from nothing, in two steps. questions: "
            "over --input passages. translate: --input records.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help=".jsonl or .jsonl.gz.", show_default=False)
    ] = None,
    endpoints: Annotated[
        list[str] | None,
        typer.Option(
            "--endpoint",
            "-e",
            help="http://host:port/v1?model=NAME, several mix; more after &: weight, api_key_env, "
            "max_concurrent, max_requests_per_minute, max_answer_tokens, temperature, timeout_s, "
            "prompt_price, answer_price, response_format.",
            show_default=False,
            rich_help_panel=_WHO,
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", "-n", help="Records to keep.", show_default=False)
    ] = None,
    languages: Annotated[
        list[str] | None,
        typer.Option(
            "--language",
            "-l",
            help="As a reader would name it; several take turns. [default: English]",
            show_default=False,
            rich_help_panel=_WHAT,
        ),
    ] = None,
    inputs: Annotated[
        list[Path] | None,
        typer.Option(
            "--input",
            "-i",
            help="questions: passages (.txt, .jsonl, .csv, .tsv, .parquet). translate: records.",
            show_default=False,
            rich_help_panel=_WHAT,
        ),
    ] = None,
    text_column: Annotated[
        str, typer.Option("--text-column", help="Of passages.", rich_help_panel=_WHAT)
    ] = "text",
    id_column: Annotated[
        str | None, typer.Option("--id-column", help="Of passages.", rich_help_panel=_WHAT)
    ] = None,
    about: Annotated[
        str | None,
        typer.Option(
            "--about",
            help="The subject, in a sentence; otherwise anything.",
            show_default=False,
            rich_help_panel=_WHAT,
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option("--prompts", help="A folder of edited prompts.", rich_help_panel=_WHAT),
    ] = None,
    write_prompts: Annotated[
        Path | None,
        typer.Option("--write-prompts", help="Copy the shipped prompts into a folder, and end."),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge",
            help="llm: the endpoints say whether the positive is one. A model, st:NAME or server: "
            "its vectors do.",
            rich_help_panel=_CHECKS,
        ),
    ] = None,
    judge_rank: Annotated[
        int | None,
        typer.Option(
            "--judge-rank",
            help="How near the positive must be. [default: 3]",
            show_default=False,
            rich_help_panel=_CHECKS,
        ),
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(
            "--min-score",
            help="The least cosine of query and positive.",
            show_default=False,
            rich_help_panel=_CHECKS,
        ),
    ] = None,
    near_duplicate: Annotated[
        float | None,
        typer.Option(
            "--near-duplicate",
            help="Overlap from which two queries are one; 1: only equal ones. [default: 0.8]",
            show_default=False,
            rich_help_panel=_CHECKS,
        ),
    ] = None,
    max_attempts: Annotated[
        float | None,
        typer.Option(
            "--max-attempts",
            help="Jobs at most, in relation to --count. [default: 3]",
            show_default=False,
            rich_help_panel=_CHECKS,
        ),
    ] = None,
    max_cost: Annotated[
        float | None,
        typer.Option("--max-cost", help="Stop when so much is spent, by the endpoints' prices."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="A TOML file of settings, [[endpoints]] too; flags win."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", show_default=False)] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw away the answers of an earlier run.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing output.")] = False,
    as_json: JsonOption = False,
    precision: PrecisionOption = "auto",
    device: DeviceOption = "auto",
) -> None:
    """Have language models write training records, and keep the good ones.

    Every answer is checked against a JSON schema, deduplicated, and judged if asked. Answers are
    kept in OUTPUT.journal.jsonl as they come: run the same command again to go on after a stop, or
    with a larger --count for more.

    Examples:

    - `polyvec generate retrieval -n 99 -e 'http://127.0.0.1:8080/v1?model=gemma' -o r.jsonl`
    - `polyvec generate questions --input corpus.jsonl -n 5000 -e ... --judge default -o q.jsonl`
    - `polyvec generate translate --input r.jsonl -l French -e ... -o fr.jsonl`
    - `polyvec generate --write-prompts ./prompts`
    """
    from polyvec.data.generate.prompts import write_prompts as copy_prompts

    if write_prompts is not None:
        for path in copy_prompts(write_prompts):
            typer.echo(str(path))
        return
    if output is None:
        raise InputError("Where do the records go? Give --output FILE.jsonl.")
    flags: dict[str, Any] = {
        "kind": kind,
        "endpoints": endpoints or None,
        "count": count,
        "languages": languages or None,
        "about": about,
        "prompts": prompts,
        "judge": judge,
        "judge_rank": judge_rank,
        "min_score": min_score,
        "near_duplicate": near_duplicate,
        "max_attempts": max_attempts,
        "max_cost": max_cost,
        "seed": seed,
    }
    settings = _settings(config, flags)
    texts = _inputs(settings, inputs or [], text_column, id_column)
    done = _run(settings, output, texts, restart, force, (precision, device))
    if as_json:
        print_json({"output": str(output), **done.facts()})
    else:
        _print(done, output)


def _settings(config: Path | None, flags: dict[str, Any]) -> "GenerateSettings":
    """Build the settings; endpoints are tables in a file and addresses in flags."""
    from polyvec.data.generate.settings import (
        GenerateSettings,
        RawSettings,
        make_endpoint,
        parse_endpoint,
    )

    raw = vars(resolve_settings(RawSettings, config, flags))
    raw["endpoints"] = tuple(
        parse_endpoint(given) if isinstance(given, str) else make_endpoint(given)
        for given in _listed(raw["endpoints"])
    )
    raw["languages"] = _listed(raw["languages"])
    raw["prompts"] = None if raw["prompts"] is None else Path(raw["prompts"])
    return GenerateSettings(**raw)


def _listed(given: Any) -> tuple[Any, ...]:  # noqa: ANN401 (one, or several)
    return (given,) if isinstance(given, str | dict) else tuple(given)


def _inputs(
    settings: "GenerateSettings", paths: list[Path], text_column: str, id_column: str | None
) -> "Inputs | None":
    from polyvec.data.generate.inputs import read_originals, read_passages
    from polyvec.engine.rows import Columns

    if settings.kind not in ("questions", "translate"):
        if paths:
            raise InputError(f"--input was given, and {settings.kind} is written from nothing.")
        return None
    if not paths:
        raise InputError(f"{settings.kind} starts from your own texts: give --input FILE.")
    if settings.kind == "translate":
        return read_originals(paths)
    wanted = int((settings.count or 0) * settings.max_attempts)
    return read_passages(paths, Columns(text_column, id_column), wanted, settings.seed)


def _run(
    settings: "GenerateSettings",
    output: Path,
    texts: "Inputs | None",
    restart: bool,
    force: bool,
    runs_on: tuple[str, str],
) -> "Status":
    from polyvec.data.generate.run import Generator

    peer = None
    if settings.judge is not None and settings.judge != "llm":
        from polyvec.engine.peers import open_peer

        peer = open_peer(settings.judge, precision=runs_on[0], device=runs_on[1])
    with _bar(settings.count) as tell:
        generator = Generator(settings, output, texts, peer, restart, force, tell, _warn)
        if generator.status.resumed:
            MESSAGES.print(f"[dim]{generator.status.resumed:,} answers of an earlier run[/]")
        return generator.run()


def _warn(message: str) -> None:
    MESSAGES.print(f"[bold yellow]warning:[/] {message.replace('[', chr(92) + '[')}")


@contextmanager
def _bar(total: int | None) -> Iterator[Callable[["Status"], None] | None]:
    """Show what is kept, what was not, and what it costs, on a terminal."""
    if not MESSAGES.is_terminal:
        yield None
        return
    columns = (
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("{task.fields[rest]}", style="cyan"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=MESSAGES) as progress:
        task = progress.add_task("generate", total=total, rest="")

        def tell(status: "Status") -> None:
            rest = f"{_tokens(status)}, {_losses(status)}"
            progress.update(task, completed=status.kept, total=status.wanted, rest=rest)

        yield tell


def _tokens(status: "Status") -> str:
    cost = f", cost {status.cost:,.4f}" if status.cost else ""
    return f"{status.prompt_tokens:,} + {status.answer_tokens:,} tokens{cost}"


def _losses(status: "Status") -> str:
    return (
        f"{status.duplicates:,} duplicates, {status.rejected:,} rejected, {status.failed:,} failed"
    )


def _print(status: "Status", output: Path) -> None:
    console = results_console()
    console.print(
        f"{output}: {status.kept:,} of {status.wanted:,} records in {status.seconds:,.0f} s; "
        f"{_losses(status)}; {_tokens(status)}"
    )
    for name, facts in status.endpoints.items():
        share = f"{facts['valid'] / facts['answers']:.0%}" if facts["answers"] else "none"
        console.print(
            f"{name}: {facts['answers']:,} answers, {share} as asked "
            f"({facts['response_format']}); {facts['requests']:,} requests, "
            f"{facts['retries']:,} of them again"
        )
    if status.stopped is not None:
        _warn(f"{status.kept:,} of {status.wanted:,} records: {status.stopped}.")
