"""Texts of a file, their labels and their vectors, for classifiers and clusters."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from polyvec.engine.peers import Peer
from polyvec.engine.rows import Row
from polyvec.errors import InputError
from polyvec.evaluate.cache import VectorCache
from polyvec.evaluate.question import Progress
from polyvec.spec import Role

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Reading:
    """How texts are turned into vectors."""

    role: Role = "document"
    instruction: str | None = None

    def __post_init__(self) -> None:
        if self.instruction is not None and self.role != "query":
            raise InputError("An instruction is for queries: give --role query, or leave it out.")


def vectors_of(
    rows: Sequence[Row],
    peer: Peer,
    reading: Reading,
    cache_folder: Path,
    progress: Progress | None = None,
) -> Vectors:
    """Embed rows, ``float32 [rows, d]``; what was embedded before comes from the cache."""
    cache = VectorCache(cache_folder, peer)
    texts = [row.text for row in rows]
    return cache.encode(texts, reading.role, reading.instruction, progress)


def labels_of(rows: Iterable[Row]) -> list[str]:
    """Return the rows' labels, which are read as the column of what is relevant.

    Raises:
        InputError: A row has an empty one.
    """
    labels = []
    for row in rows:
        label = "" if row.relevant is None else str(row.relevant)
        if not label.strip():
            raise InputError(f"{row.where} has no label.")
        labels.append(label)
    return labels


def made_by(peer: Peer, reading: Reading) -> dict[str, Any]:
    """Return what decides the vectors."""
    return {"model": peer.name, "fingerprint": peer.fingerprint, **asdict(reading)}


def check_made_by(facts: dict[str, Any], peer: Peer, path: Path) -> None:
    """Refuse a classifier that was trained on another model's vectors.

    Raises:
        InputError: The fingerprint is another one.
    """
    if facts["fingerprint"] != peer.fingerprint:
        raise InputError(
            f"{path} was trained on vectors of {facts['model']} (fingerprint "
            f"{facts['fingerprint']}); {peer.name} has {peer.fingerprint}. Use the same model and "
            "--precision, or train again."
        )
