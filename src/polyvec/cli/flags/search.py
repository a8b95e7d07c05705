"""Options of ``polyvec search``."""

from typing import Annotated

import typer

_RANKING = "Ranking"

Query = Annotated[
    str | None,
    typer.Argument(help="In any language. It may be left out with --ui.", show_default=False),
]
Ui = Annotated[
    bool, typer.Option("--ui", help="Search, read and ask in the terminal, by keyboard.")
]
TopK = Annotated[
    int,
    typer.Option("--top-k", "-k", help="Passages, or documents where they are grouped."),
]
Mode = Annotated[
    str,
    typer.Option(
        "--mode",
        help="dense: by meaning, in all languages. text: by words (BM25), no model needed. "
        "hybrid: both, fused by rank.",
        rich_help_panel=_RANKING,
    ),
]
Diversity = Annotated[
    float,
    typer.Option(
        "--diversity",
        help="0 to 1: prefer passages unlike those above them (MMR).",
        rich_help_panel=_RANKING,
    ),
]
PerDocument = Annotated[
    int,
    typer.Option(
        "--per-document",
        help="Group by document, with so many passages of each at most.",
        rich_help_panel=_RANKING,
    ),
]
Candidates = Annotated[
    int,
    typer.Option(
        "--candidates",
        help="Passages of each ranking that are fused.",
        rich_help_panel=_RANKING,
    ),
]
Explain = Annotated[bool, typer.Option("--explain", help="Say why each is where it is.")]
