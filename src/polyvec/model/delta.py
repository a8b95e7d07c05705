"""A trained model as what training changed: a few bits a weight, to be added to its base.

What a fine-tuned matrix differs by from its base is small, so that a coarse code of the difference
moves the weight little: at 4 bits some .1 of the difference, which itself is a fraction of the
weight. A folder holds ``delta.json`` (the number of layers and the spec) and
``delta.safetensors``. For a matrix ``NAME`` ``[rows, columns]`` that has

- ``NAME.planes`` ``uint8 [rows, bits, columns / 8]``: bit planes of codes, highest first;
- ``NAME.scales`` ``float16 [rows, columns / 32]``: a group of 32 columns is
  ``(code - 2**(bits - 1) + 1/2) * scale``.

Vectors are stored as float16 differences, ``NAME.difference``.
"""

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from polyvec.errors import InputError, ModelFileError
from polyvec.model.files import ModelFiles
from polyvec.model.weights import Weights
from polyvec.spec import LlamaArchitecture

FACTS_FILE, WEIGHTS_FILE = "delta.json", "delta.safetensors"
GROUP = 32
"""Columns that share a scale."""
_FACTS = ("attention", "pooling", "query_prefix", "document_prefix", "default_instruction",
          "normalize", "max_tokens", "matryoshka_dimensions")  # fmt: skip
_TRIALS = np.linspace(0.4, 1.0, 13, dtype=np.float32)
"""Ranges tried for a group, as parts of its largest difference: outliers are cut off where the
others gain more."""


@dataclass(frozen=True)
class Loss:
    """What a matrix's difference lost."""

    name: str
    bits: int
    of_difference: float
    """Length of the error over the length of the difference."""
    of_weight: float
    """... over the length of the weight."""


def write_delta(
    base: ModelFiles, trained: ModelFiles, folder: Path, bits: Callable[[str], int]
) -> list[Loss]:
    """Write what a trained model changed of its base, ``bits(name)`` bits for each weight.

    Raises:
        InputError: They are not the same model but for the number of layers, or bits are not 1 to
            8.
        ModelFileError: A tensor cannot be read.
    """
    _check_pair(base, trained)
    tensors: dict[str, Tensor] = {}
    losses = []
    for name in sorted(_kept(trained)):
        old, new = base.weights.tensor(name).float(), trained.weights.tensor(name).float()
        if old.shape != new.shape:
            raise InputError(f"{name} is {tuple(old.shape)} in the base, {tuple(new.shape)} here.")
        if new.ndim == 1:
            tensors[f"{name}.difference"] = (new - old).half()
            continue
        difference = (new - old).numpy()
        codes, scales = _encode(difference, _checked_bits(bits(name)))
        tensors[f"{name}.planes"] = torch.from_numpy(_planes(codes, bits(name)))
        tensors[f"{name}.scales"] = torch.from_numpy(scales)
        error = np.linalg.norm(_decode(codes, scales, bits(name)) - difference)
        lost = [float(error / np.linalg.norm(x)) for x in (difference, new.numpy())]
        losses.append(Loss(name, bits(name), *lost))
    folder.mkdir(parents=True, exist_ok=True)
    facts = {name: value for name, value in asdict(trained.spec).items() if name in _FACTS}
    facts = {"num_layers": trained.architecture.num_layers, "spec": facts}
    save_file(tensors, folder / WEIGHTS_FILE, {"format": "polyvec-delta"})
    (folder / FACTS_FILE).write_bytes(orjson.dumps(facts, option=orjson.OPT_INDENT_2) + b"\n")
    return losses


def _check_pair(base: ModelFiles, trained: ModelFiles) -> None:
    ours, theirs = base.architecture, trained.architecture
    same = isinstance(ours, LlamaArchitecture) and isinstance(theirs, LlamaArchitecture)
    if not same or replace(ours, num_layers=1) != replace(theirs, num_layers=1):
        raise InputError(
            f"{trained.path} is no model made from {base.path} by training: {theirs} against "
            f"{ours}. Only Llama-family models of one shape are compared."
        )
    if theirs.num_layers > ours.num_layers:
        raise InputError(f"{trained.path} has more layers than {base.path}.")


def _kept(files: ModelFiles) -> list[str]:
    """Return the names that make vectors of a model cut to its layers."""
    layers = files.architecture.num_layers
    names = [name for name in files.weights.names if not name.startswith(("lm_head.", "rope_"))]
    return [n for n in names if not n.startswith("layers.") or int(n.split(".")[1]) < layers]


def _checked_bits(bits: int) -> int:
    if not 1 <= bits <= 8:
        raise InputError(f"A weight's difference has 1 to 8 bits, not {bits}.")
    return bits


