"""What a precision costs a model, as measured, and what ``auto`` takes therefore.

int8 keeps the vectors of one model and not of the next, and no shape tells which. So ``auto`` takes
it for weights on which it was measured to keep them: ours, in ``quality.toml``, and the user's own,
which ``polyvec precision`` measures and remembers.
"""

import functools
import hashlib
import os
import tomllib
from dataclasses import asdict, dataclass
from importlib.resources import files as resources
from pathlib import Path

import orjson
import torch

from polyvec.engine.cpu import has_int8, pick_precision
from polyvec.errors import ModelFileError
from polyvec.hub import cache_folder
from polyvec.kernels.library import library
from polyvec.metrics import Fidelity
from polyvec.model.files import ModelFiles
from polyvec.spec import BertArchitecture

LEAST = Fidelity(mean=0.998, lowest=0.99, kept=0.97)
"""What int8 has to reach against fp32 for ``auto`` to take it."""
LEAST_TEXTS = 400

FILE = "quality.json"
_BLOCK_BYTES, _BLOCKS = 4096, 256


@dataclass(frozen=True)
class Measured:
    """A model at a precision against its own fp32."""

    model: str
    network: str
    parameters: int
    trained: bool
    """Whether known to be trained for retrieval: an untrained model exaggerates every rounding."""
    precision: str
    source: str
    cosine_mean: float
    cosine_lowest: float | None = None
    kept: float | None = None
    """The share of texts whose nearest neighbour stays the same."""
    ndcg_change: float | None = None
    """Of nDCG@10, in hundredths."""
    texts: int | None = None
    weights: str | None = None
    """:func:`weights_key` of the model's files."""

    @property
    def holds(self) -> bool:
        """Whether it keeps fp32's vectors, on texts enough to say so."""
        if self.cosine_lowest is None or self.kept is None or (self.texts or 0) < LEAST_TEXTS:
            return False
        found = Fidelity(self.cosine_mean, self.cosine_lowest, self.kept)
        return all(have >= least for have, least in zip(found, LEAST, strict=True))


def measured(
    files: ModelFiles, name: str, precision: str, found: Fidelity, texts: int, source: str
) -> Measured:
    """Return what was found on a number of texts as a row of the table."""
    return Measured(
        model=name,
        network="bert" if isinstance(files.architecture, BertArchitecture) else "llama",
        parameters=files.architecture.num_parameters,
        trained=False,
        precision=precision,
        source=source,
        cosine_mean=round(found.mean, 5),
        cosine_lowest=round(found.lowest, 4),
        kept=round(found.kept, 4),
        texts=texts,
        weights=weights_key(files),
    )


@functools.cache
def shipped() -> tuple[Measured, ...]:
    """Return what comes with polyvec."""
    table = tomllib.loads((resources("polyvec.engine") / "quality.toml").read_text())
    return tuple(Measured(**row) for row in table["measured"])


def remembered() -> tuple[Measured, ...]:
    """Return what was measured here; nothing where the file is not to be read."""
    try:
        return tuple(Measured(**row) for row in orjson.loads((cache_folder() / FILE).read_bytes()))
    except (OSError, orjson.JSONDecodeError, TypeError):
        return ()  # measured again when asked for


def remember(row: Measured) -> Path:
    """Keep a row for the next time, in the place of one for the same weights and precision."""
    path = cache_folder() / FILE
    key = (row.weights, row.precision)
    kept = [asdict(old) for old in remembered() if (old.weights, old.precision) != key]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_bytes(orjson.dumps([*kept, asdict(row)], option=orjson.OPT_INDENT_2))
    partial.replace(path)
    return path


def measurements() -> tuple[Measured, ...]:
    """Return all that was measured: here first, then what comes with polyvec."""
    return remembered() + shipped()


def of_weights(files: ModelFiles, precision: str) -> Measured | None:
    """Return what is known of a precision on these very weights; the user's own figures first."""
    size = files.architecture.num_parameters
    near = [
        m for m in measurements() if m.weights and (m.precision, m.parameters) == (precision, size)
    ]
    key = weights_key(files) if near else ""  # only read where it may be known
    return next((m for m in near if m.weights == key), None)


def weights_key(files: ModelFiles) -> str:
    """Return a hash of samples of the weights and of how they are run: for telling models apart.

    A megabyte of each file is read, evenly spread; it takes milliseconds and training changes it.
    :meth:`ModelFiles.fingerprint` reads everything.

    Raises:
        ModelFileError: A file cannot be read.
    """
    digest = hashlib.sha256(f"{files.spec.attention} {files.spec.pooling}".encode())
    for path in files.weights.files:
        try:
            size = path.stat().st_size
            digest.update(size.to_bytes(8, "little"))
            with path.open("rb") as file:
                for number in range(_BLOCKS):
                    file.seek(max(0, size - _BLOCK_BYTES) * number // (_BLOCKS - 1))
                    digest.update(file.read(_BLOCK_BYTES))
        except OSError as error:
            raise ModelFileError(f"{path} cannot be read: {error.strerror}.") from error
    return digest.hexdigest()[:16]


def pick_for(files: ModelFiles, precision: str, device: torch.device) -> str:
    """Return the precision for ``auto`` or a stated one; see :func:`pick_precision`.

    ``auto`` is int8 for weights whose vectors it keeps, where the processor multiplies it and the
    row kernels are compiled; else as :func:`pick_precision` says.

    Raises:
        DeviceError: The name is none, or this machine lacks the instructions.
    """
    able = device.type == "cpu" and has_int8() and library() is not None
    if precision == "auto" and able:
        known = of_weights(files, "int8")
        if known is not None and known.holds:
            return "int8"
    return pick_precision(precision, device)
