"""``polyvec embed --workers`` and ``--scheduler``: a file of texts shared among processes."""

from collections.abc import Iterator
from pathlib import Path

import typer

from polyvec.cli.options import MESSAGES
from polyvec.cli.output import bulk_sentence, print_json, warn_of_cuts
from polyvec.engine.cluster import embed_over, local_cluster, scheduler_at
from polyvec.engine.progress import progress_bar
from polyvec.engine.rows import Row
from polyvec.engine.shards import Shards


def embed_shared(
    rows: Iterator[Row],
    shards: Shards,
    total: int | None,
    workers: int | None,
    scheduler: str | None,
    as_json: bool,
) -> None:
    """Embed rows on processes of this machine, or on a scheduler's workers."""
    if scheduler is not None:
        cluster = scheduler_at(scheduler)
    else:
        cluster = local_cluster(1 if workers is None else workers)
    where = f"{workers} processes" if scheduler is None else f"the workers of {scheduler}"
    job, output = shards.job, shards.output
    MESSAGES.print(f"[dim]{job.model} ({job.precision}) on {where}[/]")
    try:
        with cluster as client, progress_bar(total) as progress:
            report, is_uniform = embed_over(client, rows, shards, progress)
    except KeyboardInterrupt:
        MESSAGES.print(f"Interrupted. Give the same command again to go on with {output}.")
        raise typer.Exit(130) from None
    _tell(shards, is_uniform, output)
    warn_of_cuts(report.cut, report.rows, shards.max_tokens, job.settings.truncate)
    if as_json:
        print_json({"output": str(output), **report.facts()})
    else:
        typer.echo(bulk_sentence(report, output))


def _tell(shards: Shards, is_uniform: bool, output: Path) -> None:
    if shards.redone:
        MESSAGES.print(
            f"[bold yellow]warning:[/] the texts of {shards.redone:,} shards are others than in "
            "the interrupted run; those shards were embedded anew."
        )
    if not is_uniform:
        MESSAGES.print(
            "[bold yellow]warning:[/] the workers have different processors or versions of torch "
            f"({output}.json lists them), so vectors may differ in their last bits from one "
            "machine's."
        )
