"""How near a document may come to the positive before it counts as a positive nobody marked."""

from typing import Literal

import numpy as np
import numpy.typing as npt

from polyvec.errors import InputError
from polyvec.spec import check_choice

Margin = Literal["perc", "abs"]
Floats = npt.NDArray[np.float32]

DEFAULT_PERC = 0.95
"""TopK-PercPos of NV-Retriever (arXiv 2407.15831), as llama-embed-nemotron-8b was mined."""


def check_margin(margin: str, value: float) -> None:
    """Refuse a margin that has no meaning.

    Raises:
        InputError: It is no known kind, or the value is outside its range.
    """
    check_choice("margin", margin, Margin)
    if margin == "perc" and not 0 < value <= 1:
        raise InputError(
            f"A perc margin is a share of the positive's score, 0 to 1; given: {value}."
        )
    if margin == "abs" and not 0 <= value <= 2:
        raise InputError(f"An abs margin is a difference of cosines, 0 to 2; given: {value}.")


def thresholds(positive_scores: Floats, margin: Margin, value: float) -> Floats:
    """Return the score under which a document may be a negative.

    ``abs``: the positive's score less ``value``. ``perc``: the positive's score s less a part
    1 - ``value`` of its size, s - (1 - value) |s|. For s above 0 that is TopK-PercPos's
    ``value * s``; for s below 0 plain multiplication would put the threshold *above* the positive
    (-.10 to -.095) and let through what is nearer than it, so the part is taken off there too
    (-.10 to -.105). At 0 it is 0. It rises with s everywhere and is never above it.
    """
    scores = positive_scores.astype(np.float64)
    gap = value if margin == "abs" else np.abs(scores) * (1 - value)
    return (scores - gap).astype(np.float32)
