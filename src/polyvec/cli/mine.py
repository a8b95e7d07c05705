"""``polyvec mine``: hard negatives for training records."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from polyvec.cli.options import MESSAGES, DeviceOption, JsonOption, PrecisionOption
from polyvec.cli.output import print_json, results_console
from polyvec.errors import OutputError
from polyvec.hub import cache_folder
from polyvec.settings import resolve_settings

if TYPE_CHECKING:
    from polyvec.data.mining.corpus import Corpus
    from polyvec.data.mining.run import Mined
    from polyvec.data.mining.settings import MineSettings
    from polyvec.records.record import Record

_TEACHER, _CHOICE = "Teachers", "Which documents become negatives"


def mine(
    inputs: Annotated[
        list[Path],
        typer.Argument(help="Records: .jsonl, .csv, .tsv, .parquet, or the corpus-id layout."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help=".jsonl or .jsonl.gz.")],
    corpus: Annotated[
        list[Path] | None,
        typer.Option(
            "--corpus",
            help="Documents to mine from: .txt (one a line), .jsonl, .csv, .tsv, .parquet; may be "
            "given several times. Otherwise the records' own positives and negatives.",
            show_default=False,
        ),
    ] = None,
    teachers: Annotated[
        list[str] | None,
        typer.Option(
            "--teacher",
            "-t",
            help="A model as elsewhere, st:NAME for one that sentence-transformers runs, or a "
            "server's address. Given several times, all of them must agree. [default: default]",
            show_default=False,
            rich_help_panel=_TEACHER,
        ),
    ] = None,
    negatives: Annotated[
        int | None,
        typer.Option(
            "--negatives", "-n", help="At most, a record. [default: 4]", show_default=False
        ),
    ] = None,
    margin: Annotated[
        str | None,
        typer.Option(
            "--margin",
            help="perc: a negative's score is under a share of the positive's; abs: under it by a "
            "difference. [default: perc]",
            show_default=False,
            rich_help_panel=_CHOICE,
        ),
    ] = None,
    margin_value: Annotated[
        float | None,
        typer.Option(
            "--margin-value",
            help="The share or the difference. [default: 0.95]",
            show_default=False,
            rich_help_panel=_CHOICE,
        ),
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(
            "--depth",
            help="How many of the nearest documents under the margin are looked at. [default: 100]",
            show_default=False,
            rich_help_panel=_CHOICE,
        ),
    ] = None,
    skip: Annotated[
        int | None,
        typer.Option(
            "--skip",
            help="Pass over so many of the nearest. [default: 0]",
            show_default=False,
            rich_help_panel=_CHOICE,
        ),
    ] = None,
    sampling: Annotated[
        str | None,
        typer.Option(
            "--sampling",
            help="top: the nearest; random: any of the depth. [default: top]",
            show_default=False,
            rich_help_panel=_CHOICE,
        ),
    ] = None,
    keep_negatives: Annotated[
        bool | None,
        typer.Option(
            "--keep-negatives",
            help="Keep the records' own negatives in front.",
            show_default=False,
            rich_help_panel=_CHOICE,
        ),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(
            "--search",
            help="exact, or approximate: a graph of neighbours, for many queries over a large "
            "corpus without a GPU (pip install 'polyvec[approximate]'). [default: exact]",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", show_default=False)] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="A TOML file of settings; flags win over it.")
    ] = None,
    text_column: Annotated[
        str | None, typer.Option("--text-column", help="The corpus's, if not text, contents, ...")
    ] = None,
    id_column: Annotated[
        str | None, typer.Option("--id-column", help="The corpus's, if not id, _id, docid.")
    ] = None,
    precision: PrecisionOption = "auto",
    device: DeviceOption = "auto",
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", help="Read fewer tokens of a text.", rich_help_panel=_TEACHER),
    ] = None,
    query_prefix: Annotated[
        str | None,
        typer.Option(
            "--query-prefix",
            help="For servers: written before queries; {instruction} in it is replaced.",
            rich_help_panel=_TEACHER,
        ),
    ] = None,
    document_prefix: Annotated[
        str | None,
        typer.Option(
            "--document-prefix",
            help="For servers: written before documents.",
            rich_help_panel=_TEACHER,
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option("--cache", help="Folder of vectors. [default: polyvec's cache]"),
    ] = None,
    store: Annotated[str, typer.Option("--store", help="Vectors as float16 or float32.")] = (
        "float16"
    ),
    force: Annotated[bool, typer.Option("--force", help="Replace an existing output.")] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw away what an interrupted run had chosen.")
    ] = False,
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

    flags: dict[str, object] = {"negatives": negatives, "margin": margin, "depth": depth}
    flags |= {
        "margin_value": margin_value,
        "skip": skip,
        "sampling": sampling,
        "seed": seed,
        "search": search,
        "keep_negatives": keep_negatives,
    }
    settings = resolve_settings(MineSettings, config, flags)
    if output.exists() and not force:
        raise OutputError(f"{output} exists already; use --force to replace it, or another name.")
    options = {
        "precision": precision,
        "device": device,
        "max_tokens": max_tokens,
        "query_prefix": query_prefix,
        "document_prefix": document_prefix,
    }
    where = (cache or cache_folder() / "vectors", store)
    texts = _texts(inputs, corpus, text_column, id_column)
    mined = _run(texts, teachers or ["default"], options, output, settings, where, restart)
    audit, report = _write_audit(mined, output)
    if as_json:
        print_json({"output": str(output), "audit": str(audit), **report})
    else:
        _print(mined, output, audit)


def _texts(
    inputs: list[Path], corpus: list[Path] | None, text_column: str | None, id_column: str | None
) -> tuple[list["Record"], "Corpus"]:
    """Read the records, and find the documents that negatives come from."""
    from polyvec.data.mining.corpus import corpus_of_files, corpus_of_records
    from polyvec.records.read import load_records

    records = load_records(inputs)
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
        f"\n{mined.records:,} records: {output}\nscores and samples to read: "
        f"{audit.with_suffix('.html')}",
        markup=False,
        soft_wrap=True,
    )
