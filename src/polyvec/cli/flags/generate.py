"""Options of ``polyvec generate``."""

from pathlib import Path
from typing import Annotated

import typer

_WHO, _WHAT, _CHECKS = "Who writes", "What is written", "What is kept"

Kind = Annotated[
    str | None,
    typer.Argument(
        help="retrieval, classification, sts, bitext: from nothing, in two steps. questions: "
        "over --input passages. translate: --input records.",
        show_default=False,
    ),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help=".jsonl or .jsonl.gz.", show_default=False)
]
Endpoints = Annotated[
    list[str] | None,
    typer.Option(
        "--endpoint",
        "-e",
        help="http://host:port/v1?model=NAME, several mix; more after &: weight, api_key_env, "
        "max_concurrent, max_requests_per_minute, max_answer_tokens, temperature, timeout_s, "
        "max_retries, backoff_s, prompt_price, answer_price, response_format.",
        show_default=False,
        rich_help_panel=_WHO,
    ),
]
Count = Annotated[
    int | None, typer.Option("--count", "-n", help="Records to keep.", show_default=False)
]
Languages = Annotated[
    list[str] | None,
    typer.Option(
        "--language",
        "-l",
        help="As a reader would name it; several take turns. [default: English]",
        show_default=False,
        rich_help_panel=_WHAT,
    ),
]
Inputs = Annotated[
    list[Path] | None,
    typer.Option(
        "--input",
        "-i",
        help="questions: passages (.txt, .jsonl, .csv, .tsv, .parquet). translate: records.",
        show_default=False,
        rich_help_panel=_WHAT,
    ),
]
TextColumn = Annotated[
    str, typer.Option("--text-column", help="Of passages.", rich_help_panel=_WHAT)
]
IdColumn = Annotated[
    str | None, typer.Option("--id-column", help="Of passages.", rich_help_panel=_WHAT)
]
About = Annotated[
    str | None,
    typer.Option(
        "--about",
        help="The subject, in a sentence; otherwise anything.",
        show_default=False,
        rich_help_panel=_WHAT,
    ),
]
Prompts = Annotated[
    Path | None,
    typer.Option("--prompts", help="A folder of edited prompts.", rich_help_panel=_WHAT),
]
WritePrompts = Annotated[
    Path | None,
    typer.Option("--write-prompts", help="Copy the shipped prompts into a folder, and end."),
]
Judge = Annotated[
    str | None,
    typer.Option(
        "--judge",
        help="llm: the endpoints say whether the positive is one. A model, st:NAME or server: "
        "its vectors do.",
        rich_help_panel=_CHECKS,
    ),
]
JudgeRank = Annotated[
    int | None,
    typer.Option(
        "--judge-rank",
        help="How near the positive must be. [default: 3]",
        show_default=False,
        rich_help_panel=_CHECKS,
    ),
]
MinScore = Annotated[
    float | None,
    typer.Option(
        "--min-score",
        help="The least cosine of query and positive.",
        show_default=False,
        rich_help_panel=_CHECKS,
    ),
]
NearDuplicate = Annotated[
    float | None,
    typer.Option(
        "--near-duplicate",
        help="Overlap from which two queries are one; 1: only equal ones. [default: 0.8]",
        show_default=False,
        rich_help_panel=_CHECKS,
    ),
]
MaxAttempts = Annotated[
    float | None,
    typer.Option(
        "--max-attempts",
        help="Jobs at most, in relation to --count. [default: 3]",
        show_default=False,
        rich_help_panel=_CHECKS,
    ),
]
MaxCost = Annotated[
    float | None,
    typer.Option("--max-cost", help="Stop when so much is spent, by the endpoints' prices."),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", help="A TOML file of settings, [[endpoints]] too; flags win."),
]
Restart = Annotated[
    bool, typer.Option("--restart", help="Throw away the answers of an earlier run.")
]
