"""Whether a device runs a model, in one precision and from one source, and how fast and well."""

from dataclasses import dataclass, replace
from typing import Literal

import torch

from polyvec.engine.cpu import compute_dtype, has_fast_bf16, has_int8
from polyvec.engine.holding import Holding
from polyvec.engine.plan import WeightsPlace
from polyvec.errors import InputError
from polyvec.fit.devices import Device
from polyvec.fit.facts import BITS_PER_WEIGHT, ModelFacts
from polyvec.fit.memory import Memory, cpu_memory, gpu_memory, tokens_within
from polyvec.fit.quality import Quality, quality
from polyvec.fit.speed import Speed, cpu_speed, device_speed

Color = Literal["green", "yellow", "red"]

PRECISIONS = ("fp32", "bf16", "int8", "packed", *(k for k in BITS_PER_WEIGHT if k[0] == "Q"))
TEXT_TOKENS = 128
_ROOM = 0.9
"""Of a device's memory that may be taken: the driver, the system and other programs have theirs."""
_DEFAULT_CORES = 8
"""Of a listed processor: only the memory of batches hangs on it."""


@dataclass(frozen=True)
class Work:
    """What is to be embedded."""

    texts: int = 1_000_000
    tokens_per_text: float = TEXT_TOKENS

    @property
    def tokens(self) -> float:
        """All tokens."""
        return self.texts * self.tokens_per_text


@dataclass(frozen=True)
class Assessment:
    """A device, a precision and a source of layers, judged for a model."""

    device: Device
    precision: str
    source: WeightsPlace
    memory: Memory
    speed: Speed | None
    """None where the device's rates are not known."""
    quality: Quality
    color: Color
    why: str
    """Why it has its colour."""
    work: Work

    @property
    def texts_per_s(self) -> float | None:
        """Texts a second, of the work's length."""
        speed = self.speed
        return None if speed is None else speed.tokens_per_s / self.work.tokens_per_text

    @property
    def hours(self) -> float | None:
        """Hours for the work."""
        speed = self.speed
        return None if speed is None else self.work.tokens / speed.tokens_per_s / 3600


def assess(
    facts: ModelFacts,
    device: Device,
    precision: str = "bf16",
    source: WeightsPlace = "resident",
    work: Work | None = None,
    again: bool = False,
) -> Assessment:
    """Judge one way to run a model on a device.

    Args:
        facts: The model.
        device: Of the table, or this machine's.
        precision: fp32, bf16, int8, packed, or a GGUF type such as Q4_K_M: the model is then taken
            as a file of that type, multiplied in bf16.
        source: Where layers are: resident, packed (a GGUF's blocks) or streamed.
        work: What is to be embedded.
        again: Measure this machine's products even if they are known.

    Raises:
        InputError: The precision or the source is unknown, or the two do not go together.
    """
    work = work or Work()
    _check(facts, precision, source)
    sized = facts.as_gguf(precision) if precision in BITS_PER_WEIGHT else facts
    arithmetic = "bf16" if precision in BITS_PER_WEIGHT else precision
    holding = Holding(source, four_bits=precision == "packed" and not facts.has_blocks)
    memory, limited = _memory(sized, device, arithmetic, holding)
    speed = _speed(sized, device, arithmetic, holding, work, again)
    judged = quality(facts, precision)
    color, why = _judged(device, memory, arithmetic, source)
    if limited and color != "red":
        why += "; with --memory, in smaller batches"
    return Assessment(device, precision, source, memory, speed, judged, color, why, work)