def _encode(
    difference: npt.NDArray[np.float32], bits: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float16]]:
    """Return codes ``[rows, columns]`` and the scales whose squared error is least."""
    rows, columns = difference.shape
    if columns % GROUP:
        raise InputError(f"{columns} columns are no multiple of {GROUP}.")
    groups = difference.reshape(rows, columns // GROUP, GROUP)
    largest = np.abs(groups).max(-1) / 2 ** (bits - 1)
    best = np.zeros(largest.shape, np.float16)
    least = np.full(largest.shape, np.inf, np.float32)
    for part in _TRIALS:
        scales = (largest * part).astype(np.float16)
        error = ((_round(groups, scales, bits)[1] - groups) ** 2).sum(-1)
        better = error < least
        best[better], least[better] = scales[better], error[better]
    codes = _round(groups, best, bits)[0]
    return codes.astype(np.uint8).reshape(rows, columns), best


def _round(
    groups: npt.NDArray[np.float32], scales: npt.NDArray[np.float16], bits: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the nearest codes, and the differences they stand for."""
    wide = scales.astype(np.float32)[..., None]
    shift = 2 ** (bits - 1) - 0.5
    divided = np.divide(groups, wide, out=np.zeros_like(groups), where=wide != 0)
    codes = np.clip(np.rint(divided + shift), 0, 2**bits - 1).astype(np.float32)
    return codes, (codes - np.float32(shift)) * wide


def _decode(
    codes: npt.NDArray[np.uint8], scales: npt.NDArray[np.float16], bits: int
) -> npt.NDArray[np.float32]:
    rows, columns = codes.shape
    centred = codes.astype(np.float32) - np.float32(2 ** (bits - 1) - 0.5)
    groups = centred.reshape(rows, columns // GROUP, GROUP) * scales.astype(np.float32)[..., None]
    return groups.reshape(rows, columns)


def _planes(codes: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    planes = [np.packbits((codes >> b) & 1, axis=1) for b in reversed(range(bits))]
    return np.stack(planes, axis=1)


def _codes(planes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    rows, bits, width = planes.shape
    codes = np.zeros((rows, width * 8), np.uint8)
    for plane in range(bits):
        codes = (codes << 1) | np.unpackbits(planes[:, plane], axis=1)
    return codes


class DeltaWeights:
    """A base's weights with a delta added."""

    def __init__(self, base: Weights, path: Path, names: Collection[str]) -> None:
        self._base, self._path, self.names = base, path, frozenset(names)
        try:
            self._file = safe_open(path, framework="np")
        except (OSError, SafetensorError) as error:
            raise ModelFileError(f"{path} cannot be read: {error}. Install again.") from error
        self._keys = frozenset(self._file.keys())

    @property
    def files(self) -> list[Path]:
        """The base's files and the delta's."""
        return [*self._base.files, self._path]

    def tensor(self, name: str) -> Tensor:
        """Read a tensor, as fp32."""
        return self.rows(name, 0, self.shape(name)[0])

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        if name not in self.names:
            raise ModelFileError(f"{self._path} has no tensor {name}.")
        return self._base.shape(name)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Read rows ``start:stop`` of a tensor, as fp32."""
        self.shape(name)
        old = self._base.rows(name, start, stop).float()
        if f"{name}.difference" in self._keys:
            return old + torch.from_numpy(self._part(f"{name}.difference", start, stop)).float()
        planes, scales = (self._part(f"{name}.{x}", start, stop) for x in ("planes", "scales"))
        return old + torch.from_numpy(_decode(_codes(planes), scales, planes.shape[1]))

    def _part(self, key: str, start: int, stop: int) -> npt.NDArray[Any]:
        if key not in self._keys:
            raise ModelFileError(f"{self._path} has no {key}: it is broken. Install again.")
        part: npt.NDArray[Any] = self._file.get_slice(key)[start:stop]
        return part


def read_delta_facts(folder: Path) -> dict[str, Any]:
    """Return ``num_layers`` and ``spec`` of a delta.

    Raises:
        ModelFileError: It cannot be read.
    """
    try:
        facts: dict[str, Any] = orjson.loads((folder / FACTS_FILE).read_bytes())
        return {"num_layers": int(facts["num_layers"]), "spec": dict(facts["spec"])}
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{folder / FACTS_FILE} cannot be read: {error}.") from error


def add_delta(base: ModelFiles, folder: Path) -> ModelFiles:
    """Return the trained model: the base cut to its layers, with the delta added, and its spec.

    Raises:
        ModelFileError: The delta cannot be read, or is not this base's.
    """
    facts = read_delta_facts(folder)
    shape = replace(base.architecture, num_layers=facts["num_layers"])
    stated = facts["spec"] | {
        "matryoshka_dimensions": tuple(facts["spec"].get("matryoshka_dimensions", ()))
    }
    cut = replace(base, architecture=shape, spec=replace(base.spec, **stated))
    weights = DeltaWeights(base.weights, folder / WEIGHTS_FILE, _kept(cut))
    return replace(cut, weights=weights)
