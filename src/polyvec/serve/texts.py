"""Texts to tokens for a request, in threads of their own, and rows back to vectors."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from polyvec.model.pooling import shape_vectors
from polyvec.model.tokens import Tokens
from polyvec.serve.batcher import Rows
from polyvec.serve.failures import ServeError
from polyvec.serve.reading import Reading
from polyvec.spec import Spec

if TYPE_CHECKING:
    from polyvec.model.files import ModelFiles

Inputs = Sequence[str] | Sequence[Sequence[int]]
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Prepared:
    """What goes to the model for a request, and what happened on the way."""

    ids: list[list[int]]
    """One list a piece; a text is one piece unless it is averaged."""
    pieces: list[int]
    """Pieces of each text."""
    counts: list[int]
    """Tokens of each text before any cut."""
    cut: list[int]
    """Indices of texts that were cut."""

    @property
    def num_tokens(self) -> int:
        """Tokens that are computed."""
        return sum(map(len, self.ids))


class Tokenization:
    """Threads that tokenize, so that a large request does not hold up small ones."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="polyvec-tokenize")

    def close(self) -> None:
        """End the threads."""
        self.pool.shutdown(wait=True, cancel_futures=True)


def prepare(
    files: "ModelFiles", inputs: Inputs, reading: Reading, max_tokens: int | None
) -> Prepared:
    """Tokenize a request's inputs.

    Args:
        files: The model's spec and tokenizer.
        inputs: Texts, or token ids of the model's own tokenizer.
        reading: Role, instruction, long inputs.
        max_tokens: Read fewer tokens of a text than the model can.

    Raises:
        InputError: A text is empty or not Unicode, too long and not to be cut, an id unknown, ...
    """
    spec = files.spec if max_tokens is None else _limited(files.spec, max_tokens)
    if inputs and not isinstance(inputs[0], str):
        return _prepare_ids(files, inputs, spec, reading)  # type: ignore[arg-type]
    texts: list[str] = list(inputs)  # type: ignore[arg-type]
    for index, text in enumerate(texts):
        if not text.strip():
            raise ServeError("invalid", f"Text {index} is empty or white space. Leave it out.")
    role, instruction = reading.role, reading.instruction
    if reading.long_input == "average":
        pieces = files.tokenizer.encode_pieces(texts, spec, role, instruction)
        ids = [piece for text in pieces for piece in text]
        return Prepared(ids, [*map(len, pieces)], [sum(map(len, p)) for p in pieces], [])
    tokens = files.tokenizer.encode(texts, spec, role, instruction, reading.long_input)
    return _one_piece_each(tokens)


def _prepare_ids(
    files: "ModelFiles", inputs: Sequence[Sequence[int]], spec: Spec, reading: Reading
) -> Prepared:
    if reading.instruction is not None or reading.long_input == "average":
        raise ServeError(
            "invalid",
            "An instruction, or averaging of long inputs, was asked for with inputs that are token "
            "ids. Send strings.",
        )
    for index, ids in enumerate(inputs):
        if not ids:
            raise ServeError("invalid", f"Text {index} is an empty list of token ids.")
    return _one_piece_each(
        files.tokenizer.encode_ids(inputs, spec, reading.role, reading.long_input)
    )


def _limited(spec: Spec, max_tokens: int) -> Spec:
    return replace(spec, max_tokens=min(spec.max_tokens, max_tokens))


def _one_piece_each(tokens: Tokens) -> Prepared:
    return Prepared(tokens.ids, [1] * len(tokens.ids), tokens.counts, tokens.cut)


def finish(
    rows: Rows, prepared: Prepared, spec: Spec, dimensions: int | None, normalize: bool | None
) -> Vectors:
    """Turn pooled rows into the vectors of a request, ``float32 [texts, dimensions]``.

    A text in pieces gets the mean of its pieces' vectors, weighted by their tokens, as long as the
    model's vectors are: scaled to 1 if they are scaled.

    Raises:
        InputError: The model is not Matryoshka, or was not trained for that length.
    """
    size = spec.check_dimensions(dimensions)
    unit = spec.normalize if normalize is None else normalize
    pooled = torch.from_numpy(np.stack(rows))
    vectors = shape_vectors(pooled, size, unit)
    if len(prepared.ids) == len(prepared.pieces):
        return vectors
    weights = np.array([len(ids) for ids in prepared.ids], dtype=np.float32)
    starts = np.cumsum([0, *prepared.pieces[:-1]])
    sums = np.add.reduceat(vectors * weights[:, None], starts, axis=0)
    means = sums / np.add.reduceat(weights, starts)[:, None]
    return shape_vectors(torch.from_numpy(means), size, unit)