def _check(facts: ModelFacts, precision: str, source: str) -> None:
    if precision not in PRECISIONS:
        raise InputError(f"precision is {precision!r}; allowed: {', '.join(PRECISIONS)}.")
    if source not in ("resident", "packed", "streamed"):
        raise InputError(f"source is {source!r}; allowed: resident, packed, streamed.")
    blocks = facts.has_blocks or precision in BITS_PER_WEIGHT or precision == "packed"
    if source == "packed" and not blocks:
        raise InputError(
            f"{facts.name} in {precision} has no blocks to keep packed: choose precision packed or "
            "a GGUF type (Q4_K_M), or source resident or streamed."
        )
    if precision == "packed" and source != "packed":
        raise InputError(f"precision packed keeps weights packed; source is {source!r}.")


def ways(facts: ModelFacts, device: Device) -> list[tuple[str, WeightsPlace]]:
    """Return the precisions and sources that polyvec has on a device, the most exact first."""
    sources: list[WeightsPlace] = ["resident", "streamed"]
    if facts.has_blocks:
        sources.insert(1, "packed")
    names = ("fp32", "bf16", "int8") if device.is_cpu else ("fp32", "bf16")
    found = [(name, source) for name in names for source in sources]
    return [*found, ("packed", "packed")] if device.is_cpu else found


def _dtype(device: Device, precision: str) -> torch.dtype:
    if device.is_here and device.is_cpu:
        return compute_dtype(precision)
    return torch.float32 if precision == "fp32" else torch.bfloat16


def _memory(
    facts: ModelFacts, device: Device, precision: str, holding: Holding
) -> tuple[Memory, bool]:
    """Return the expected peak, and whether batches are smaller than the engine's own choice."""
    dtype = _dtype(device, precision)
    if not device.is_cpu:
        # int8 and packed: what it would be; the judgement says that it does not run.
        four_bits = holding.four_bits and precision not in ("int8", "packed")
        return gpu_memory(facts, replace(holding, four_bits=four_bits), dtype), False
    cores = device.cores or _DEFAULT_CORES
    full = cpu_memory(facts, holding, precision, dtype, cores)
    room = None if device.memory_bytes is None else int(device.memory_bytes * _ROOM)
    if room is None or full.total <= room:
        return full, False
    fewer = tokens_within(facts, holding, precision, dtype, cores, room)
    if fewer is None:
        return full, False
    return cpu_memory(facts, holding, precision, dtype, cores, fewer), True


def _speed(
    facts: ModelFacts,
    device: Device,
    precision: str,
    holding: Holding,
    work: Work,
    again: bool,
) -> Speed | None:
    shape, length = facts.architecture, max(1, round(work.tokens_per_text))
    if device.is_cpu:
        if not (device.is_here and device.cores):
            return None
        given = (shape, precision, holding, device.cores, length, facts.size_bytes, again)
        return cpu_speed(*given)
    return device_speed(shape, device, holding.place, length) if precision == "bf16" else None


def _judged(
    device: Device, memory: Memory, precision: str, source: WeightsPlace
) -> tuple[Color, str]:
    if (lacks := _lacks(device, precision)) is not None:
        return "red", lacks
    need = memory.total / 2**30
    if device.memory_bytes is None:
        return "yellow", f"runs where {need:.1f} GiB of memory are free"
    there = device.memory_bytes / 2**30
    if memory.total > device.memory_bytes * _ROOM:
        return "red", f"needs {need:.1f} of {there:.1f} GiB, of which a tenth stays free"
    if source == "resident":
        return "green", "all layers in memory"
    where = "in blocks" if source == "packed" else "from their files"
    return "yellow", f"layers {where}: fast for many texts at once, slow for one query"


def _lacks(device: Device, precision: str) -> str | None:
    """Return what a device lacks for a precision, or None."""
    if not device.is_cpu:
        if precision in ("int8", "packed"):
            return "polyvec's int8 is for processors"
        return "has no bf16" if precision == "bf16" and not device.has_bf16 else None
    if not device.is_here:
        return None
    if precision in ("int8", "packed") and not has_int8():
        return "this processor has no int8 products (VNNI or AMX)"
    return (
        "bf16 is emulated here, and slow" if precision == "bf16" and not has_fast_bf16() else None
    )
