"""``polyvec embed``: texts, files or standard input to vectors."""

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from polyvec.cli.loading import ModelChoice, with_model
from polyvec.cli.options import (
    MESSAGES,
    FormatOption,
    IdColumnOption,
    InstructionOption,
    JsonOption,
    OnEmptyOption,
    TextColumnOption,
    TruncateOption,
)
from polyvec.cli.output import bulk_sentence, print_json, warn_of_cuts
from polyvec.cli.shared import embed_shared
from polyvec.engine.bulk import BulkSettings, checked, embed_rows
from polyvec.engine.plan import WINDOW_TEXTS
from polyvec.engine.progress import progress_bar
from polyvec.engine.rows import Columns, Row, check_readable, count_rows, read_rows
from polyvec.engine.shards import DEFAULT_SHARD_ROWS, Shards, job_of
from polyvec.engine.vectors import check_writable, json_line
from polyvec.errors import InputError
from polyvec.records.table import STDIN
from polyvec.settings import resolve_settings
from polyvec.spec import Role

if TYPE_CHECKING:
    from polyvec.engine.embedder import Embedder

_STREAM_ROWS = 256
_SHOWN_NUMBERS = 6


@with_model
def embed(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts.", show_default=False)] = None,
    inputs: Annotated[
        list[Path] | None,
        typer.Option(
            "--input",
            "-i",
            help="A file: .txt (a text a line), .jsonl, .csv, .tsv, .parquet, or any of them .gz; "
            "- is standard input. May be given several times.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help=".npy, .jsonl or .parquet.", show_default=False),
    ] = None,
    role: Annotated[
        Role | None, typer.Option("--role", help="[default: document]", show_default=False)
    ] = None,
    as_json: JsonOption = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing output.")] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw away what an interrupted run had done.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            help="Share the work among so many processes here, which share the cores.",
            show_default=False,
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            metavar="HOST:PORT",
            help="Share the work among the workers of a Dask scheduler; all machines need the "
            "output's folder.",
            show_default=False,
        ),
    ] = None,
    shard_rows: Annotated[
        int,
        typer.Option(
            "--shard-rows",
            min=1,
            help="Texts a worker takes at a time, and has to do again if it is killed; rounded up "
            "to a multiple of 2,048, less for large models.",
        ),
    ] = DEFAULT_SHARD_ROWS,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="A TOML file of settings; flags win over it."),
    ] = None,
    choice: ModelChoice = ModelChoice(),  # noqa: B008 (never changed)
    instruction: InstructionOption = None,
    truncate: TruncateOption | None = None,
    on_empty: OnEmptyOption | None = None,
    dimensions: Annotated[
        int | None, typer.Option("--dimensions", help="A shorter length, for Matryoshka models.")
    ] = None,
    text_column: TextColumnOption = "text",
    id_column: IdColumnOption = None,
    format: FormatOption = None,  # noqa: A002 (the option's name)
) -> None:
    """Turn texts into vectors.

    Texts come as arguments, from files (`--input`), or from standard input.

    Examples:

    - `polyvec embed "Guten Morgen" "おはよう"`
    - `polyvec embed --role query "Where is Paris?" --json`
    - `polyvec embed --input corpus.jsonl --text-column body --id-column id --output corpus.parquet`
    - `zcat lines.txt.gz | polyvec embed --output lines.npy`

    A long run that was interrupted goes on where it stopped: give the same command again. With
    `--workers` or `--scheduler` the file has the same bytes as without.
    """
    flags: dict[str, object] = {"role": role, "instruction": instruction, "truncate": truncate}
    flags |= {"on_empty": on_empty, "dimensions": dimensions}
    settings = resolve_settings(BulkSettings, config, flags)
    columns = Columns(text_column, id_column)
    paths = _paths(texts, inputs)
    check_readable(paths, format)
    if output is not None:
        check_writable(output, force)
    elif paths and not as_json:
        raise InputError(
            "Texts from a file or standard input need --output FILE for their vectors, or --json "
            "to print them."
        )
    if workers is not None or scheduler is not None:
        shared = _shared_output(paths, output, choice.memory, workers, scheduler)
        job = job_of(
            settings,
            model=choice.model,
            precision=choice.precision,
            device=choice.device,
            weights=choice.weights,
            attention=choice.attention,
            pooling=choice.pooling,
            max_tokens=choice.max_tokens,
        )
        rows = checked(read_rows(paths, columns, format), settings.on_empty)
        total = count_rows(paths, format)
        shards = Shards(shared, job, shard_rows, restart)
        embed_shared(rows, shards, total, workers, scheduler, as_json)
        return
    embedder = choice.load()
    rows = read_rows(paths, columns, format) if paths else _rows_of(texts or [])
    rows = checked(rows, settings.on_empty)
    total = count_rows(paths, format) if paths else len(texts or [])
    if output is not None:
        _to_file(embedder, rows, output, settings, total, restart, as_json)
    elif as_json:
        _to_stdout(embedder, rows, settings)
    else:
        _to_people(embedder, list(rows), settings)


