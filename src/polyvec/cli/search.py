"""``polyvec search``: passages of an index that answer a question."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from polyvec.cli.options import DeviceOption, JsonOption, PrecisionOption
from polyvec.cli.output import print_json, results_console
from polyvec.errors import InputError

if TYPE_CHECKING:
    from polyvec.search.retrieve import Mode, Result
    from polyvec.search.where import Where

_FILTERS, _RANKING = "Which documents", "Ranking"

IndexOption = Annotated[
    str | None,
    typer.Option(
        "--index",
        help="The index: a folder or s3://bucket/prefix. [default: that of the current folder or "
        "one above it, else the only one there is]",
        show_default=False,
    ),
]
PathOption = Annotated[
    list[str] | None,
    typer.Option(
        "--path",
        help="A folder, a file or a pattern such as 'notes/*.md', from the indexed folder; repeat.",
        show_default=False,
        rich_help_panel=_FILTERS,
    ),
]
TypeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--type",
        help="pdf, docx, markdown, python, ...; repeat.",
        show_default=False,
        rich_help_panel=_FILTERS,
    ),
]
LanguageOption = Annotated[
    list[str] | None,
    typer.Option(
        "--language",
        "-l",
        help="Of the passage, as an ISO 639 code: en, de, zh; repeat.",
        show_default=False,
        rich_help_panel=_FILTERS,
    ),
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        "--since",
        help="Changed on this day or later: 2026-03-01.",
        show_default=False,
        rich_help_panel=_FILTERS,
    ),
]
BeforeOption = Annotated[
    str | None,
    typer.Option(
        "--before",
        help="Changed before this day.",
        show_default=False,
        rich_help_panel=_FILTERS,
    ),
]


def where_of(
    paths: list[str] | None,
    types: list[str] | None,
    languages: list[str] | None,
    since: str | None,
    before: str | None,
) -> "Where":
    """Return the filter that flags ask for."""
    from polyvec.search.where import Where, read_moment

    return Where(
        paths or (),
        types or (),
        languages or (),
        read_moment(since, "--since"),
        read_moment(before, "--before"),
    )


def search(
    query: Annotated[
        str,
        typer.Argument(help="In any language.", show_default=False),
    ],
    index: IndexOption = None,
    top_k: Annotated[
        int,
        typer.Option("--top-k", "-k", help="Passages, or documents where they are grouped."),
    ] = 10,
    mode: Annotated[
        str,
        typer.Option(
            "--mode",
            help="dense: by meaning, in all languages. text: by words (BM25), no model needed. "
            "hybrid: both, fused by rank.",
            rich_help_panel=_RANKING,
        ),
    ] = "hybrid",
    diversity: Annotated[
        float,
        typer.Option(
            "--diversity",
            help="0 to 1: prefer passages unlike those above them (MMR).",
            rich_help_panel=_RANKING,
        ),
    ] = 0.0,
    per_document: Annotated[
        int,
        typer.Option(
            "--per-document",
            help="Group by document, with so many passages of each at most.",
            rich_help_panel=_RANKING,
        ),
    ] = 0,
    candidates: Annotated[
        int,
        typer.Option(
            "--candidates",
            help="Passages of each ranking that are fused.",
            rich_help_panel=_RANKING,
        ),
    ] = 100,
    path: PathOption = None,
    file_type: TypeOption = None,
    language: LanguageOption = None,
    since: SinceOption = None,
    before: BeforeOption = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say why each is where it is.")
    ] = False,
    as_json: JsonOption = False,
    precision: PrecisionOption = "auto",
    device: DeviceOption = "auto",
) -> None:
    """Find passages of your documents (after `polyvec index FOLDER`), best first.

    Examples:

    - `polyvec search "how do I reset the router?"`
    - `polyvec search "Kündigungsfrist" --type pdf --since 2026-01-01 --explain`
    - `polyvec search "error 0x80070057" --mode text --json`
    """
    from polyvec.search.place import find_index
    from polyvec.search.retrieve import SearchSettings, open_searcher

    settings = SearchSettings(_mode(mode), top_k, candidates, diversity, per_document)
    where = where_of(path, file_type, language, since, before)
    where.sql()  # a wrong one is told before a model is loaded
    if not query.strip():
        raise InputError("The query is empty.")
    searcher = open_searcher(find_index(index), settings.mode, precision, device)
    results = searcher.search(query, settings, where)
    info = searcher.store.info
    if as_json:
        found = [result.facts(query) for result in results]
        head = {"query": query, "mode": mode, "index": searcher.store.uri, "root": info.root}
        print_json({**head, "results": found})
        return
    _print(query, results, per_document > 0, explain, Path(info.root))


def _mode(text: str) -> "Mode":
    if text not in ("hybrid", "dense", "text"):
        raise InputError(f"--mode is {text!r}; allowed: hybrid, dense, text.")
    return text  # type: ignore[return-value]


def _print(query: str, results: "list[Result]", is_grouped: bool, why: bool, root: Path) -> None:
    console = results_console()
    if not results:
        console.print(f"Nothing found in {root}.")
        return
    above = None
    for number, result in enumerate(results, 1):
        if not is_grouped or result.chunk.path != above:
            above = result.chunk.path
            console.print(Text(above, style="bold cyan"), soft_wrap=True)
        console.print(_line(number, result, query), soft_wrap=True)
        if result.also_in:
            console.print(Text(f"    the same in {', '.join(result.also_in)}", style="dim"))
        if why:
            console.print(Text(f"    {_explained(result)}", style="dim"), soft_wrap=True)


def _line(number: int, result: "Result", query: str) -> Text:
    from polyvec.search.retrieve import place
    from polyvec.search.snippets import snippet

    shown = snippet(result.chunk.text, query)
    heads = [each for each in (place(result.chunk), result.chunk.heading) if each]
    line = Text(f"{number:3} {result.score:.3f} ", style="green")
    line.append(f"{' · '.join(heads)}\n" if heads else "\n", style="dim")
    words = Text(shown.text, style="default not dim")
    for start, end in shown.marks:
        words.stylize("bold yellow", start, end)
    before, after = "…" * shown.cut_before, "…" * shown.cut_after
    return Text.assemble(line, f"    {before}", words, after)


def _explained(result: "Result") -> str:
    from polyvec.search.retrieve import explain

    return explain(result)
