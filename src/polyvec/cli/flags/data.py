"""Options of ``polyvec data``; ``polyvec mine`` has those of columns too."""

from pathlib import Path
from typing import Annotated, Literal

import typer

TaskName = Literal["retrieval", "classification", "sts", "bitext"]
_COLUMNS = "Columns, where they have other names than usual"

TestFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--test",
        help="Records or texts (.txt, or rows with a 'text') that must not be in them.",
        show_default=False,
    ),
]
TokensOf = Annotated[
    str, typer.Option("--model", "-m", help="Whose tokens are counted; none: characters.")
]
MaxTokens = Annotated[int, typer.Option("--max-tokens", min=1, help="Longer texts are counted.")]
NoLanguages = Annotated[
    bool, typer.Option("--no-languages", help="Find scripts, but guess no languages.")
]
QueryColumn = Annotated[str | None, typer.Option("--query-column", rich_help_panel=_COLUMNS)]
PositiveColumn = Annotated[str | None, typer.Option("--positive-column", rich_help_panel=_COLUMNS)]
NegativeColumns = Annotated[
    list[str] | None, typer.Option("--negative-column", rich_help_panel=_COLUMNS)
]
LabelColumn = Annotated[str | None, typer.Option("--label-column", rich_help_panel=_COLUMNS)]
MinScore = Annotated[
    float | None,
    typer.Option("--min-score", help="Of scored pairs.", rich_help_panel=_COLUMNS),
]
Task = Annotated[TaskName | None, typer.Option("--task", help="Of rows that do not say theirs.")]
Subset = Annotated[
    str,
    typer.Argument(
        help="A folder of queries.parquet, corpus.parquet and source_config.json, or "
        "hf:ORG/NAME/SUBSET."
    ),
]
RestoredFolder = Annotated[Path, typer.Argument(help="The folder to make.")]
TextsSource = Annotated[
    Path | None,
    typer.Option(
        "--source",
        help="A folder with the texts' own data set, where the Hub cannot be asked.",
        show_default=False,
    ),
]
