"""What a model is told before each text of a task: one instruction a side.

The 131 tasks of ``MTEB(Multilingual, v2)`` have the instructions of llama-embed-nemotron-8b's
published run (mmteb_instructions.csv, typos and trailing blanks included: they are part of what was
measured). Any other task's come from mteb, by the same rules: semantic similarity and bitext have
one for their type; retrieval and reranking have one for queries and none for documents.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

_TABLE = "mmteb_instructions.csv"
_BY_TYPE = {
    "STS": "Retrieve semantically similar text",
    "PairClassification": "Retrieve semantically similar text",
    "BitextMining": "Retrieve parallel sentences",
}
_ASKED = ("Retrieval", "Reranking", "InstructionRetrieval", "InstructionReranking")
"""Types whose documents are read without an instruction."""


@dataclass(frozen=True)
class Instructions:
    """One task's; an empty one means that the text is a document."""

    query: str
    document: str

    def of(self, side: str | None) -> str:
        """Return the one for ``query`` or ``document``; other texts are treated as queries."""
        return self.document if side == "document" else self.query


@cache
def published() -> Mapping[str, Instructions]:
    """Return those of the published run, by task."""
    return {
        row["task"]: Instructions(row["query_instruction"], row["document_instruction"])
        for row in table(_TABLE)
    }


@cache
def published_types() -> Mapping[str, str]:
    """Return the type of each of the 131 tasks."""
    return {row["task"]: row["type"] for row in table(_TABLE)}


def table(name: str) -> list[dict[str, str]]:
    """Read one of the tables that come with this package."""
    text = files("polyvec.evaluate").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def instructions(metadata: Any, default: str = "") -> Instructions:  # noqa: ANN401 (mteb's own)
    """Return a task's instructions.

    Args:
        metadata: The task's ``TaskMetadata``.
        default: Its class's ``abstask_prompt``, for tasks that state none.
    """
    found = published().get(metadata.name)
    if found is not None:
        return found
    if metadata.type in _BY_TYPE:
        return Instructions(_BY_TYPE[metadata.type], _BY_TYPE[metadata.type])
    stated = metadata.prompt or default
    if isinstance(stated, str):
        return Instructions(stated, "" if metadata.type in _ASKED else stated)
    return Instructions(stated.get("query") or "", stated.get("document") or "")
