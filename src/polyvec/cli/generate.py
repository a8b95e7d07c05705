"""``polyvec generate``: training records written by language models."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from polyvec.cli.flags import generate as flags
from polyvec.cli.given import settings_given
from polyvec.cli.options import (
    MESSAGES,
    DeviceOption,
    ForceOption,
    JsonOption,
    PrecisionOption,
    SettingsSeedOption,
)
from polyvec.cli.output import print_json, results_console
from polyvec.errors import InputError

if TYPE_CHECKING:
    from polyvec.data.generate.run import Status
    from polyvec.data.generate.settings import GenerateSettings
    from polyvec.data.generate.tasks import Inputs


def generate(
    context: typer.Context,
    kind: flags.Kind = None,
    output: flags.Output = None,
    endpoints: flags.Endpoints = None,
    count: flags.Count = None,
    languages: flags.Languages = None,
    inputs: flags.Inputs = None,
    text_column: flags.TextColumn = "text",
    id_column: flags.IdColumn = None,
    about: flags.About = None,
    prompts: flags.Prompts = None,
    write_prompts: flags.WritePrompts = None,
    judge: flags.Judge = None,
    judge_rank: flags.JudgeRank = None,
    min_score: flags.MinScore = None,
    near_duplicate: flags.NearDuplicate = None,
    max_attempts: flags.MaxAttempts = None,
    max_cost: flags.MaxCost = None,
    config: flags.Config = None,
    seed: SettingsSeedOption = None,
    restart: flags.Restart = False,
    force: ForceOption = False,
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
    settings = _settings(config, context)
    texts = _inputs(settings, inputs or [], text_column, id_column)
    done = _run(settings, output, texts, restart, force, (precision, device))
    if as_json:
        print_json({"output": str(output), **done.facts()})
    else:
        _print(done, output)


def _settings(config: Path | None, context: typer.Context) -> "GenerateSettings":
    """Build the settings; endpoints are tables in a file and addresses in flags."""
    from polyvec.data.generate.settings import (
        GenerateSettings,
        RawSettings,
        make_endpoint,
        parse_endpoint,
    )

    raw = vars(settings_given(RawSettings, config, context))  # of the flags named like fields
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
