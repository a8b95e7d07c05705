"""Texts of the text-mode interface: a passage with what stands around it, an answer, filters."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

from polyvec.cli.filters import where_of
from polyvec.cli.passages import explained_line, heads_of, marked, path_line, source_line
from polyvec.cli.terminal import visible, visible_lines
from polyvec.search.answer import Answer
from polyvec.search.kinds import SOURCE_CODE, kind_of
from polyvec.search.retrieve import Result
from polyvec.search.snippets import matches
from polyvec.search.where import Where

FILTERS = {
    "path": "path: notes/*.md",
    "type": "type: pdf, docx",
    "language": "language: en, de",
    "since": "since: 2026-03-01",
    "before": "before: 2026-12-31",
}
"""Fields by name, with what they show when they are empty."""


def where_of_fields(fields: Mapping[str, str]) -> Where:
    """Return the filter of the fields; those for several values have commas between them.

    Raises:
        InputError: One of them is no path, type, language, day or moment.
    """
    several = {
        name: [part.strip() for part in fields[name].split(",") if part.strip()]
        for name in ("path", "type", "language")
    }
    since, before = (fields[name].strip() or None for name in ("since", "before"))
    return where_of(several["path"], several["type"], several["language"], since, before)


def passage_text(result: Result, question: str, before: str = "", after: str = "") -> Text:
    """Return a passage with its facts above it and its neighbours around it."""
    chunk = result.chunk
    facts = (chunk.file_type, chunk.language, f"{chunk.modified_at:%Y-%m-%d}")
    shown = visible_lines(chunk.text)
    lines = [
        path_line(result),
        Text(heads_of(result)),
        Text(visible(" · ".join(fact for fact in facts if fact)), style="dim"),
        Text(explained_line(result).plain.strip(), style="dim"),
        *(Text(f"also in {visible(path)}", style="dim") for path in result.also_in),
        Text(),
        *([Text(visible_lines(before), style="dim")] if before else []),
        marked(shown, matches(shown, question)),
        Text(visible_lines(after), style="dim"),
    ]
    return Text("\n").join(lines)


def may_run(path: Path) -> bool:
    """Whether some desktop would run a file that it is told to open.

    Source code, endings that are no document's (``.command``, ``.desktop``, ``.bat``), and files
    without an ending that may be executed.
    """
    kind = kind_of(path.name)
    if kind is not None:
        return kind.file_type in SOURCE_CODE
    return bool(path.suffix) or os.access(path, os.X_OK)


@dataclass
class Conversation:
    """A question and what has been said to it so far."""

    question: str
    said: str = ""
    answer: Answer | None = None
    problem: str = ""

    def verdicts(self) -> dict[int, str]:
        """Return what became of the citations of each passage."""
        citations = self.answer.citations if self.answer else ()
        return {citation.number: citation.verdict for citation in citations}

    def shown(self) -> Text:
        """Return it as text."""
        lines = [Text(visible(self.question), style="bold")]
        if self.answer is not None and not self.answer.is_in_documents:
            lines += [Text("Not in your documents."), Text(visible(self.answer.reason), "dim")]
        else:
            lines.append(Text(visible_lines(self.said) or "…"))
        if self.answer is not None:
            lines += self._checked(self.answer)
        if self.problem:
            lines.append(Text(visible_lines(self.problem), style="bold red"))
        return Text("\n").join(lines)

    def _checked(self, answer: Answer) -> list[Text]:
        verdicts = self.verdicts()
        cited = [
            source_line(number, result, verdicts[number])
            for number, result in enumerate(answer.results, 1)
            if number in verdicts
        ]
        notes = [Text.assemble(("check: ", "bold yellow"), visible(n)) for n in answer.notes]
        return [Text(), *cited, *notes]
