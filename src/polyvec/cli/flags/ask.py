"""Options of ``polyvec ask``."""

from typing import Annotated

import typer

from polyvec.cli.options import CHAT_PANEL

Question = Annotated[str, typer.Argument(help="In any language.", show_default=False)]
MaxAnswerTokens = Annotated[
    int,
    typer.Option(
        "--max-answer-tokens", help="A longer answer is cut there.", rich_help_panel=CHAT_PANEL
    ),
]
ChatTimeout = Annotated[
    float,
    typer.Option(
        "--chat-timeout",
        help="Seconds until the next words arrive.",
        rich_help_panel=CHAT_PANEL,
    ),
]
Passages = Annotated[int, typer.Option("--passages", help="Sent to the chat model, at most.")]
MinCosine = Annotated[
    float | None,
    typer.Option(
        "--min-cosine",
        help="How near the nearest passage must be; nothing is sent otherwise. -1: always ask. "
        "[default: 0.4, measured for the default model]",
        show_default=False,
    ),
]
