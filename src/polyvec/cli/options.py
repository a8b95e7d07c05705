"""Options that several commands share."""

from typing import Annotated

import typer
from rich.console import Console

from polyvec.engine.rows import Format
from polyvec.model.tokens import OnEmpty, Truncate
from polyvec.spec import Attention, Pooling

MESSAGES = Console(stderr=True, highlight=False, soft_wrap=True)
"""Where everything goes that is not the result: progress, warnings, errors."""

_MODEL, _READING, _FILES = "Model", "How texts are read", "Input files"

ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="Alias, folder, .gguf file, hf:org/name or pypi:package.",
        rich_help_panel=_MODEL,
    ),
]
PrecisionOption = Annotated[
    str,
    typer.Option("--precision", help="auto, fp32, bf16 or int8.", rich_help_panel=_MODEL),
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, ...", rich_help_panel=_MODEL)
]
AttentionOption = Annotated[
    Attention | None,
    typer.Option("--attention", help="Where the model's files do not say.", rich_help_panel=_MODEL),
]
PoolingOption = Annotated[
    Pooling | None,
    typer.Option("--pooling", help="Where the model's files do not say.", rich_help_panel=_MODEL),
]
MaxTokensOption = Annotated[
    int | None,
    typer.Option(
        "--max-tokens",
        help="Read fewer tokens of a text than the model can.",
        rich_help_panel=_MODEL,
    ),
]
InstructionOption = Annotated[
    str | None,
    typer.Option(
        "--instruction",
        help="The task of the queries in a sentence; otherwise the model's own.",
        rich_help_panel=_READING,
    ),
]
TruncateOption = Annotated[
    Truncate,
    typer.Option(
        "--truncate",
        help="Where a text that is too long is cut, or 'error' to refuse it.",
        rich_help_panel=_READING,
    ),
]
OnEmptyOption = Annotated[
    OnEmpty,
    typer.Option(
        "--on-empty", help="Refuse empty texts, or give them zeros.", rich_help_panel=_READING
    ),
]
TextColumnOption = Annotated[
    str,
    typer.Option("--text-column", help="JSONL, CSV, TSV, Parquet.", rich_help_panel=_FILES),
]
IdColumnOption = Annotated[
    str | None,
    typer.Option("--id-column", help="Otherwise ids are row numbers.", rich_help_panel=_FILES),
]
FormatOption = Annotated[
    Format | None,
    typer.Option("--format", help="Where a file's ending does not say.", rich_help_panel=_FILES),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
