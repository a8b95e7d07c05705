"""AdamW, its schedule, and the length of gradients."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from polyvec.errors import InputError
from polyvec.train.ranks import whole
from polyvec.train.recipe import OptimizerSettings


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by name."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def freeze(module: nn.Module, prefixes: Iterable[str]) -> None:
    """Leave parameters as they are, by what their names begin with.

    Raises:
        InputError: No parameter's name begins so, or none is left to train.
    """
    for prefix in prefixes:
        named = [p for name, p in module.named_parameters() if name.startswith(prefix)]
        if not named:
            first = ", ".join(name for name, _ in list(module.named_parameters())[:3])
            raise InputError(
                f"model.freeze has {prefix!r}, and no parameter's name begins so; they are named "
                f"like {first}."
            )
        for parameter in named:
            parameter.requires_grad_(False)
    if not trained(module):
        raise InputError("model.freeze leaves nothing to train.")


def make_optimizer(
    parameters: Mapping[str, nn.Parameter],
    settings: OptimizerSettings,
    maps: Mapping[str, nn.Parameter],
) -> torch.optim.AdamW:
    """Build AdamW; matrices decay, vectors (norms, biases) and teachers' maps do not."""
    matrices = [p for p in parameters.values() if p.dim() > 1]
    vectors = [p for p in parameters.values() if p.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
        {"params": list(maps.values()), "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        fused=True,
    )


def learning_rate(step: int, steps: int, settings: OptimizerSettings) -> float:
    """Return the rate of a step, from 0: up through the warm-up, then down to ``min_lr``.

    ``linear`` is transformers' ``get_linear_schedule_with_warmup``, ``cosine`` half a cosine.
    """
    warmup = min(settings.warmup_steps, steps - 1)
    if step < warmup:
        return settings.lr * (step + 1) / (warmup + 1)
    if settings.schedule == "constant":
        return settings.lr
    done = (step - warmup) / max(1, steps - warmup)
    share = 1 - done if settings.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return settings.min_lr + (settings.lr - settings.min_lr) * share


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip_gradients(parameters: Iterable[nn.Parameter], longest: float) -> float:
    """Scale gradients to at most a length (0: no limit) and return the length they had."""
    gradients = [p for p in parameters if p.grad is not None]
    norm: Tensor = nn.utils.clip_grad_norm_(gradients, longest or math.inf)
    return float(whole(norm))
