"""``polyvec embed``: texts, files or standard input to vectors."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import typer

from polyvec.cli.flags import embed as flags
from polyvec.cli.loading import ModelChoice, with_model
from polyvec.cli.options import (
    MESSAGES,
    ConfigOption,
    ForceOption,
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
from polyvec.engine.rows import Columns, Format, Row, check_readable, count_rows, read_rows
from polyvec.engine.shards import DEFAULT_SHARD_ROWS, ShardJob, Shards, job_of
from polyvec.engine.vectors import check_writable, json_line
from polyvec.errors import InputError
from polyvec.model.tokens import OnEmpty
from polyvec.records.table import STDIN
from polyvec.settings import resolve_settings

if TYPE_CHECKING:
    from polyvec.engine.embedder import Embedder

_STREAM_ROWS = 256
_SHOWN_NUMBERS = 6


@with_model
def embed(
    texts: flags.Texts = None,
    inputs: flags.Inputs = None,
    output: flags.Output = None,
    role: flags.TextRole = None,
    as_json: JsonOption = False,
    force: ForceOption = False,
    restart: flags.Restart = False,
    workers: flags.Workers = None,
    scheduler: flags.Scheduler = None,
    shard_rows: flags.ShardRows = DEFAULT_SHARD_ROWS,
    config: ConfigOption = None,
    choice: ModelChoice = ModelChoice(),  # noqa: B008 (never changed)
    instruction: InstructionOption = None,
    truncate: TruncateOption | None = None,
    on_empty: OnEmptyOption | None = None,
    dimensions: flags.Dimensions = None,
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
    given: dict[str, object] = {"role": role, "instruction": instruction, "truncate": truncate}
    given |= {"on_empty": on_empty, "dimensions": dimensions}
    settings = resolve_settings(BulkSettings, config, given)
    source = _Texts(_paths(texts, inputs), texts or [], Columns(text_column, id_column), format)
    check_readable(source.paths, format)
    _check_output(output, source.paths, force, as_json)
    if workers is not None or scheduler is not None:
        shared = _shared_output(source.paths, output, choice.memory, workers, scheduler)
        job, total = _job(settings, choice), source.count()
        shards = Shards(shared, job, shard_rows, restart)
        embed_shared(source.rows(settings.on_empty), shards, total, workers, scheduler, as_json)
        return
    embedder, rows, total = choice.load(), source.rows(settings.on_empty), source.count()
    if output is not None:
        _to_file(embedder, rows, output, settings, total, restart, as_json)
    elif as_json:
        _to_stdout(embedder, rows, settings)
    else:
        _to_people(embedder, list(rows), settings)


@dataclass(frozen=True)
class _Texts:
    """Where texts come from: files, or the arguments if there are none."""

    paths: list[Path]
    arguments: list[str]
    columns: Columns
    format: Format | None

    def rows(self, on_empty: OnEmpty) -> Iterator[Row]:
        """Read them, one after the other, and refuse one that cannot be embedded."""
        if self.paths:
            return checked(read_rows(self.paths, self.columns, self.format), on_empty)
        rows = (Row(text, n, f"argument {n + 1}") for n, text in enumerate(self.arguments))
        return checked(rows, on_empty)

    def count(self) -> int | None:
        """Return about how many there are; None where that is not cheap to know."""
        return count_rows(self.paths, self.format) if self.paths else len(self.arguments)


def _check_output(output: Path | None, paths: list[Path], force: bool, as_json: bool) -> None:
    if output is not None:
        check_writable(output, force)
    elif paths and not as_json:
        raise InputError(
            "Texts from a file or standard input need --output FILE for their vectors, or --json "
            "to print them."
        )


def _job(settings: BulkSettings, choice: ModelChoice) -> ShardJob:
    return job_of(
        settings,
        model=choice.model,
        precision=choice.precision,
        device=choice.device,
        weights=choice.weights,
        attention=choice.attention,
        pooling=choice.pooling,
        max_tokens=choice.max_tokens,
    )


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
