"""Options of ``polyvec merge``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Models = Annotated[
    list[str],
    typer.Argument(help="Checkpoints of one model: folders, .gguf files, LoRA adapters."),
]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="The folder to make.", show_default=False)
]
Weights = Annotated[
    str | None,
    typer.Option("--weights", help="What each counts, e.g. 2,1,1; otherwise all the same."),
]
Method = Annotated[
    Literal["average", "greedy", "search"],
    typer.Option(
        "--method",
        help="greedy: add models, best first, while the held-out score does not fall. search: "
        "find what each counts.",
    ),
]
HeldOut = Annotated[
    list[Path] | None,
    typer.Option("--held-out", help="Records that greedy and search choose by."),
]
Test = Annotated[
    list[Path] | None,
    typer.Option("--test", help="Other records, to report what the choice is worth."),
]
MaxEvaluations = Annotated[
    int, typer.Option("--max-evaluations", min=1, help="Averages that a search tries.")
]
Base = Annotated[
    str | None,
    typer.Option("--base", help="The model that adapters change; otherwise as they call it."),
]
TypeName = Annotated[
    str | None,
    typer.Option("--type", help="F32, F16 or BF16; otherwise as the models have it."),
]
Compare = Annotated[
    bool,
    typer.Option(
        "--compare/--no-compare",
        help="Read the result back and embed a few texts with it and every model.",
    ),
]
