"""Options of ``polyvec report``."""

from pathlib import Path
from typing import Annotated

import typer

Results = Annotated[
    list[Path],
    typer.Argument(
        help="Results of 'polyvec evaluate': .result.json files, folders of them, or folders "
        "in mteb's own layout (model/revision/Task.json)."
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="The page to write (.html).")]
Png = Annotated[
    Path | None,
    typer.Option("--png", help="Also a folder for the charts as PNG.", show_default=False),
]
Baseline = Annotated[
    str | None,
    typer.Option("--baseline", help="The model that others are compared with."),
]
