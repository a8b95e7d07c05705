"""Passages that were found, as lines for a terminal; every text in them is shown escaped."""

from typing import TYPE_CHECKING

from rich.text import Text

from polyvec.cli.terminal import visible

if TYPE_CHECKING:
    from polyvec.search.retrieve import Result

MARK = "bold yellow"
"""The style of a query's words."""
_VERDICTS = {None: "dim", "supported": "green"}


def path_line(result: "Result") -> Text:
    """Return the path of a passage's file."""
    return Text(visible(result.chunk.path), style="bold cyan")


def passage_lines(number: int, result: "Result", query: str) -> Text:
    """Return a passage's number, score and place, and below them the part that has the words."""
    from polyvec.search.snippets import snippet

    shown = snippet(result.chunk.text, query)
    line = Text(f"{number:3} {result.score:.3f} ", style="green")
    line.append(f"{heads_of(result)}\n", style="dim")
    words = marked(visible(shown.text), list(shown.marks))
    before, after = "…" * shown.cut_before, "…" * shown.cut_after
    return Text.assemble(line, f"    {before}", words, after)


def marked(text: str, marks: list[tuple[int, int]]) -> Text:
    """Return a text with stretches of it highlighted."""
    words = Text(text, style="default not dim")
    for start, end in marks:
        words.stylize(MARK, start, end)
    return words


def heads_of(result: "Result") -> str:
    """Return where in its file a passage is, in words: page or lines, and headings."""
    from polyvec.search.retrieve import place

    heads = (place(result.chunk), result.chunk.heading)
    return visible(" · ".join(each for each in heads if each))


def copies_line(result: "Result") -> Text | None:
    """Return the other files that have the passage, if there are any."""
    if not result.also_in:
        return None
    return Text(f"    the same in {visible(', '.join(result.also_in))}", style="dim")


def explained_line(result: "Result") -> Text:
    """Return why a passage is where it is."""
    from polyvec.search.retrieve import explain

    return Text(f"    {explain(result)}", style="dim")


def source_line(number: int, result: "Result", verdict: str | None) -> Text:
    """Return a source of an answer; ``verdict`` is what its citations came to, None: not cited."""
    named = " · ".join(each for each in (visible(result.chunk.path), heads_of(result)) if each)
    return Text(f"[{number}] {named}", style=_VERDICTS.get(verdict, "yellow"))
