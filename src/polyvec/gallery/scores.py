"""Published MMTEB scores of the catalogue's models by task type.

Two bases. Seven models have their score of every task (``polyvec leaderboard``), of which the means
are taken here; that table lacks FloresBitextMining, one of 131 tasks, so their bitext mean is over
one task less. Others have the means that a paper's table states, on their card.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from polyvec.catalogue.cards import Card
from polyvec.catalogue.facts import TASK_TYPES
from polyvec.evaluate.borda import rank
from polyvec.evaluate.leaderboard import published_scores
from polyvec.evaluate.mmteb_instructions import published_types

SHORT = dict(
    zip(
        TASK_TYPES,
        (
            "Bitext",
            "Classes",
            "Clusters",
            "Instructions",
            "Labels",
            "Pairs",
            "Reranking",
            "Retrieval",
            "STS",
        ),
        strict=True,
    )
)
"""A task type's name where there is little room."""

_BASIS = (
    "means over 130 of the 131 tasks of MTEB(Multilingual, v2), from the results published at "
    "https://github.com/embeddings-benchmark/results (FloresBitextMining is not among them)"
)
_PEERS = 2


@dataclass(frozen=True)
class Scores:
    """One model's means, in percent."""

    by_type: Mapping[str, float]
    """All of ``TASK_TYPES``."""
    source: str

    @property
    def mean(self) -> float:
        """The mean of the task types, each counting the same (MMTEB's mean type)."""
        return sum(self.by_type.values()) / len(self.by_type)


@cache
def _from_tasks() -> Mapping[str, Mapping[str, float]]:
    scores, types = published_scores(), published_types()
    return {row.model: row.by_type for row in rank(scores, types)}


def scores_of(card: Card) -> Scores | None:
    """Return a model's published means, or None where none are known."""
    means = _from_tasks().get(card.name)
    if means is not None:
        return Scores({kind: means[kind] for kind in TASK_TYPES}, _BASIS)
    return Scores(card.scores, card.scores_source) if card.scores else None


def all_scores(cards: Iterable[Card]) -> dict[str, Scores]:
    """Return the means of the models that have some, by name."""
    found = {card.name: scores_of(card) for card in cards}
    return {name: scores for name, scores in found.items() if scores is not None}


def peers_of(card: Card, cards: Mapping[str, Card], scores: Mapping[str, Scores]) -> list[str]:
    """Return the models of another family, scored too, that are nearest in size."""
    size = card.number("parameters")
    others = [
        (max(other / size, size / other) if size and other else float("inf"), name)
        for name in scores
        for other in [cards[name].number("parameters")]
        if cards[name].family != card.family and name != card.name
    ]
    return [name for _, name in sorted(others)[:_PEERS]]
