"""Low-rank adapters (Hu et al., 2021) in the files of PEFT.

They are ``adapter_config.json`` and ``adapter_model.safetensors``, which
``peft.PeftModel.from_pretrained`` loads.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from polyvec.disk import full_disk_is_an_error
from polyvec.errors import InputError, ModelFileError
from polyvec.model.save import save_tensors
from polyvec.model.weights import Weights
from polyvec.train.network import Linear, Network

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."


@dataclass(frozen=True)
class LoraSettings:
    """What is adapted, and how."""

    rank: int = 16
    alpha: float = 32.0
    """The adapter's product is multiplied by ``alpha / rank``."""
    dropout: float = 0.0
    """Share of the adapter's inputs that is dropped in training."""
    targets: tuple[str, ...] = ()
    """Last parts of the projections' names (``q_proj``, ``down_proj``); none means all."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InputError(f"lora.rank is {self.rank}; it must be at least 1.")
        if not 0 <= self.dropout < 1:
            raise InputError(f"lora.dropout is {self.dropout}; it must be 0 or more and below 1.")


class Adapter(nn.Module):
    """``x -> alpha / rank * B(A(x))``; B starts as zeros, so the model starts as it was."""

    def __init__(self, base: Linear, settings: LoraSettings) -> None:
        super().__init__()
        size_out, size_in = base.weight.shape
        device = base.weight.device
        self.lora_A = nn.Parameter(torch.empty(settings.rank, size_in, device=device))
        self.lora_B = nn.Parameter(torch.empty(size_out, settings.rank, device=device))
        self.scale, self.dropout = settings.alpha / settings.rank, settings.dropout

    def forward(self, x: Tensor) -> Tensor:
        """Return what is added to the base's product."""
        dropped = F.dropout(x, self.dropout, self.training)
        low = F.linear(dropped, self.lora_A.to(x.dtype))
        return F.linear(low, self.lora_B.to(x.dtype)) * self.scale


def add_adapters(network: Network, settings: LoraSettings, seed: int) -> dict[str, Tensor]:
    """Put an adapter on every targeted projection; only adapters are trained from now on.

    Returns:
        The adapters' first values by parameter.

    Raises:
        InputError: A target is none of the model's projections.
    """
    known = {name.rpartition(".")[2] for name, _ in _linears(network)}
    unknown = set(settings.targets) - known
    if unknown:
        raise InputError(
            f"lora.targets has {', '.join(sorted(unknown))}; this model has "
            f"{', '.join(sorted(known))}."
        )
    network.requires_grad_(False)
    draw, values = torch.Generator().manual_seed(seed), dict[str, Tensor]()
    for name, linear in list(_linears(network)):
        if settings.targets and name.rpartition(".")[2] not in settings.targets:
            continue
        linear.adapter = Adapter(linear, settings)
        size_out, size_in = linear.weight.shape
        bound = 1 / math.sqrt(size_in)  # PEFT's kaiming_uniform_(a=sqrt(5))
        first = torch.empty(settings.rank, size_in).uniform_(-bound, bound, generator=draw)
        values[f"{name}.adapter.lora_A"] = first
        values[f"{name}.adapter.lora_B"] = torch.zeros(size_out, settings.rank)
    return values


def _linears(network: Network) -> Iterator[tuple[str, Linear]]:
    for name, module in network.named_modules():
        if isinstance(module, Linear):
            yield name, module


def peft_name(parameter: str) -> str:
    """Return PEFT's name of an adapter's tensor: ``q_proj.adapter.lora_A`` has none in between."""
    stem, _, matrix = parameter.rpartition(".")
    return f"{_PREFIX}{stem.removesuffix('.adapter')}.{matrix}.weight"


def is_adapter(parameter: str) -> bool:
    """Return whether a parameter is an adapter's, by its name."""
    return ".adapter.lora_" in parameter


def folded(
    state: Mapping[str, Tensor], names: Sequence[str], base: Weights, settings: LoraSettings
) -> dict[str, Tensor]:
    """Return the weights that adapters change, with them added in, fp32.

    Args:
        state: The adapters' tensors, and others that were trained.
        names: The network's weights.
        base: What it was trained from.
        settings: The adapters'.
    """
    scale = settings.alpha / settings.rank
    weights = {name: tensor for name, tensor in state.items() if not is_adapter(name)}
    for name in names:
        stem = name.removesuffix(".weight") + ".adapter.lora_"
        if stem + "A" in state:
            weight = weights[name] if name in weights else base.tensor(name).float()
            weights[name] = weight + state[stem + "B"] @ state[stem + "A"] * scale
    return weights


def write_adapter(
    folder: Path, state: Mapping[str, Tensor], settings: LoraSettings, base: str
) -> None:
    """Write adapters as PEFT does, into a folder that is there."""
    tensors = {peft_name(n): t.contiguous() for n, t in state.items() if is_adapter(n)}
    targets = sorted({name.split(".")[-3] for name in state if is_adapter(name)} or ())
    with full_disk_is_an_error(folder, "The run's checkpoints are whole; make room and go on."):
        save_tensors(tensors, folder / WEIGHTS_FILE)
    config = {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "base_model_name_or_path": base,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "target_modules": targets,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    (folder / CONFIG_FILE).write_bytes(orjson.dumps(config, option=orjson.OPT_INDENT_2))


def read_adapter(folder: Path) -> dict[str, Tensor]:
    """Read adapters under the network's names of them.

    Raises:
        ModelFileError: The folder holds no adapter.
    """
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise ModelFileError(f"{folder} holds no adapter: {WEIGHTS_FILE} is not there.")
    return {_own_name(name): tensor for name, tensor in load_file(path).items()}


def _own_name(peft: str) -> str:
    stem, _, matrix = peft.removeprefix(_PREFIX).removesuffix(".weight").rpartition(".")
    return f"{stem}.adapter.{matrix}"
