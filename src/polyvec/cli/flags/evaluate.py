"""Options of ``polyvec evaluate``."""

from pathlib import Path
from typing import Annotated

import typer

from polyvec.cli.options import MODEL_PANEL

_COLLECTION, _JUDGING, _KEEPING = "Collection", "Judging", "Results"
_BENCHMARK = "Benchmark"

Models = Annotated[
    list[str],
    typer.Argument(
        help="Models: polyvec's names, st:NAME for sentence-transformers, http://host:port "
        "for a server. The first is what the others are compared with.",
        show_default=False,
    ),
]
Queries = Annotated[
    Path | None,
    typer.Option(
        "--queries",
        "-q",
        help="JSONL with _id, text and, if known, language.",
        rich_help_panel=_COLLECTION,
    ),
]
Corpus = Annotated[
    Path | None,
    typer.Option(
        "--corpus", "-c", help="JSONL with _id, text, title.", rich_help_panel=_COLLECTION
    ),
]
Qrels = Annotated[
    Path | None,
    typer.Option(
        "--qrels", "-r", help="Judgements, BEIR's TSV or TREC's.", rich_help_panel=_COLLECTION
    ),
]
Beir = Annotated[
    Path | None,
    typer.Option(
        "--beir",
        help="A folder with queries.jsonl, corpus.jsonl and qrels/SPLIT.tsv instead.",
        rich_help_panel=_COLLECTION,
    ),
]
Split = Annotated[
    str, typer.Option("--split", help="Which qrels of --beir.", rich_help_panel=_COLLECTION)
]
Missing = Annotated[
    str,
    typer.Option(
        "--missing",
        help="Judgements of ids that are not in the files: error or drop.",
        rich_help_panel=_COLLECTION,
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        help="ndcg@10, recall@100, mrr@10, map@100, accuracy@1, precision@5, ...; several "
        "times. Models are compared by the first.",
        show_default=False,
        rich_help_panel=_JUDGING,
    ),
]
Dimensions = Annotated[
    list[int] | None,
    typer.Option(
        "--dimensions",
        help="Also judge vectors cut to so many numbers; several times.",
        show_default=False,
        rich_help_panel=_JUDGING,
    ),
]
SkipSameId = Annotated[
    bool,
    typer.Option(
        "--skip-same-id",
        help="Never find a document with the query's own id (ArguAna, Quora).",
        rich_help_panel=_JUDGING,
    ),
]
Seed = Annotated[
    int, typer.Option("--seed", help="Of intervals and tests.", rich_help_panel=_JUDGING)
]
Output = Annotated[
    Path,
    typer.Option("--output", "-o", help="Folder of results.", rich_help_panel=_KEEPING),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        help="Folder of vectors. [default: in polyvec's cache]",
        show_default=False,
        rich_help_panel=_KEEPING,
    ),
]
Restart = Annotated[
    bool,
    typer.Option("--restart", help="Replace earlier results.", rich_help_panel=_KEEPING),
]
Html = Annotated[
    Path | None, typer.Option("--html", help="Write a report page.", rich_help_panel=_KEEPING)
]
Precisions = Annotated[
    list[str] | None,
    typer.Option(
        "--precision",
        help="auto, fp32, bf16 or int8; several times to compare them.",
        show_default=False,
        rich_help_panel=MODEL_PANEL,
    ),
]
QueryPrefix = Annotated[
    str | None,
    typer.Option(
        "--query-prefix", help="For servers: before queries.", rich_help_panel=MODEL_PANEL
    ),
]
DocumentPrefix = Annotated[
    str | None,
    typer.Option(
        "--document-prefix", help="For servers: before documents.", rich_help_panel=MODEL_PANEL
    ),
]
Benchmark = Annotated[
    str | None,
    typer.Option(
        "--benchmark",
        "-b",
        help="A benchmark of mteb's by its name instead of a collection, or `offline`: real "
        "texts from Debian's packages, without any hub.",
        show_default=False,
        rich_help_panel=_BENCHMARK,
    ),
]
Tasks = Annotated[
    list[str] | None,
    typer.Option(
        "--task",
        help="Only this task of it; several times.",
        show_default=False,
        rich_help_panel=_BENCHMARK,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Only say what it costs: texts, tokens, hours here and elsewhere.",
        rich_help_panel=_BENCHMARK,
    ),
]
