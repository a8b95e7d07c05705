"""``polyvec mine``: hard negatives for training records."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from polyvec.cli.flags import data as of_records
from polyvec.cli.flags import mine as flags
from polyvec.cli.given import settings_given
from polyvec.cli.options import (
    MESSAGES,
    ConfigOption,
    DeviceOption,
    ForceOption,
    JsonOption,
    PrecisionOption,
    RecordFilesArgument,
    SettingsSeedOption,
)
from polyvec.cli.output import print_json, results_console
from polyvec.errors import OutputError
from polyvec.hub import cache_folder

if TYPE_CHECKING:
    from polyvec.data.mining.corpus import Corpus
    from polyvec.data.mining.run import Mined
    from polyvec.data.mining.settings import MineSettings
    from polyvec.records.columns import Columns
    from polyvec.records.record import Record


def mine(
    context: typer.Context,
    inputs: RecordFilesArgument,
    output: flags.Output,
    corpus: flags.Corpus = None,
    teachers: flags.Teachers = None,
    negatives: flags.Negatives = None,
    margin: flags.Margin = None,
    margin_value: flags.MarginValue = None,
    depth: flags.Depth = None,
    skip: flags.Skip = None,
    sampling: flags.Sampling = None,
    keep_negatives: flags.KeepNegatives = None,
    drop_without_negatives: flags.DropWithoutNegatives = None,
    search: flags.Search = None,
    seed: SettingsSeedOption = None,
    config: ConfigOption = None,
    text_column: flags.TextColumn = None,
    id_column: flags.IdColumn = None,
    query_column: of_records.QueryColumn = None,
    positive_column: of_records.PositiveColumn = None,
    negative_columns: of_records.NegativeColumns = None,
    min_score: of_records.MinScore = None,
    task: of_records.Task = None,
    precision: PrecisionOption = "auto",
    device: DeviceOption = "auto",
    max_tokens: flags.MaxTokens = None,
    query_prefix: flags.QueryPrefix = None,
    document_prefix: flags.DocumentPrefix = None,
    cache: flags.Cache = None,
    store: flags.Store = "float16",
    force: ForceOption = False,
    restart: flags.Restart = False,
    as_json: JsonOption = False,
) -> None:
    """Find hard negatives: documents near a query that are not its answer.

    The nearest documents of the corpus are taken whose score is under a margin of the positive's
    (TopK-PercPos): nearer ones are likely answers that nobody marked. A document with the text or
    id of a positive is never taken, and a record gets fewer negatives rather than a doubtful one.
    `OUTPUT.audit.html` and `OUTPUT.audit.json` show scores, what was dropped, and samples to read.

    Examples:

    - `polyvec mine pairs.jsonl --corpus corpus.jsonl -o train.jsonl`
    - `polyvec mine pairs.jsonl -t default -t st:intfloat/e5-mistral-7b-instruct -o train.jsonl`
    - `polyvec mine pairs.jsonl -t "http://127.0.0.1:11434?model=bge-m3" --margin abs
      --margin-value 0.1 -o train.jsonl`

    A run that was interrupted goes on where it stopped: give the same command again.
    """
    from polyvec.data.mining.settings import MineSettings  # this brings torch
    from polyvec.records.columns import Columns

    settings = settings_given(MineSettings, config, context)  # of the flags named like fields
    if output.exists() and not force:
        raise OutputError(f"{output} exists already; use --force to replace it, or another name.")
    options = {"precision": precision, "device": device, "max_tokens": max_tokens}
    options |= {"query_prefix": query_prefix, "document_prefix": document_prefix}
    where = (cache or cache_folder() / "vectors", store)
    columns = Columns(
        query=query_column,
        positive=positive_column,
        negatives=tuple(negative_columns or ()),
        min_score=min_score,
        task=task,
    )
    texts = _texts(inputs, columns, corpus, text_column, id_column)
    mined = _run(texts, teachers or ["default"], options, output, settings, where, restart)
    _finish(mined, output, as_json)


def _texts(
    inputs: list[Path],
    columns: "Columns",
    corpus: list[Path] | None,
    text_column: str | None,
    id_column: str | None,
) -> tuple[list["Record"], "Corpus"]:
    """Read the records, and find the documents that negatives come from."""
    from polyvec.data.mining.corpus import corpus_of_files, corpus_of_records
    from polyvec.records.read import load_records

    records = load_records(inputs, columns)
    if corpus:
        return records, corpus_of_files(corpus, text_column, id_column)
    return records, corpus_of_records(records)


def _run(
    texts: tuple[list["Record"], "Corpus"],
    teachers: list[str],
    options: dict[str, Any],
    output: Path,
    settings: "MineSettings",
    where: tuple[Path, str],
    restart: bool,
) -> "Mined":
    """Mine, with a bar for each stage."""
    from polyvec.data.mining.run import mine as run
    from polyvec.data.mining.vectors import VectorStore
    from polyvec.engine.cpu import pick_device
    from polyvec.engine.peers import open_peer

    openers = [partial(open_peer, name, **options) for name in teachers]
    vectors = VectorStore(where[0], where[1])  # type: ignore[arg-type]  # it checks the name
    device = str(pick_device(options["device"]))
    with _progress() as progress:
        return run(
            *texts,
            openers,
            output,
            settings,
            vectors,
            restart=restart,
            device=device,
            progress=progress,
        )


def _finish(mined: "Mined", output: Path, as_json: bool) -> None:
    audit, report = _write_audit(mined, output)
    if as_json:
        print_json({"output": str(output), "audit": str(audit), **report})
    else:
        _print(mined, output, audit)


def _write_audit(mined: "Mined", output: Path) -> tuple[Path, dict[str, Any]]:
    """Write what to read before training; return the JSON's place and what is in it."""
    from polyvec.data.mining.report import facts, page

    report = facts(mined)
    audit = output.with_name(f"{output.name}.audit.json")
    audit.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    audit.with_suffix(".html").write_text(page(mined), encoding="utf-8")
    return audit, report


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Give a callback for (stage, how many more, of how many), drawn as a bar a stage."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=MESSAGES, disable=not MESSAGES.is_terminal) as bars:
        tasks: dict[str, int] = {}

        def advance(stage: str, more: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.advance(tasks[stage], more)  # type: ignore[arg-type]

        yield advance


def _print(mined: "Mined", output: Path, audit: Path) -> None:
    from rich.table import Table

    from polyvec.data.mining.report import table

    console = results_console()
    grid = Table(box=None, show_header=False)
    grid.add_column(no_wrap=False)
    grid.add_column(justify="right")
    for name, value in table(mined):
        grid.add_row(name, value)
    console.print(grid, markup=False)
    cut = sum(teacher["cut_texts"] for teacher in mined.teachers)
    if cut:
        MESSAGES.print(f"[bold yellow]warning:[/] {cut:,} texts were cut at a teacher's limit.")
    console.print(
        f"\n{mined.written:,} records: {output}\nscores and samples to read: "
        f"{audit.with_suffix('.html')}",
        markup=False,
        soft_wrap=True,
    )
