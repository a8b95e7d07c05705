"""What is wrong with records, counted, with the first places of each kind."""

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "file without a row",
    "unusable row",
    "pair of one text",
    "negative that is a positive",
    "duplicate record",
    "label contradicted",
    "query in a test query",
    "query in a test document",
    "document in a test query",
    "document in a test document",
]
"""Each makes the exit code 3."""

_SHOWN = 5


@dataclass
class Finding:
    """One kind of fault."""

    exact: int = 0
    """With the very same text."""
    normalized: int = 0
    """With the same text but for case, width and white space; those exact not counted."""
    examples: list[str] = field(default_factory=list)
    """File, line and text of the first few."""


@dataclass
class Findings:
    """Every fault found."""

    kinds: dict[Kind, Finding] = field(default_factory=dict)

    def add(self, kind: Kind, where: str, words: str, exact: bool = True) -> None:
        """Count a fault."""
        finding = self.kinds.setdefault(kind, Finding())
        finding.exact += exact
        finding.normalized += not exact
        if len(finding.examples) < _SHOWN:
            finding.examples.append(f"{where}: {words}")

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not self.kinds
