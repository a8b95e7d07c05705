"""Options of ``polyvec cluster``."""

from pathlib import Path
from typing import Annotated

import typer

Method = Annotated[str, typer.Option("--method", help="kmeans, agglomerative or hdbscan.")]
Clusters = Annotated[
    int | None,
    typer.Option(
        "--clusters",
        "-n",
        min=2,
        help="How many. [default: the number up to 20 that separates best]",
        show_default=False,
    ),
]
MinSize = Annotated[int, typer.Option("--min-size", min=2, help="hdbscan's smallest cluster.")]
Representatives = Annotated[
    int, typer.Option("--representatives", min=1, help="Texts shown a cluster.")
]
LabelColumn = Annotated[
    str | None,
    typer.Option("--label-column", help="Known labels, to compare the clusters with."),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Write id and cluster of every text (.jsonl).",
        show_default=False,
    ),
]
