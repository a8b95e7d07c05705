"""Figures of cards as people read them."""

from collections.abc import Callable
from datetime import date

from polyvec.catalogue.cards import Card
from polyvec.catalogue.facts import KINDS
from polyvec.gallery.scores import SHORT, Scores, scores_of

NOT_KNOWN = "not known"

BYTES = {"fp32": 4.0, "bf16": 2.0, "Q8_0": 34 / 32, "Q4_K_M": 4_625_233_184 / 7_504_924_672}
"""Bytes a weight. A Q8_0 block holds 32 in 34 bytes (ggml's block_q8_0). Q4_K_M mixes two types, so
its share is that of a file: mradermacher's llama-embed-nemotron-8b-GGUF. A model with a larger part
of its weights in the vocabulary comes out a little above."""


def figure(card: Card, key: str) -> str:
    """Return a figure in words, ``not known`` where the card does not state it."""
    value = card.value(key)
    if value is None:
        return NOT_KNOWN
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, int):
        return size(value) if key == "parameters" else f"{value:,}"
    return value


def size(parameters: int) -> str:
    """Write a count of parameters: 23M, 596M, 7.5B."""
    if parameters >= 1e9:
        return f"{parameters / 1e9:.1f}B"
    return f"{parameters / 1e6:.0f}M"


def weights(card: Card, precision: str) -> str:
    """Return how much room a model's weights take; only they, not what computing needs."""
    parameters = card.number("parameters")
    if parameters is None or card.value("weights") == "closed":
        return NOT_KNOWN
    return gigabytes(parameters * BYTES[precision])


def gigabytes(num_bytes: float) -> str:
    """Write bytes in GB or MB."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 0.95e9 else f"{num_bytes / 1e6:.0f} MB"


def commands(card: Card) -> list[str]:
    """Return what to type to use a model here; nothing if polyvec does not run it."""
    if not card.run:
        return []
    fetch = [] if card.run == "default" else [f"polyvec pull {card.run}"]
    return [
        *fetch,
        f"polyvec similarity -m {card.run} 'Where is Paris?' 'Paris liegt in Frankreich.'",
        f"polyvec serve {card.run}",
        f"polyvec fit {card.short_name}",
        f"polyvec rent {card.short_name}",
    ]


def why_not(card: Card) -> str:
    """Say why polyvec does not run a model, as far as the card tells."""
    if card.value("weights") == "closed":
        return "Its weights are not given out: it is a service."
    return "polyvec is not known to run it right as it is."


More = Callable[[Card], list[tuple[str, str]]]
"""Further rows of a comparison, the same names for every model."""


def compared(cards: list[Card], more: More | None = None) -> list[tuple[str, list[str]]]:
    """Return figures of models beside each other: a name, and one cell a model."""
    rows = [("made by", [card.provider for card in cards]), ("family", [c.family for c in cards])]
    rows += [(kind.label, [figure(c, key) for c in cards]) for key, kind in KINDS.items()]
    rows += [(f"weights in {p}", [weights(c, p) for c in cards]) for p in BYTES]
    rows += [("polyvec runs it", ["yes" if c.run else "no" for c in cards])]
    if more is not None:
        further = [more(card) for card in cards]
        rows += [(row[0][0], [cell for _, cell in row]) for row in zip(*further, strict=True)]
    scores = [scores_of(card) for card in cards]
    means = [f"{one.mean:.2f}" if one else NOT_KNOWN for one in scores]
    rows += [("MMTEB, mean of task types", means)]
    for kind, name in SHORT.items():
        rows.append((f"MMTEB, {name}", [_score(one, kind) for one in scores]))
    return rows


def _score(scores: Scores | None, kind: str) -> str:
    return NOT_KNOWN if scores is None else f"{scores.by_type[kind]:.1f}"
