"""Why vectors differ: try the faults people make on weights we have, and see which one matches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from polyvec.engine.embedder import Embedder
from polyvec.publish.sides import Variant, Vectors, embed_variant
from polyvec.spec import Attention, Pooling, Role

Cosines = npt.NDArray[np.float64]

Kind = Literal[
    "not-normalized",
    "pooling",
    "attention",
    "bos-eos",
    "prefix-missing",
    "prefix-doubled",
    "truncated",
    "tokenizer",
    "precision",
    "unknown",
]

_EXPLAINED = 0.25
"""A fault is the cause if with it the distance shrinks to a quarter or less."""
_SAME = 0.999
_PRECISION = 0.9
"""Rounding keeps mean cosines above this (a raw model in Q4_0 has .94); other faults do not."""
_FAR = 0.95
"""Other tokens put a text below this; rounding does so to none where it leaves most texts alone."""
_MOST_ALIKE = 0.999
_SHOWN_TEXTS = 6
UNCUT = 64
"""Tokens that every side reads."""
_PLURAL: dict[Role, str] = {"query": "queries", "document": "documents"}
_LENGTHS = (UNCUT, 128, 256, 384, 512, 768, 1024, 1536, 2048, 4096, 8192, 16384, 32768)


@dataclass(frozen=True)
class Diagnosis:
    """One thing that is wrong, in a word for programs and a sentence for people."""

    kind: Kind
    words: str


def cosines(a: Vectors, b: Vectors) -> Cosines:
    """Return row-wise cosines, float64; a row of zeros has cosine 0 with everything."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return (x * y).sum(1) / np.maximum(norms, 1e-12)


