"""Options of ``polyvec similarity``."""

from pathlib import Path
from typing import Annotated

import typer

Texts = Annotated[
    list[str] | None, typer.Argument(help="A query, then documents.", show_default=False)
]
Queries = Annotated[Path | None, typer.Option("--queries", "-q", help="A file of queries.")]
Documents = Annotated[Path | None, typer.Option("--documents", "-d", help="A file of documents.")]
TopK = Annotated[int, typer.Option("--top-k", "-k", min=1, help="Nearest documents shown a query.")]
RelevantColumn = Annotated[
    str | None,
    typer.Option(
        "--relevant-column",
        help="Column of the queries with the id of the document each should find: counts how "
        "many are found.",
    ),
]
