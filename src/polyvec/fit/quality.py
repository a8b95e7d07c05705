"""What a precision costs: measured for this model, or for the nearest one that was measured."""

import math
from dataclasses import dataclass

from polyvec.engine.quality import Measured, measurements
from polyvec.fit.facts import ModelFacts
from polyvec.spec import BertArchitecture


@dataclass(frozen=True)
class Quality:
    """What is known of a precision for a model."""

    measured: Measured | None
    """None where nothing was measured at this precision."""
    is_own: bool
    """Whether on this very model."""

    @property
    def words(self) -> str:
        """The figures, and whose they are."""
        found = self.measured
        if found is None:
            return "not measured"
        if found.source == EXACT:
            return EXACT
        change = "" if found.ndcg_change is None else f", nDCG {found.ndcg_change:+.2f}"
        whose = "" if self.is_own else f", of {found.model.rpartition('/')[2]}"
        return f"cosine {found.cosine_mean:.5f}{change}{whose}"


EXACT = "exact"


def quality(facts: ModelFacts, precision: str) -> Quality:
    """Return what a precision costs this model; ``precision`` may be a GGUF type too."""
    network = "bert" if isinstance(facts.architecture, BertArchitecture) else "llama"
    if precision == "fp32":
        exact = Measured(facts.name, network, facts.parameters, True, "fp32", EXACT, 1.0)
        return Quality(exact, is_own=True)
    found = [m for m in measurements() if m.precision == precision]
    own = [m for m in found if _is_same(m, facts, network)]
    if own:
        return Quality(own[0], is_own=True)
    near = sorted(found, key=lambda m: _distance(m, facts, network))
    return Quality(near[0] if near else None, is_own=False)


def _is_same(m: Measured, facts: ModelFacts, network: str) -> bool:
    short = m.model.rpartition("/")[2].lower()
    is_named = facts.name.lower().rpartition("/")[2] == short
    close = abs(m.parameters - facts.parameters) < 0.03 * m.parameters
    return is_named and close and m.network == network


def _distance(m: Measured, facts: ModelFacts, network: str) -> tuple[bool, bool, float]:
    """Trained before untrained, then the same kind of network, then the nearest size."""
    size = abs(math.log(m.parameters / facts.parameters))
    return (not m.trained, m.network != network, size)
