"""A LoRA adapter in PEFT's files, folded into its base's weights as they are read.

The files are PEFT's (huggingface/peft, docs/source/developer_guides/checkpoint.md):
``adapter_config.json`` and ``adapter_model.safetensors``, whose names are the module's path after
``base_model.model.`` and ``lora_A.weight``, ``lora_B.weight``. Folded: ``W + scale * B @ A`` with
``scale = lora_alpha / r``, or ``lora_alpha / sqrt(r)`` for rank-stabilized LoRA.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from polyvec.errors import ModelFileError, SpecError
from polyvec.model.files import ModelFiles
from polyvec.model.folder import read_json
from polyvec.model.weights import Weights, row_blocks

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"

_KEY = re.compile(
    r"base_model\.model\.(?P<module>.+)\.lora_(?P<kind>(?:embedding_)?[AB])(?:\.weight)?"
)
_REPLACED = re.compile(r"base_model\.model\.(?P<name>.+\.(?:weight|bias))")
_PLAIN_STARTS = (True, False, "gaussian", "eva", "orthogonal")
"""Ways to begin that leave the base's weights alone, so that they can be added to."""


def is_adapter(path: Path) -> bool:
    """Tell whether a folder holds an adapter and no model."""
    return (path / CONFIG_FILE).is_file() and not (path / "config.json").is_file()


@dataclass(frozen=True)
class _Delta:
    """What is added to one tensor."""

    a: str
    b: str
    scale: float
    transposed: bool
    """Whether it is a token table's: its rows are A's columns."""


class Adapter:
    """An adapter, opened: which tensors it changes, and by what.

    Raises:
        ModelFileError: A file is missing, corrupt, or no adapter's.
        SpecError: It is of a kind that cannot be folded, or not fully read here.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = read_json(folder / CONFIG_FILE)
        _check_kind(self.config, folder)
        self._file = _open(folder / WEIGHTS_FILE)
        self._deltas: dict[str, _Delta] = {}
        self._replaced: dict[str, str] = {}

    @property
    def base(self) -> str | None:
        """The base's name, as whoever trained it called it."""
        name = self.config.get("base_model_name_or_path")
        return None if name is None else str(name)

    def bind(self, base: ModelFiles) -> None:
        """Find the base's tensor for every one of the adapter's.

        Raises:
            ModelFileError: The base has no such tensor, or one of another shape.
        """
        keys: set[str] = set(self._file.keys())
        for key in sorted(keys):
            found = _KEY.fullmatch(key)
            if found is None:
                self._bind_replaced(key, base)
            elif found["kind"].endswith("A"):
                self._bind_delta(key, found, keys, base)
        paired = {name for delta in self._deltas.values() for name in (delta.a, delta.b)}
        alone = sorted(keys - paired - set(self._replaced.values()))
        if alone:
            raise ModelFileError(f"{self.folder}: {alone[0]} has no A beside its B.")

    def _bind_delta(self, key: str, found: re.Match[str], keys: set[str], base: ModelFiles) -> None:
        partner = f"lora_{found['kind'][:-1]}B".join(key.rsplit(f"lora_{found['kind']}", 1))
        if partner not in keys:
            raise ModelFileError(f"{self.folder}: {key} has no B beside its A.")
        name = self._base_name(f"{found['module']}.weight", base.weights.names)
        table = found["kind"].startswith("embedding")
        (rank, inner), (outer, other_rank) = self._shape(key), self._shape(partner)
        shape = (inner, outer) if table else (outer, inner)
        if rank != other_rank or base.weights.shape(name) != shape:
            raise ModelFileError(
                f"{self.folder}: {key} and its B are [{rank}, {inner}] and [{outer}, {other_rank}] "
                f"and {name} of {base.path} is {list(base.weights.shape(name))}. The adapter is of "
                "another model; give its own with --base."
            )
        scale = self._scale(found["module"], rank)
        self._deltas[name] = _Delta(key, partner, scale, table)

    def _bind_replaced(self, key: str, base: ModelFiles) -> None:
        """A tensor that is stored whole: ``modules_to_save``, a bias, or a token table.

        PEFT stores the table itself (``base_layer``) beside an adapter on it.
        """
        plain = re.sub(r"\.(modules_to_save(\.default)?|base_layer)(?=\.)", "", key)
        found = _REPLACED.fullmatch(plain)
        if found is None or ".lora_" in key:
            raise SpecError(
                f"{self.folder} has a tensor {key}, which polyvec cannot fold. Merge it with peft "
                "(merge_and_unload), then give the merged folder."
            )
        name = self._base_name(found["name"], base.weights.names)
        if self._shape(key) != base.weights.shape(name):
            raise ModelFileError(
                f"{self.folder}: {key} is {list(self._shape(key))} and {name} of {base.path} is "
                f"{list(base.weights.shape(name))}. The adapter is of another model; give its own "
                "with --base."
            )
        self._replaced[name] = key

    def _base_name(self, stored: str, names: Collection[str]) -> str:
        """Take path components off the front until the base knows the rest."""
        name = stored
        while name not in names:
            _, dot, name = name.partition(".")
            if not dot:
                raise ModelFileError(
                    f"{self.folder} changes {stored}, which its base does not have. The adapter is "
                    "of another model; give its own with --base."
                )
        return name

    def _scale(self, module: str, rank: int) -> float:
        """Return alpha / rank; a pattern may give a module an alpha of its own, as in PEFT."""
        patterns: dict[str, float] = self.config.get("alpha_pattern") or {}
        found = (p for p in patterns if re.match(rf"(.*\.)?({p})$", module))
        own = next(found, None)
        alpha = self.config["lora_alpha"] if own is None else patterns[own]
        return float(alpha) / (sqrt(rank) if self.config.get("use_rslora") else rank)

    def _shape(self, key: str) -> tuple[int, ...]:
        return tuple(self._file.get_slice(key).get_shape())

    @property
    def num_tensors(self) -> int:
        """How many of the base's tensors it changes."""
        return len(self._deltas.keys() | self._replaced.keys())

    def apply(self, name: str, rows_RD: Tensor, start: int) -> Tensor:
        """Return rows of the base with the adapter on, in float32 where it changes them."""
        stop = start + len(rows_RD)
        if name in self._replaced:
            rows_RD = self._file.get_slice(self._replaced[name])[start:stop]
        if name not in self._deltas:
            return rows_RD
        delta = self._deltas[name]
        if delta.transposed:
            left = self._file.get_slice(delta.a)[:, start:stop].float().T
            right = self._file.get_tensor(delta.b).float().T
        else:
            left = self._file.get_slice(delta.b)[start:stop].float()
            right = self._file.get_tensor(delta.a).float()
        return rows_RD.float().addmm(left, right, alpha=delta.scale)


