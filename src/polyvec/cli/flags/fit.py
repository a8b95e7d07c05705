"""Options of ``polyvec fit``."""

from pathlib import Path
from typing import Annotated

import typer

from polyvec.cli.options import memory_bytes
from polyvec.engine.plan import WeightsPlace
from polyvec.fit.plan import PRECISIONS

_LENGTH, _WHERE = "What is embedded", "Where"

Precision = Annotated[
    str | None,
    typer.Option("--precision", help=f"One of {', '.join(PRECISIONS)}.", show_default=False),
]
Weights = Annotated[
    WeightsPlace | None,
    typer.Option("--weights", help="resident, packed or streamed.", show_default=False),
]
Tokens = Annotated[
    float,
    typer.Option("--tokens", min=1, help="Of a text.", rich_help_panel=_LENGTH),
]
Texts = Annotated[int, typer.Option("--texts", min=1, help="How many.", rich_help_panel=_LENGTH)]
Corpus = Annotated[
    Path | None,
    typer.Option(
        "--corpus",
        help="Count the texts and tokens of a folder's documents or a file's rows instead; "
        "the model's tokenizer must be here.",
        rich_help_panel=_LENGTH,
        show_default=False,
    ),
]
Device = Annotated[
    list[str] | None,
    typer.Option("--device", help="Only these devices.", rich_help_panel=_WHERE),
]
Memory = Annotated[
    int | None,
    typer.Option(
        "--memory",
        parser=memory_bytes,
        metavar="SIZE",
        help="Take this machine as having so much, e.g. 16GB.",
        rich_help_panel=_WHERE,
    ),
]
ShowAll = Annotated[
    bool,
    typer.Option("--all", help="All devices, also those too small.", rich_help_panel=_WHERE),
]
Measure = Annotated[bool, typer.Option("--measure", help="Measure this machine's products again.")]
