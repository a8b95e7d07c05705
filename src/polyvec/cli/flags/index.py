"""Options of ``polyvec index``."""

from pathlib import Path
from typing import Annotated

import typer

from polyvec.cli.options import INDEX_PANEL, MODEL_PANEL

_READING = "What is read"

Folder = Annotated[
    Path | None,
    typer.Argument(help="The folder. [default: the current one]", show_default=False),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="Alias, folder, .gguf file, hf:org/name or pypi:package. [default: the index's "
        "own, else 'default']",
        show_default=False,
        rich_help_panel=MODEL_PANEL,
    ),
]
Index = Annotated[
    str | None,
    typer.Option(
        "--index",
        help="Where the index is kept: a folder or s3://bucket/prefix. [default: a place of "
        "this folder's own in the user's data folder]",
        show_default=False,
        rich_help_panel=INDEX_PANEL,
    ),
]
Status = Annotated[bool, typer.Option("--status", help="Say what is in the index; change nothing.")]
Watch = Annotated[
    bool, typer.Option("--watch", help="Go on, and follow changes until interrupted.")
]
Migrate = Annotated[
    bool,
    typer.Option(
        "--migrate",
        help="Change the index's model, chunk sizes or folder to those given.",
        rich_help_panel=INDEX_PANEL,
    ),
]
Source = Annotated[
    str | None,
    typer.Option(
        "--source",
        metavar="NAME",
        help="The folder's name in an index of several folders; paths begin with it. [default: in "
        "an object store the name it had before, else the folder's own; elsewhere the index is of "
        "one folder]",
        show_default=False,
        rich_help_panel=INDEX_PANEL,
    ),
]
ForgetSource = Annotated[
    bool,
    typer.Option(
        "--forget",
        help="Take the folder --source names out of the index, and index nothing.",
        rich_help_panel=INDEX_PANEL,
    ),
]
ChunkTokens = Annotated[
    int | None,
    typer.Option(
        "--chunk-tokens",
        help="Tokens of a chunk at most. [default: 400]",
        show_default=False,
        rich_help_panel=INDEX_PANEL,
    ),
]
OverlapTokens = Annotated[
    int | None,
    typer.Option(
        "--overlap-tokens",
        help="Tokens that chunks of one paragraph share. [default: 50]",
        show_default=False,
        rich_help_panel=INDEX_PANEL,
    ),
]
Hidden = Annotated[
    bool,
    typer.Option("--hidden", help="Read .hidden files too.", rich_help_panel=_READING),
]
NoIgnore = Annotated[
    bool,
    typer.Option(
        "--no-ignore",
        help="Do not obey .gitignore and .polyvecignore.",
        rich_help_panel=_READING,
    ),
]
Retry = Annotated[
    bool,
    typer.Option(
        "--retry", help="Try unchanged files again that failed.", rich_help_panel=_READING
    ),
]
MaxFileMb = Annotated[
    int,
    typer.Option("--max-file-mb", help="Larger files are only listed.", rich_help_panel=_READING),
]
ReadTimeout = Annotated[
    float,
    typer.Option("--read-timeout", help="Seconds to read one file.", rich_help_panel=_READING),
]
