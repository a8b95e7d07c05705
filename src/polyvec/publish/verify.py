"""Do two sides give the same vectors? Numbers, and a diagnosis where they do not."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from polyvec.engine.embedder import Embedder
from polyvec.errors import InputError
from polyvec.publish.diagnose import (
    UNCUT,
    Cosines,
    Diagnosis,
    Doctor,
    check_norms,
    cosines,
    remainder,
)
from polyvec.publish.sides import (
    Probe,
    Side,
    Variant,
    Vectors,
    embed_side,
    over_long_text,
    read_probes,
)
from polyvec.spec import Role

ROLES: tuple[Role, ...] = ("document", "query")
DEFAULT_MIN_COSINE = 0.999


@dataclass(frozen=True)
class Agreement:
    """How near two sides' vectors of the same texts are."""

    role: str
    cosine_mean: float
    cosine_min: float
    worst: str
    """The id of the text with the lowest cosine."""
    neighbours_kept: float
    """Share of texts whose nearest other text is the same on both sides."""
    rank_correlation: float
    """Mean Spearman correlation of each text's similarities to all others."""


@dataclass(frozen=True)
class Verdict:
    """The outcome of a comparison."""

    a: str
    b: str
    agree: bool
    """Whether every cosine is at least ``min_cosine`` and both sides are normalized alike."""
    min_cosine: float
    agreements: list[Agreement]
    over_long_cosine: float
    diagnoses: list[Diagnosis] = field(default_factory=list)
    texts: list[dict[str, Any]] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Pair:
    """Both sides' vectors of the probe set, the over-long text last."""

    a: Vectors
    b: Vectors


def verify(
    a: Side, b: Side, names: tuple[str, str], min_cosine: float = DEFAULT_MIN_COSINE
) -> Verdict:
    """Compare two sides on the probe set, as queries and as documents.

    The diagnosis is made with the weights of ``a`` if it is here, else with those of ``b``.

    Raises:
        InputError: The sides' vectors have different lengths.
    """
    reference = next((side for side in (a, b) if isinstance(side, Embedder)), None)
    probes = read_probes()
    probes.append(Probe("over-long", "over-long", "", over_long_text(probes, reference)))
    pairs = {role: _embed_both(a, b, probes, role, reference, names) for role in ROLES}
    agreements = [_agreement(pairs[role], probes, role) for role in ROLES]
    over_long = float(cosines(pairs["document"].a, pairs["document"].b)[-1])
    diagnoses = _diagnose(a, b, names, pairs, probes, min(min_cosine, _floor(reference)))
    lowest = min(over_long, *(x.cosine_min for x in agreements))
    agree = lowest >= min_cosine and not any(d.kind == "not-normalized" for d in diagnoses)
    texts = _per_text(pairs, probes)
    return Verdict(*names, agree, min_cosine, agreements, over_long, diagnoses, texts)


def _floor(reference: Embedder | None) -> float:
    """Below which cosine a difference is looked into."""
    return 0.9995 if reference is not None else 0.0


def _embed_both(
    a: Side,
    b: Side,
    probes: list[Probe],
    role: Role,
    reference: Embedder | None,
    names: tuple[str, str],
) -> _Pair:
    texts = [probe.text for probe in probes]
    spec = None if reference is None else reference.spec
    pair = _Pair(*(embed_side(side, texts, role, spec) for side in (a, b)))
    if pair.a.shape != pair.b.shape:
        raise InputError(
            f"{names[0]} gives {pair.a.shape[1]} numbers a text and {names[1]} gives "
            f"{pair.b.shape[1]}: these are not the same model."
        )
    return pair


def _agreement(pair: _Pair, probes: list[Probe], role: str) -> Agreement:
    a, b = pair.a[:-1], pair.b[:-1]
    near = cosines(a, b)
    worst = int(near.argmin())
    first, second = _similarities(a), _similarities(b)
    # An exact duplicate is its twin's nearest on both sides: it would only flatter the share.
    kept = first.argmax(1) == second.argmax(1)
    original = np.array([probe.kind != "duplicate" for probe in probes[:-1]])
    return Agreement(
        role=role,
        cosine_mean=float(near.mean()),
        cosine_min=float(near[worst]),
        worst=probes[worst].id,
        neighbours_kept=float(kept[original].mean()),
        rank_correlation=_rank_correlation(first, second),
    )


def _similarities(vectors: Vectors) -> Vectors:
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    similarities: Vectors = unit @ unit.T
    np.fill_diagonal(similarities, -np.inf)
    return similarities


def _rank_correlation(first: Vectors, second: Vectors) -> float:
    """Return the mean of the rows' Spearman correlations, the text itself left out."""
    ranks = [np.argsort(np.argsort(s, axis=1), axis=1).astype(np.float64) for s in (first, second)]
    centred = [r - r.mean(1, keepdims=True) for r in ranks]
    products = (centred[0] * centred[1]).sum(1)
    scale = np.sqrt((centred[0] ** 2).sum(1) * (centred[1] ** 2).sum(1))
    return float((products / np.maximum(scale, 1e-12)).mean())


def _diagnose(
    a: Side,
    b: Side,
    names: tuple[str, str],
    pairs: dict[Role, _Pair],
    probes: list[Probe],
    floor: float,
) -> list[Diagnosis]:
    documents = pairs["document"]
    found = check_norms(documents.a, names[0]) + check_norms(documents.b, names[1])
    worst = min(float(cosines(pair.a, pair.b).min()) for pair in pairs.values())
    if worst >= floor:
        return found
    near = cosines(documents.a, documents.b)
    if isinstance(a, Embedder):
        found += _examine(Doctor(a, names[1]), {r: p.b for r, p in pairs.items()}, probes, near)
    elif isinstance(b, Embedder):
        found += _examine(Doctor(b, names[0]), {r: p.a for r, p in pairs.items()}, probes, near)
    faults = [d for d in found if d.kind != "not-normalized"]
    mean = min(float(cosines(pair.a, pair.b)[:-1].mean()) for pair in pairs.values())
    return found if faults else [*found, remainder(mean, names[1])]


def _examine(
    doctor: Doctor, vectors: dict[Role, Vectors], probes: list[Probe], near: Cosines
) -> list[Diagnosis]:
    """Look for structural faults, then with those known for prefixes, then for truncation.

    Where none of them but a cut is found, texts that stand out have other tokens.
    """
    chosen = [n for n, probe in enumerate(probes) if probe.kind in ("short", "code")][::2]
    texts = [probes[n].text for n in chosen]
    structure, found = doctor.structure(texts, vectors["document"][chosen])
    for role in ROLES:
        prefix = doctor.prefix(texts, vectors[role][chosen], role, structure)
        if role == "document" and prefix:
            structure, found = Variant(), []
        found += prefix
    cut = doctor.truncation(probes[-1].text, vectors["document"][-1:], structure)
    if found:
        return found + cut
    names = [f"{probe.id} {probe.language}".strip() for probe in probes]
    most_tokens = UNCUT if cut else doctor.embedder.spec.max_tokens
    return cut + doctor.tokens([p.text for p in probes], near, names, most_tokens)


def _per_text(pairs: dict[Role, _Pair], probes: list[Probe]) -> list[dict[str, Any]]:
    near = {role: cosines(pair.a, pair.b) for role, pair in pairs.items()}
    return [
        {
            "id": probe.id,
            "language": probe.language,
            "text": probe.text[:200],
            **{role: float(values[n]) for role, values in near.items()},
        }
        for n, probe in enumerate(probes)
    ]
