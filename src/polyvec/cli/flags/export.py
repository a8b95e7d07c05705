"""Options of ``polyvec export``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Output = Annotated[Path, typer.Argument(help="The folder or .gguf file to make.")]
To = Annotated[
    Literal["folder", "gguf"] | None,
    typer.Option("--to", help="What to make; otherwise the ending of OUTPUT says it."),
]
TypeName = Annotated[
    str | None,
    typer.Option(
        "--type",
        help="folder: F32, F16, BF16 (otherwise as the model has it). gguf: those and Q8_0 "
        "(otherwise this), Q6_K, Q5_K_M, Q4_K_M, Q4_0.",
    ),
]
