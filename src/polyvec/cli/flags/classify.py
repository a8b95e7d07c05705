"""Options of ``polyvec classify train`` and ``polyvec classify apply``."""

from pathlib import Path
from typing import Annotated

import typer

from polyvec.cli.options import FILES_PANEL

LabelledFiles = Annotated[
    list[Path], typer.Argument(help="Labelled texts: .jsonl, .csv, .tsv or .parquet.")
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Save the classifier (.npz).", show_default=False),
]
Folds = Annotated[int, typer.Option("--folds", min=2, help="Of cross-validation.")]
Repeats = Annotated[
    int, typer.Option("--repeats", min=1, help="Times that texts are divided anew.")
]
Shots = Annotated[
    int | None,
    typer.Option("--shots", min=1, help="Judge by training on so many texts a label instead."),
]
Classifier = Annotated[Path, typer.Argument(help="What 'classify train' saved.")]
TrainedModel = Annotated[
    str | None,
    typer.Option("--model", "-m", help="[default: the one it was trained on]"),
]
LabelColumn = Annotated[
    str, typer.Option("--label-column", help="Column of labels.", rich_help_panel=FILES_PANEL)
]
