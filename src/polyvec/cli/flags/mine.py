"""Options of ``polyvec mine``."""

from pathlib import Path
from typing import Annotated

import typer

_TEACHER, _CHOICE = "Teachers", "Which documents become negatives"

Output = Annotated[Path, typer.Option("--output", "-o", help=".jsonl or .jsonl.gz.")]
Corpus = Annotated[
    list[Path] | None,
    typer.Option(
        "--corpus",
        help="Documents to mine from: .txt (one a line), .jsonl, .csv, .tsv, .parquet; may be "
        "given several times. Otherwise the records' own positives and negatives.",
        show_default=False,
    ),
]
Teachers = Annotated[
    list[str] | None,
    typer.Option(
        "--teacher",
        "-t",
        help="A model as elsewhere, st:NAME for one that sentence-transformers runs, or a "
        "server's address. Given several times, all of them must agree. [default: default]",
        show_default=False,
        rich_help_panel=_TEACHER,
    ),
]
Negatives = Annotated[
    int | None,
    typer.Option("--negatives", "-n", help="At most, a record. [default: 4]", show_default=False),
]
Margin = Annotated[
    str | None,
    typer.Option(
        "--margin",
        help="perc: a negative's score is under a share of the positive's; abs: under it by a "
        "difference. [default: perc]",
        show_default=False,
        rich_help_panel=_CHOICE,
    ),
]
MarginValue = Annotated[
    float | None,
    typer.Option(
        "--margin-value",
        help="The share or the difference. [default: 0.95]",
        show_default=False,
        rich_help_panel=_CHOICE,
    ),
]
Depth = Annotated[
    int | None,
    typer.Option(
        "--depth",
        help="How many of the nearest documents under the margin are looked at. [default: 100]",
        show_default=False,
        rich_help_panel=_CHOICE,
    ),
]
Skip = Annotated[
    int | None,
    typer.Option(
        "--skip",
        help="Pass over so many of the nearest. [default: 0]",
        show_default=False,
        rich_help_panel=_CHOICE,
    ),
]
Sampling = Annotated[
    str | None,
    typer.Option(
        "--sampling",
        help="top: the nearest; random: any of the depth. [default: top]",
        show_default=False,
        rich_help_panel=_CHOICE,
    ),
]
KeepNegatives = Annotated[
    bool | None,
    typer.Option(
        "--keep-negatives",
        help="Keep the records' own negatives in front.",
        show_default=False,
        rich_help_panel=_CHOICE,
    ),
]
DropWithoutNegatives = Annotated[
    bool | None,
    typer.Option(
        "--drop-without-negatives",
        help="Leave out records that end without any negative, and say how many.",
        show_default=False,
        rich_help_panel=_CHOICE,
    ),
]
Search = Annotated[
    str | None,
    typer.Option(
        "--search",
        help="exact, or approximate: a graph of neighbours, for many queries over a large "
        "corpus without a GPU (pip install 'polyvec[approximate]'). [default: exact]",
        show_default=False,
    ),
]
TextColumn = Annotated[
    str | None, typer.Option("--text-column", help="The corpus's, if not text, contents, ...")
]
IdColumn = Annotated[
    str | None, typer.Option("--id-column", help="The corpus's, if not id, _id, docid.")
]
MaxTokens = Annotated[
    int | None,
    typer.Option("--max-tokens", help="Read fewer tokens of a text.", rich_help_panel=_TEACHER),
]
QueryPrefix = Annotated[
    str | None,
    typer.Option(
        "--query-prefix",
        help="For servers: written before queries; {instruction} in it is replaced.",
        rich_help_panel=_TEACHER,
    ),
]
DocumentPrefix = Annotated[
    str | None,
    typer.Option(
        "--document-prefix",
        help="For servers: written before documents.",
        rich_help_panel=_TEACHER,
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option("--cache", help="Folder of vectors. [default: polyvec's cache]"),
]
Store = Annotated[str, typer.Option("--store", help="Vectors as float16 or float32.")]
Restart = Annotated[
    bool, typer.Option("--restart", help="Throw away what an interrupted run had chosen.")
]
