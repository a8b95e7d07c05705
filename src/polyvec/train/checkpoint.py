"""Checkpoints: written whole or not at all, and models made of them.

A checkpoint is a folder ``step-00000500`` with ``weights.safetensors`` (what is trained, fp32),
``optimizer.safetensors`` and ``state.json``. It is written under another name, synced and renamed.
"""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from polyvec.disk import full_disk_is_an_error
from polyvec.errors import ResumeError
from polyvec.model.files import ModelFiles
from polyvec.model.save import save_folder, save_tensors
from polyvec.model.weights import Weights
from polyvec.train.ranks import Ranks, fill, whole

_WEIGHTS, _OPTIMIZER, _STATE = "weights.safetensors", "optimizer.safetensors", "state.json"
_NAME = re.compile(r"step-(\d{8})")
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read back."""

    step: int
    """Steps done."""
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]


def write_checkpoint(
    folder: Path,
    step: int,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    ranks: Ranks,
) -> Path:
    """Write a checkpoint; all ranks call it, the first writes.

    Raises:
        DiskFullError: There is no room; nothing half-written is left.
    """
    weights = collect(parameters, ranks)
    moments = collect(_moments(parameters, optimizer), ranks)
    path = folder / f"step-{step:08}"
    if ranks.first:
        _write(path, weights, moments, {"step": step, **state})
    ranks.barrier()
    return path


def collect(tensors: Mapping[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """Return whole tensors in the first rank's memory, and nothing on the others."""
    found = {}
    for name, tensor in tensors.items():
        full = whole(tensor.detach())
        if ranks.first:
            found[name] = full.cpu().contiguous()
    return found


def _moments(
    parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    return {
        f"{moment}.{name}": optimizer.state[parameter][moment]
        for name, parameter in parameters.items()
        for moment in _MOMENTS
        if moment in optimizer.state[parameter]
    }


def _write(
    path: Path, weights: dict[str, Tensor], moments: dict[str, Tensor], state: dict[str, Any]
) -> None:
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with full_disk_is_an_error(path, "The checkpoints before it are whole; make room."):
            partial.mkdir(parents=True)
            save_tensors(weights, partial / _WEIGHTS)
            save_tensors(moments, partial / _OPTIMIZER)
            (partial / _STATE).write_bytes(orjson.dumps(state, option=orjson.OPT_INDENT_2))
            for file in partial.iterdir():
                _sync(file)
            shutil.rmtree(path, ignore_errors=True)
            partial.rename(path)
            _sync(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def checkpoints(folder: Path) -> list[Path]:
    """Return the whole checkpoints of a folder, oldest first."""
    found = (path for path in folder.glob("step-*") if _NAME.fullmatch(path.name))
    return sorted(path for path in found if (path / _STATE).is_file())


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        ResumeError: It is not whole.
    """
    try:
        state = orjson.loads((path / _STATE).read_bytes())
        weights, moments = load_file(path / _WEIGHTS), load_file(path / _OPTIMIZER)
        return Checkpoint(int(state["step"]), weights, moments, state)
    except (OSError, SafetensorError, orjson.JSONDecodeError, KeyError) as error:
        raise ResumeError(
            f"The checkpoint {path} is not whole ({error}). Remove it to go on from the one before."
        ) from error


def restore_optimizer(
    checkpoint: Checkpoint,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Give the optimizer the state it had.

    Raises:
        ResumeError: The checkpoint is of other parameters.
    """
    for name, parameter in parameters.items():
        moments = {m: checkpoint.optimizer.get(f"{m}.{name}") for m in _MOMENTS}
        if any(value is None for value in moments.values()):
            raise ResumeError(f"The checkpoint has no optimizer state of {name}.")
        state: dict[str, Tensor] = {}
        for moment, value in moments.items():
            assert value is not None
            if moment == "step":
                state[moment] = value.to(parameter.device)
                continue
            state[moment] = torch.zeros_like(parameter)
            with torch.no_grad():
                fill(state[moment], value)
        optimizer.state[parameter] = state


def prune(folder: Path, keep: int, best: str | None) -> None:
    """Remove all but the newest checkpoints and the best one."""
    for path in checkpoints(folder)[:-keep]:
        if path.name != best:
            shutil.rmtree(path)


class MemoryWeights:
    """Trained tensors over those of a model's files, as :class:`polyvec.model.weights.Weights`."""

    def __init__(self, tensors: Mapping[str, Tensor], base: Weights, kept: Sequence[str]) -> None:
        self._tensors, self._base = tensors, base
        self.names = {*tensors, *kept}
        self.files = base.files

    def tensor(self, name: str) -> Tensor:
        """Return a tensor."""
        return self._tensors[name] if name in self._tensors else self._base.tensor(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        if name in self._tensors:
            return tuple(self._tensors[name].shape)
        return self._base.shape(name)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return some rows."""
        if name in self._tensors:
            return self._tensors[name][start:stop]
        return self._base.rows(name, start, stop)


def write_model(
    folder: Path,
    files: ModelFiles,
    tensors: Mapping[str, Tensor],
    names: Sequence[str],
    matryoshka_dimensions: Sequence[int],
) -> None:
    """Write a trained model as a folder that polyvec, sentence-transformers and transformers load.

    Args:
        folder: Replaced if it is there.
        files: The model it was trained from.
        tensors: Weights that were trained, whole.
        names: All weights the network has; those not trained are taken from ``files``.
        matryoshka_dimensions: What the loss trained beside the whole vector.
    """
    factors = [name for name in ("rope_freqs.weight",) if name in files.weights.names]
    weights = MemoryWeights(tensors, files.weights, [*names, *factors])
    dimensions = tuple(matryoshka_dimensions) or files.spec.matryoshka_dimensions
    spec = replace(files.spec, matryoshka_dimensions=dimensions)
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    save_folder(replace(files, spec=spec, weights=weights), fresh)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
