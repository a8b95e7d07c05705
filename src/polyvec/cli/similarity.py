"""``polyvec similarity``: which documents are nearest to which queries."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table
from rich.text import Text

from polyvec.cli.flags import similarity as flags
from polyvec.cli.loading import ModelChoice, with_model
from polyvec.cli.options import (
    FormatOption,
    IdColumnOption,
    InstructionOption,
    JsonOption,
    TextColumnOption,
    TruncateOption,
)
from polyvec.cli.output import (
    print_heat_tables,
    print_json,
    results_console,
    warn_of_cuts,
)
from polyvec.engine.bulk import checked
from polyvec.engine.rows import Columns, Row, check_readable, read_rows
from polyvec.errors import InputError
from polyvec.model.tokens import Truncate

if TYPE_CHECKING:
    from polyvec.engine.embedder import Embedder

_MAX_TABLE_COLUMNS = 40


@with_model
def similarity(
    texts: flags.Texts = None,
    queries: flags.Queries = None,
    documents: flags.Documents = None,
    top_k: flags.TopK = 1,
    relevant_column: flags.RelevantColumn = None,
    as_json: JsonOption = False,
    choice: ModelChoice = ModelChoice(),  # noqa: B008 (never changed)
    instruction: InstructionOption = None,
    truncate: TruncateOption = "end",
    text_column: TextColumnOption = "text",
    id_column: IdColumnOption = None,
    format: FormatOption = None,  # noqa: A002 (the option's name)
) -> None:
    """Show which documents are nearest to which queries.

    With arguments, the first text is the query and the others are documents.

    Examples:

    - `polyvec similarity "Where is Paris?" "Paris liegt in Frankreich." "パリは料理で有名です。"`
    - `polyvec similarity --queries q.jsonl --documents d.jsonl --id-column id --top-k 3`
    """
    columns = Columns(text_column, id_column)
    if texts and len(texts) > 1 and queries is None and documents is None:
        query_rows, document_rows = _rows_of(texts)
    elif queries is not None and documents is not None and not texts:
        check_readable([queries, documents], format)
        query_columns = replace(columns, relevant=relevant_column)
        query_rows = list(checked(read_rows([queries], query_columns, format), "error"))
        document_rows = list(checked(read_rows([documents], columns, format), "error"))
    else:
        raise InputError(
            "Give a query and documents as arguments, or both --queries FILE and --documents FILE."
        )
    if not query_rows or not document_rows:
        raise InputError(f"{len(query_rows)} queries and {len(document_rows)} documents: no pair.")
    embedder = choice.load()
    found = _Found(query_rows, document_rows, top_k)
    found.score(embedder, instruction, truncate)
    found.print(as_json)


def _rows_of(texts: list[str]) -> tuple[list[Row], list[Row]]:
    rows = [Row(text, n, f"argument {n + 1}") for n, text in enumerate(texts)]
    rows = list(checked(iter(rows), "error"))
    return [replace(rows[0], id="query")], rows[1:]


class _Found:
    """Queries, documents, and their similarities."""

    def __init__(self, queries: list[Row], documents: list[Row], top_k: int) -> None:
        self.queries, self.documents, self.top_k = queries, documents, top_k

    def score(self, embedder: "Embedder", instruction: str | None, truncate: Truncate) -> None:
        """Embed both sides and compare."""
        queries, documents = ([row.text for row in rows] for rows in (self.queries, self.documents))
        left = embedder.embed(queries, "query", instruction, truncate=truncate)
        right = embedder.embed(documents, "document", truncate=truncate)
        cut, texts = len(left.cut) + len(right.cut), len(queries) + len(documents)
        warn_of_cuts(cut, texts, embedder.spec.max_tokens, truncate)
        self.scores_QD = embedder.similarity(left.vectors, right.vectors)
        self.nearest_QK = np.argsort(-self.scores_QD, axis=1, kind="stable")[:, : self.top_k]

    def hits(self) -> tuple[int, int] | None:
        """Return (queries whose nearest document is the relevant one, queries), if known."""
        if any(row.relevant is None for row in self.queries):
            return None
        first = [self.documents[row[0]].id for row in self.nearest_QK]
        return sum(q.relevant == d for q, d in zip(self.queries, first, strict=True)), len(first)

    def print(self, as_json: bool) -> None:
        """Print the nearest documents of each query, and the whole table if it fits."""
        if as_json:
            print_json(self._facts())
            return
        console = results_console()
        console.print(self._nearest_table())
        if len(self.documents) <= _MAX_TABLE_COLUMNS:
            names = [[str(row.id) for row in rows] for rows in (self.queries, self.documents)]
            print_heat_tables(console, self.scores_QD, *names)
        hits = self.hits()
        if hits is not None:
            console.print(f"\nThe nearest document is the right one for {hits[0]} of {hits[1]}.")

    def _facts(self) -> dict[str, Any]:
        nearest = [
            {
                "query": query.text,
                "id": query.id,
                "nearest": [
                    {"id": self.documents[n].id, "text": self.documents[n].text, "similarity": s[n]}
                    for n in order
                ],
            }
            for query, order, s in zip(self.queries, self.nearest_QK, self.scores_QD, strict=True)
        ]
        hits = self.hits()
        return {"results": nearest} | ({} if hits is None else {"hits": hits[0]})

    def _nearest_table(self) -> Table:
        table = Table(box=None, padding=(0, 1, 0, 0))
        table.add_column("query", ratio=2)
        table.add_column("similarity", justify="right")
        table.add_column("nearest document", ratio=3)
        for query, order, scores in zip(self.queries, self.nearest_QK, self.scores_QD, strict=True):
            for rank, number in enumerate(order):
                document = self.documents[number]
                table.add_row(
                    Text(f"{query.id}  {query.text}" if rank == 0 else ""),
                    f"{scores[number]:.3f}",
                    Text(f"{document.id}  {document.text}{_mark(query, document, rank)}"),
                )
        return table


def _mark(query: Row, document: Row, rank: int) -> str:
    if query.relevant is None:
        return ""
    return "  ✓" if query.relevant == document.id else "  ✗" if rank == 0 else ""
