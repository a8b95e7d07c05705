"""Options of ``polyvec train``."""

from pathlib import Path
from typing import Annotated

import typer

Recipe = Annotated[Path, typer.Argument(help="A TOML file; docs/train.md has every key.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key, e.g. optimizer.lr=1e-5."),
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Another output folder.")]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Remove an earlier run of the output and begin anew.")
]
Estimate = Annotated[
    bool, typer.Option("--estimate", help="Say what time and memory it needs, and stop.")
]
Finish = Annotated[
    bool,
    typer.Option("--finish", help="Train no further: make a model of the newest checkpoint."),
]