def check_norms(vectors: Vectors, name: str) -> list[Diagnosis]:
    """Say whether vectors are of length 1."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    if np.abs(norms - 1).max() < 5e-3:
        return []
    return [
        Diagnosis(
            "not-normalized",
            f"{name} is not normalized: its vectors have lengths {norms.min():.3g} to "
            f"{norms.max():.3g}. Normalize them, or compare by cosine and never by dot product.",
        )
    ]


class Doctor:
    """Knows a model's weights, and finds which fault makes its vectors another side's."""

    def __init__(self, embedder: Embedder, other: str) -> None:
        self.embedder, self.other = embedder, other

    def structure(self, texts: Sequence[str], vectors: Vectors) -> tuple[Variant, list[Diagnosis]]:
        """Try other attention, pooling, BOS and EOS on documents; one fault, then several."""
        best = Variant()
        distance = self._distance(texts, vectors, best)
        for _, group in groupby(self._structures(), key=lambda variant: variant.changes):
            if distance < 1 - _SAME:
                break  # a simpler one explains it
            tried = {variant: self._distance(texts, vectors, variant) for variant in group}
            nearest = min(tried, key=lambda variant: tried[variant])
            if tried[nearest] < distance * _EXPLAINED:
                best, distance = nearest, tried[nearest]
        return best, list(self._words(best))

    def _distance(self, texts: Sequence[str], vectors: Vectors, variant: Variant) -> float:
        ours = embed_variant(self.embedder, texts, "document", variant)
        return float(1 - cosines(ours, vectors).mean())

    def _structures(self) -> list[Variant]:
        """Return every combination of structural faults, the simplest first."""
        spec, tokenizer = self.embedder.spec, self.embedder.tokenizer
        attentions = [a for a in get_args(Attention) if a != spec.attention]
        if not self.embedder.can_vary_attention:
            attentions = []
        poolings = [p for p in get_args(Pooling) if p != spec.pooling]
        bos = [not spec.add_bos] if tokenizer.named_bos is not None else []
        eos = [not spec.add_eos] if tokenizer.named_eos is not None else []
        choices = product([None, *attentions], [None, *poolings], [None, *bos], [None, *eos])
        variants = [Variant(*choice) for choice in choices]
        return sorted((v for v in variants if v.changes), key=lambda v: v.changes)

    def _words(self, variant: Variant) -> Iterator[Diagnosis]:
        spec, other = self.embedder.spec, self.other
        if variant.attention is not None:
            yield Diagnosis(
                "attention",
                f"{other} runs {variant.attention} attention; the model is {spec.attention}. "
                "In llama.cpp: --attention non-causal; in a GGUF: the key attention.causal.",
            )
        if variant.pooling is not None:
            yield Diagnosis(
                "pooling",
                f"{other} pools by {variant.pooling}; the model pools by {spec.pooling}. "
                f"In llama.cpp: --pooling {spec.pooling}; in a GGUF: the key pooling_type.",
            )
        for name, value in (("BOS", variant.bos), ("EOS", variant.eos)):
            if value is not None:
                does, should = ("adds", "adds none") if value else ("leaves out", "adds it")
                yield Diagnosis("bos-eos", f"{other} {does} {name}; the model {should}.")

    def prefix(
        self, texts: Sequence[str], vectors: Vectors, role: Role, structure: Variant
    ) -> list[Diagnosis]:
        """Try a missing and a doubled prefix."""
        own = self.embedder.spec.prefix(role)
        query = self.embedder.spec.prefix("query")
        faults: dict[str, tuple[Kind, str]] = {"": ("prefix-missing", "leaves out")}
        faults[own + own] = ("prefix-doubled", "writes twice")
        if role == "document" and query:
            faults[query] = ("prefix-doubled", "writes the query's prefix before documents:")
        faults.pop(own, None)
        if not own and role == "query":
            return []
        distances = {
            prefix: self._prefixed(texts, vectors, role, replace(structure, prefix=prefix))
            for prefix in (own, *faults)
        }
        best = min(distances, key=lambda prefix: distances[prefix])
        if best == own or distances[best] > distances[own] * _EXPLAINED:
            return []
        kind, verb = faults[best]
        shown = query if verb.endswith(":") else own
        return [Diagnosis(kind, f"For {_PLURAL[role]}, {self.other} {verb} the prefix {shown!r}.")]

    def _prefixed(
        self, texts: Sequence[str], vectors: Vectors, role: Role, variant: Variant
    ) -> float:
        return float(
            1 - cosines(embed_variant(self.embedder, texts, role, variant), vectors).mean()
        )

    def truncation(self, text: str, vector: Vectors, structure: Variant) -> list[Diagnosis]:
        """Find after how many tokens the other side stopped reading an over-long text."""
        full = self._read(text, vector, structure, self.embedder.spec.max_tokens)
        if full > _SAME:
            return []
        total = self.embedder.tokenizer.encode([text], self.embedder.spec, "document").counts[0]
        limit = min(total, self.embedder.spec.max_tokens)
        most = min(total, self.embedder.files.architecture.max_positions)
        grid = [n for n in _LENGTHS if n < most and n != limit]
        scores = {n: self._read(text, vector, structure, n) for n in (*grid, most)}
        number = self._peak(text, vector, structure, max(scores, key=lambda n: scores[n]), most)
        score = self._read(text, vector, structure, number)
        if 1 - score > (1 - full) * _EXPLAINED:
            return []
        advice = (
            "Raise its limit (llama.cpp and Ollama: context and batch size)."
            if number < limit
            else "Cut texts before they are sent, or give the model a larger max_tokens."
        )
        return [
            Diagnosis(
                "truncated",
                f"{self.other} silently read {number:,} tokens of a text of {total:,}; the model "
                f"reads {limit:,}. {advice}",
            )
        ]

    def tokens(
        self, texts: Sequence[str], near: Cosines, names: Sequence[str], most_tokens: int
    ) -> list[Diagnosis]:
        """Say whether a few texts are far off while the others are alike.

        Rounding touches all texts; another tokenizer, those in some scripts.

        Args:
            texts: Documents.
            near: Each one's cosine.
            names: Each one's name, to be shown.
            most_tokens: Longer texts are left out: they may be far off because they were cut.
        """
        spec = replace(self.embedder.spec, max_tokens=2**31)
        counts = self.embedder.tokenizer.encode(texts, spec, "document").counts
        short = np.flatnonzero(np.array(counts) <= most_tokens)
        far = [n for n in short[near[short].argsort()] if near[n] < _FAR]
        if not far or np.median(near[short]) < _MOST_ALIKE:
            return []
        shown = ", ".join(names[n] for n in far[:_SHOWN_TEXTS])
        return [
            Diagnosis(
                "tokenizer",
                f"{self.other} is far off for {len(far)} of {len(short)} texts ({shown}"
                f"{' ...' if len(far) > _SHOWN_TEXTS else ''}) and near for the others (median "
                f"cosine {np.median(near[short]):.5f}): its tokens of those are most likely "
                "others. Compare them (llama-server: POST /tokenize).",
            )
        ]

    def _read(self, text: str, vector: Vectors, structure: Variant, max_tokens: int) -> float:
        variant = replace(structure, max_tokens=max_tokens)
        return float(cosines(embed_variant(self.embedder, [text], "document", variant), vector)[0])

    def _peak(self, text: str, vector: Vectors, structure: Variant, start: int, limit: int) -> int:
        """Climb to the number of tokens with the highest cosine, halving the step."""
        best, step = start, start // 2
        score = self._read(text, vector, structure, best)
        while step >= 1 and score < 0.999_999:
            for number in (best - step, best + step):
                if 8 <= number <= limit:
                    tried = self._read(text, vector, structure, number)
                    if tried > score:
                        best, score = number, tried
            step //= 2
        return best


def remainder(cosine_mean: float, other: str) -> Diagnosis:
    """Say what is left when no fault explains a difference."""
    if cosine_mean >= _PRECISION:
        return Diagnosis(
            "precision",
            f"{other} differs only as rounding does (mean cosine {cosine_mean:.5f}): the same "
            "model at another precision or quantization.",
        )
    return Diagnosis(
        "unknown",
        f"No fault that was tried makes {other}'s vectors these (mean cosine {cosine_mean:.3f}): "
        "other weights or another tokenizer.",
    )
