"""Options of ``polyvec embed``."""

from pathlib import Path
from typing import Annotated

import typer

from polyvec.spec import Role

Texts = Annotated[list[str] | None, typer.Argument(help="Texts.", show_default=False)]
Inputs = Annotated[
    list[Path] | None,
    typer.Option(
        "--input",
        "-i",
        help="A file: .txt (a text a line), .jsonl, .csv, .tsv, .parquet, or any of them .gz; "
        "- is standard input. May be given several times.",
        show_default=False,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help=".npy, .jsonl or .parquet.", show_default=False),
]
TextRole = Annotated[
    Role | None, typer.Option("--role", help="[default: document]", show_default=False)
]
Restart = Annotated[
    bool, typer.Option("--restart", help="Throw away what an interrupted run had done.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        help="Share the work among so many processes here, which share the cores.",
        show_default=False,
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="HOST:PORT",
        help="Share the work among the workers of a Dask scheduler; all machines need the "
        "output's folder.",
        show_default=False,
    ),
]
ShardRows = Annotated[
    int,
    typer.Option(
        "--shard-rows",
        min=1,
        help="Texts a worker takes at a time, and has to do again if it is killed; rounded up "
        "to a multiple of 2,048, less for large models.",
    ),
]
Dimensions = Annotated[
    int | None, typer.Option("--dimensions", help="A shorter length, for Matryoshka models.")
]
