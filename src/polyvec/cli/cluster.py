"""``polyvec cluster``: group texts that are alike, and show what each group is about."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import orjson
from rich.text import Text

from polyvec.cli.classify import (
    embedded,
    opened,
    reading_of,
    rows_from,
)
from polyvec.cli.flags import cluster as flags
from polyvec.cli.options import (
    MESSAGES,
    DeviceOption,
    ForceOption,
    FormatOption,
    IdColumnOption,
    InstructionOption,
    JsonOption,
    MaxTokensOption,
    ModelOption,
    PrecisionOption,
    RoleOption,
    SeedOption,
    TextColumnOption,
    TextFilesArgument,
)
from polyvec.cli.output import print_json, results_console
from polyvec.engine.rows import Columns, Row
from polyvec.errors import InputError
from polyvec.spec import check_choice

if TYPE_CHECKING:
    from polyvec.evaluate.clusters import Clustering, Method


def cluster(
    files: TextFilesArgument,
    method: flags.Method = "kmeans",
    clusters: flags.Clusters = None,
    min_size: flags.MinSize = 5,
    representatives: flags.Representatives = 3,
    label_column: flags.LabelColumn = None,
    output: flags.Output = None,
    seed: SeedOption = 0,
    force: ForceOption = False,
    as_json: JsonOption = False,
    model: ModelOption = "default",
    precision: PrecisionOption = "auto",
    device: DeviceOption = "auto",
    max_tokens: MaxTokensOption = None,
    role: RoleOption = None,
    instruction: InstructionOption = None,
    text_column: TextColumnOption = "text",
    id_column: IdColumnOption = None,
    format: FormatOption = None,  # noqa: A002 (the option's name)
) -> None:
    """Group texts by likeness and show the texts nearest to each group's centre.

    With `--label-column` the groups are compared with known labels: V-measure, homogeneity,
    completeness, adjusted Rand index.

    Examples:

    - `polyvec cluster reviews.jsonl --text-column body`
    - `polyvec cluster news.csv --clusters 12 --label-column topic -o groups.jsonl`
    - `polyvec cluster tickets.txt --method hdbscan --min-size 10`
    """
    from polyvec.evaluate.clusters import Method, cluster_texts
    from polyvec.evaluate.labelled import labels_of

    check_choice("--method", method, Method)
    if output is not None and output.exists() and not force:
        raise InputError(f"{output} exists already; use --force to replace it, or another name.")
    rows = rows_from(files, Columns(text_column, id_column, label_column), format)
    labels = None if label_column is None else labels_of(rows)
    peer = opened(model, precision, device, max_tokens)
    found = cluster_texts(
        embedded(rows, peer, reading_of(role, instruction)),
        cast("Method", method),
        count=clusters,
        min_size=min_size,
        labels=labels,
        shown=representatives,
        seed=seed,
    )
    if output is not None:
        _write(output, rows, found)
    if as_json:
        print_json(_facts(rows, found))
    else:
        _print(rows, found)
        if output is not None:
            MESSAGES.print(f"[dim]Clusters: {output}[/]")


def _write(output: Path, rows: Sequence[Row], found: "Clustering") -> None:
    from polyvec.evaluate.results import write_file

    lines = [
        orjson.dumps({"id": row.id, "cluster": number}, option=orjson.OPT_APPEND_NEWLINE)
        for row, number in zip(rows, found.clusters, strict=True)
    ]
    write_file(output, b"".join(lines))


def _facts(rows: Sequence[Row], found: "Clustering") -> dict[str, Any]:
    groups = [
        {
            "cluster": number,
            "size": size,
            "representatives": [{"id": rows[n].id, "text": rows[n].text} for n in shown],
        }
        for number, (size, shown) in enumerate(zip(found.sizes, found.representatives, strict=True))
    ]
    members = [{"id": row.id, "cluster": n} for row, n in zip(rows, found.clusters, strict=True)]
    return {
        "clusters": groups,
        "members": members,
        "silhouette": found.silhouette,
        "agreement": found.agreement,
    }


def _print(rows: Sequence[Row], found: "Clustering") -> None:
    console = results_console()
    for number, (size, shown) in enumerate(zip(found.sizes, found.representatives, strict=True)):
        console.print(f"[bold]cluster {number}[/], {size:,} texts")
        for place in shown:
            text = " ".join(rows[place].text.split())
            line = Text(f"  {rows[place].id}  {text}", no_wrap=True, overflow="ellipsis")
            console.print(line)
    alone = sum(cluster < 0 for cluster in found.clusters)
    if alone:
        console.print(f"{alone:,} texts belong to no cluster")
    if found.silhouette is not None:
        console.print(f"\nsilhouette {found.silhouette:.3f}")
    for name, score in found.agreement.items():
        console.print(f"{name.replace('_', ' ')} {score:.3f}")
