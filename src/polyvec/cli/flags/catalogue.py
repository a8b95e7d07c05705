"""Options of ``polyvec catalogue``."""

from pathlib import Path
from typing import Annotated

import typer

Models = Annotated[
    list[str] | None,
    typer.Argument(
        help="Models, with or without their owner: one is shown, two or more are compared. "
        "Without any, all are listed.",
        show_default=False,
    ),
]
Html = Annotated[
    Path | None,
    typer.Option("--html", help="Write a page (.html) instead.", show_default=False),
]
