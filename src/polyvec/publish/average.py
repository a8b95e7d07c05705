"""The weighted average of several models' tensors, computed as it is read.

It has the face of any model's weights, so that the writer of folders streams it and the engine
runs it; nothing but the rows asked for is in memory.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from polyvec.errors import InputError, ModelFileError, SpecError
from polyvec.model.files import ModelFiles
from polyvec.model.save import saved_names
from polyvec.model.weights import Weights, row_blocks
from polyvec.publish.sides import read_probes
from polyvec.spec import spec_facts

_SAME_KIND = {"llama-embed": "llama", "llama_bidirec": "llama"}
"""Names of one and the same network."""


@dataclass(frozen=True)
class AveragedWeights:
    """The weighted mean of models of one shape; see :class:`polyvec.model.weights.Weights`.

    Sums are float64 and divided by the sum of shares at the end, so that a mean of float32 or
    bfloat16 weights is exact but for one rounding, when it is written or loaded.
    """

    parts: tuple[Weights, ...]
    shares: tuple[float, ...]
    """What each part counts, in any scale."""
    dtype: torch.dtype
    """The type that :meth:`tensor` rounds to."""
    on_rows: Callable[[int], None] | None = None
    """Told of every block how many weights it has."""

    @property
    def files(self) -> list[Path]:
        """The files of all parts."""
        return [path for part in self.parts for path in part.files]

    @property
    def names(self) -> list[str]:
        """The tensors that make vectors; an output head or a buffer is not averaged."""
        return saved_names(self.parts[0].names)

    def tensor(self, name: str) -> Tensor:
        """Return the average in ``dtype``, as a written file would have it."""
        return torch.cat([rows.to(self.dtype) for rows in row_blocks(self, name)])

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return self.parts[0].shape(name)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return the average of some rows, unrounded: float64."""
        mean_RD = self.parts[0].rows(name, start, stop).double().mul_(self.shares[0])
        for part, share in zip(self.parts[1:], self.shares[1:], strict=True):
            mean_RD.add_(part.rows(name, start, stop), alpha=share)
        if self.on_rows is not None:
            self.on_rows(mean_RD.numel())
        return mean_RD.div_(sum(self.shares))


def average(
    sources: Sequence[ModelFiles],
    shares: Sequence[float],
    dtype: torch.dtype,
    on_rows: Callable[[int], None] | None = None,
) -> ModelFiles:
    """Return the model whose weights are the average, computed when they are read.

    Args:
        sources: Models that passed :func:`check_alike`.
        shares: What each counts, in any scale; none below 0.
        dtype: The type the weights are rounded to.
        on_rows: Told of every block of rows how many weights it has.
    """
    parts = [(files.weights, w) for files, w in zip(sources, shares, strict=True) if w]
    weights = AveragedWeights(
        tuple(part for part, _ in parts), tuple(share for _, share in parts), dtype, on_rows
    )
    return replace(sources[0], weights=weights)


def check_alike(sources: Sequence[ModelFiles]) -> None:
    """Refuse models whose average would be none of them.

    Raises:
        SpecError: They differ in shape, in spec or in tokenizer; the message says in what.
        ModelFileError: One lacks a tensor that another has, or has it in another shape.
    """
    first = sources[0]
    for other in sources[1:]:
        _check_shapes(first, other)
        _check_specs(first, other)
        _check_tensors(first, other)
        _check_tokenizers(first, other)


def check_shares(shares: Sequence[float], count: int) -> None:
    """Refuse weights that make no average.

    Raises:
        InputError: There are not as many as models, one is below 0 or no number, or all are 0.
    """
    if len(shares) != count:
        raise InputError(
            f"{len(shares)} weight(s) are given for {count} model(s); give one for each, in the "
            "same order, or none for the equal average."
        )
    if not all(0 <= share < float("inf") for share in shares) or not sum(shares):
        raise InputError(
            f"The weights are {', '.join(f'{w:g}' for w in shares)}; each must be a number from 0 "
            "on, and one above 0. They are scaled to sum to 1."
        )


def _check_shapes(first: ModelFiles, other: ModelFiles) -> None:
    differing = _differing(_shape_facts(first), _shape_facts(other))
    _refuse(differing, first, other, "shape", "Only checkpoints of one model can be averaged.")


def _shape_facts(files: ModelFiles) -> dict[str, object]:
    kind = files.architecture.model_type
    return vars(files.architecture) | {"model_type": _SAME_KIND.get(kind, kind)}


def _check_specs(first: ModelFiles, other: ModelFiles) -> None:
    differing = _differing(spec_facts(first.spec), spec_facts(other.spec))
    advice = (
        "Vectors of the average would fit neither. If one file is wrong, correct it; --attention, "
        "--pooling and --max-tokens state theirs for all."
    )
    _refuse(differing, first, other, "spec", advice)


def _refuse(
    differing: list[str], first: ModelFiles, other: ModelFiles, what: str, advice: str
) -> None:
    if differing:
        raise SpecError(
            f"{other.path} cannot be averaged with {first.path}, their {what} differs: "
            f"{'; '.join(differing)}. {advice}"
        )


def _differing(first: dict[str, object], other: dict[str, object]) -> list[str]:
    names = [name for name in first | other if first.get(name) != other.get(name)]
    return [f"{name} is {other.get(name)!r} and {first.get(name)!r}" for name in names]


def _check_tensors(first: ModelFiles, other: ModelFiles) -> None:
    ours, theirs = (set(saved_names(files.weights.names)) for files in (first, other))
    for name in sorted(ours ^ theirs):
        has, lacks = (first, other) if name in ours else (other, first)
        raise ModelFileError(
            f"{has.path} has a tensor {name} and {lacks.path} has none, so they cannot be averaged."
        )
    for name in sorted(ours):
        a, b = first.weights.shape(name), other.weights.shape(name)
        if a != b:
            raise ModelFileError(
                f"Tensor {name} is {list(a)} in {first.path} and {list(b)} in {other.path}, so "
                "they cannot be averaged."
            )


def _check_tokenizers(first: ModelFiles, other: ModelFiles) -> None:
    """Compare vocabularies, and the tokens of the probe set; files of equal meaning may differ."""
    ours, theirs = (files.tokenizer.backend for files in (first, other))
    vocabularies = [dict(backend.get_vocab()) for backend in (ours, theirs)]
    texts = [probe.text for probe in read_probes()]
    tokens = [
        [e.ids for e in backend.encode_batch(texts, add_special_tokens=False)]
        for backend in (ours, theirs)
    ]
    if vocabularies[0] != vocabularies[1] or tokens[0] != tokens[1]:
        raise SpecError(
            f"{other.path} cannot be averaged with {first.path}: their tokenizers differ, so one "
            "row of the token table stands for two tokens. Only checkpoints of one model can be."
        )
