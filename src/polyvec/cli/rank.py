"""``polyvec rank``: the texts of a file in the order of how well they answer a query."""

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from polyvec.cli.flags import rank as flags
from polyvec.cli.loading import ModelChoice, with_model
from polyvec.cli.options import (
    FormatOption,
    IdColumnOption,
    InstructionOption,
    JsonOption,
    TextColumnOption,
    TruncateOption,
)
from polyvec.cli.output import print_json, results_console, warn_of_cuts
from polyvec.engine.bulk import checked
from polyvec.engine.progress import progress_bar
from polyvec.engine.rows import Columns, Row, check_readable, count_rows, read_rows
from polyvec.errors import InputError
from polyvec.metrics import unit
from polyvec.model.tokens import Truncate

if TYPE_CHECKING:
    from polyvec.engine.embedder import Embedder, Progress

_CHUNK_ROWS = 2_048

_DECIMALS = 6
"""Equal texts in different batches may differ in the last bit: here they are equally near."""

Scored = list[tuple[Row, float]]


@with_model
def rank(
    query: flags.Query,
    files: flags.Files,
    top_k: flags.TopK = 10,
    min_similarity: flags.MinSimilarity = -1.0,
    as_json: JsonOption = False,
    choice: ModelChoice = ModelChoice(),  # noqa: B008 (never changed)
    instruction: InstructionOption = None,
    truncate: TruncateOption = "end",
    text_column: TextColumnOption = "text",
    id_column: IdColumnOption = None,
    format: FormatOption = None,  # noqa: A002 (the option's name)
) -> None:
    """Rank the texts of files by how near they are to a query, nearest first.

    Equally near texts keep their order. Files may be larger than memory: only the best are kept.

    Examples:

    - `polyvec rank "how to reset a password" faq.txt`
    - `polyvec rank "Wo liegt Paris?" docs.jsonl --text-column body --id-column id -k 3 --json`
    - `git log --format=%s | polyvec rank "faster tokenizer" -`
    """
    check_readable(files, format)
    if not query.strip():
        raise InputError("The query is empty.")
    embedder = choice.load()
    rows = checked(read_rows(files, Columns(text_column, id_column), format), "error")
    with progress_bar(count_rows(files, format)) as progress:
        best = _best(embedder, query, instruction, rows, top_k, truncate, progress)
    _print([pair for pair in best if pair[1] >= min_similarity], query, as_json)


def _best(
    embedder: "Embedder",
    query: str,
    instruction: str | None,
    rows: Iterator[Row],
    top_k: int,
    truncate: Truncate,
    progress: "Progress | None",
) -> Scored:
    asked_1D = unit(embedder.embed([query], "query", instruction, truncate=truncate).vectors)
    best: list[tuple[float, int, Row]] = []
    texts = cut = 0
    while chunk := list(islice(rows, _CHUNK_ROWS)):
        words = [row.text for row in chunk]
        found = embedder.embed(words, "document", truncate=truncate, progress=progress)
        cosines = (unit(found.vectors) @ asked_1D[0]).tolist()
        best += [(-round(s, _DECIMALS), texts + n, chunk[n]) for n, s in enumerate(cosines)]
        best.sort(key=lambda one: one[:2])
        del best[top_k or len(best) :]
        texts, cut = texts + len(chunk), cut + len(found.cut)
    if not texts:
        raise InputError("The files have no text to rank.")
    warn_of_cuts(cut, texts, embedder.spec.max_tokens, truncate)
    return [(row, -negative) for negative, _, row in best]


def _print(best: Scored, query: str, as_json: bool) -> None:
    if as_json:
        results = [
            {"id": row.id, "text": row.text, "similarity": s, "where": row.where} for row, s in best
        ]
        print_json({"query": query, "results": results})
        return
    table = Table(box=None, padding=(0, 1, 0, 0), show_header=False)
    table.add_column(justify="right")
    table.add_column(justify="right")
    table.add_column()
    table.add_column()
    for place, (row, similarity) in enumerate(best, 1):
        table.add_row(
            f"{place}", f"{similarity:.3f}", Text(str(row.id)), Text(" ".join(row.text.split()))
        )
    results_console().print(table)