@dataclass(frozen=True)
class FoldedWeights:
    """A base's weights with an adapter on; see :class:`polyvec.model.weights.Weights`."""

    base: Weights
    adapter: Adapter

    @property
    def files(self) -> list[Path]:
        """The files of both."""
        return [*self.base.files, self.adapter.folder / WEIGHTS_FILE]

    @property
    def names(self) -> Collection[str]:
        """The base's tensors."""
        return self.base.names

    def tensor(self, name: str) -> Tensor:
        """Return a tensor, in float32 where the adapter changes it."""
        return torch.cat(list(row_blocks(self, name)))

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return self.base.shape(name)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return some rows, in float32 where the adapter changes them."""
        return self.adapter.apply(name, self.base.rows(name, start, stop), start)


def fold(base: ModelFiles, folder: Path) -> ModelFiles:
    """Return the base with an adapter folded in, computed when its weights are read.

    Raises:
        ModelFileError: The adapter is incomplete, corrupt or of another model.
        SpecError: It is of a kind that cannot be folded.
    """
    adapter = Adapter(folder)
    adapter.bind(base)
    return replace(base, path=folder, weights=FoldedWeights(base.weights, adapter))


def _check_kind(config: dict[str, Any], folder: Path) -> None:
    if not config:
        raise ModelFileError(f"{folder} has no {CONFIG_FILE}, so it is no adapter.")
    start = config.get("init_lora_weights", True)
    problem = None
    if config.get("peft_type", "LORA") != "LORA":
        problem = f"is of type {config['peft_type']}"
    elif config.get("use_dora"):
        problem = "is a DoRA, which scales rows too"
    elif config.get("lora_bias"):
        problem = "has biases inside LoRA (lora_bias)"
    elif config.get("fan_in_fan_out"):
        problem = "is for weights stored the other way round (fan_in_fan_out)"
    elif start not in _PLAIN_STARTS:
        problem = f"began with {start!r}, which changed the base's weights as well"
    if problem is not None:
        raise SpecError(
            f"{folder} {problem}; polyvec folds plain LoRA. Merge it with peft "
            "(merge_and_unload), then give the merged folder."
        )
    if not isinstance(config.get("lora_alpha"), int | float):
        raise ModelFileError(f"{folder / CONFIG_FILE} has no number as lora_alpha.")


def _open(path: Path) -> safe_open:
    if not path.is_file():
        raise ModelFileError(
            f"{path.parent} has no {WEIGHTS_FILE}; polyvec reads no pickles (adapter_model.bin)."
        )
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ModelFileError(
            f"{path} is truncated or corrupt ({error}). Fetch or save it again."
        ) from error