def _paths(texts: list[str] | None, inputs: list[Path] | None) -> list[Path]:
    if texts and inputs:
        raise InputError("Give texts as arguments or files with --input, not both.")
    if texts or inputs:
        return inputs or []
    if sys.stdin.isatty():
        raise InputError(
            "Nothing to embed. Give texts as arguments, files with --input, or pipe lines in."
        )
    return [STDIN]


def _shared_output(
    paths: list[Path],
    output: Path | None,
    memory: int | None,
    workers: int | None,
    scheduler: str | None,
) -> Path:
    """Return the output, refusing what does not go with several processes."""
    if workers is not None and scheduler is not None:
        raise InputError("Give --workers for processes here or --scheduler for others, not both.")
    if not paths or output is None:
        raise InputError("--workers and --scheduler need --input FILE and --output FILE.")
    if memory is not None:
        raise InputError(
            "--memory is of one process, and does not go with --workers or --scheduler: what fits "
            "would differ between them, and so would the last bits. Use --weights instead."
        )
    return output


def _rows_of(texts: list[str]) -> Iterator[Row]:
    return (Row(text, n, f"argument {n + 1}") for n, text in enumerate(texts))


def _to_file(
    embedder: "Embedder",
    rows: Iterator[Row],
    output: Path,
    settings: BulkSettings,
    total: int | None,
    restart: bool,
    as_json: bool,
) -> None:
    try:
        with progress_bar(total) as progress:
            report = embed_rows(
                embedder, rows, output, settings, restart=restart, progress=progress
            )
    except KeyboardInterrupt:
        MESSAGES.print(f"Interrupted. Give the same command again to go on with {output}.")
        raise typer.Exit(130) from None
    warn_of_cuts(report.cut, report.rows, embedder.spec.max_tokens, settings.truncate)
    if as_json:
        print_json({"output": str(output), **report.facts()})
    else:
        typer.echo(bulk_sentence(report, output))


def _to_stdout(embedder: "Embedder", rows: Iterator[Row], settings: BulkSettings) -> None:
    """Print a JSON line a text, as soon as its batch is done."""
    # A layer that is read or expanded anew should serve as many texts as there are.
    count = _STREAM_ROWS if embedder.runner.is_resident else WINDOW_TEXTS
    while chunk := list(islice(rows, count)):
        embedding = embedder.embed([row.text for row in chunk], **settings.arguments())
        for row, vector in zip(chunk, embedding.vectors, strict=True):
            sys.stdout.buffer.write(json_line(row.id, vector))
        sys.stdout.buffer.flush()
        cut = len(embedding.cut)
        warn_of_cuts(cut, len(chunk), embedder.spec.max_tokens, settings.truncate)


def _to_people(embedder: "Embedder", rows: list[Row], settings: BulkSettings) -> None:
    embedding = embedder.embed([row.text for row in rows], **settings.arguments())
    warn_of_cuts(len(embedding.cut), len(rows), embedder.spec.max_tokens, settings.truncate)
    for row, vector, count in zip(rows, embedding.vectors, embedding.token_counts, strict=True):
        start = " ".join(f"{x:+.4f}" for x in vector[:_SHOWN_NUMBERS])
        typer.echo(
            f"{row.text}\n  {count} tokens, {len(vector)} numbers, length "
            f"{np.linalg.norm(vector):.4f}: {start} ..."
        )
    MESSAGES.print("[dim]All numbers: --json, or --output FILE.npy[/]")
