"""Options of ``polyvec rank``."""

from pathlib import Path
from typing import Annotated

import typer

Query = Annotated[str, typer.Argument(help="What to look for.")]
Files = Annotated[
    list[Path],
    typer.Argument(
        help="Texts: .txt (one a line), .jsonl, .csv, .tsv, .parquet, or any of them .gz; "
        "- is standard input.",
        show_default=False,
    ),
]
TopK = Annotated[int, typer.Option("--top-k", "-k", min=0, help="Texts shown; 0 shows all.")]
MinSimilarity = Annotated[
    float, typer.Option("--min-similarity", min=-1, max=1, help="Leave out less near ones.")
]
