"""The best way to run a model on each device, and the devices in the order of their cost."""

from collections.abc import Sequence
from dataclasses import dataclass

from polyvec.engine.plan import WeightsPlace
from polyvec.fit.devices import Device
from polyvec.fit.facts import ModelFacts
from polyvec.fit.offers import Offer
from polyvec.fit.plan import Assessment, Work, assess, ways
from polyvec.fit.prices import lowest_prices

_COLORS = ("green", "yellow", "red")
_SOURCES: tuple[WeightsPlace, ...] = ("resident", "packed", "streamed")


@dataclass(frozen=True)
class Ranked:
    """A device with its best way, and what it costs to rent if a price is known."""

    best: Assessment
    price_per_gpu_h: float | None
    """The lowest that is known, US dollars; spot offers count."""


def every_way(
    facts: ModelFacts,
    device: Device,
    precision: str | None = None,
    source: WeightsPlace | None = None,
    work: Work | None = None,
    again: bool = False,
) -> list[Assessment]:
    """Judge every precision and source on a device, or those that are asked for."""
    pairs = ways(facts, device)
    if precision is not None:
        stated = [pair for pair in pairs if pair[0] == precision]
        pairs = stated or [(precision, s) for s in _possible(facts, precision)]
    if source is not None:
        kept = [pair for pair in pairs if pair[1] == source]
        pairs = kept or [(name, source) for name in dict.fromkeys(name for name, _ in pairs)]
    return [assess(facts, device, *pair, work, again) for pair in pairs]


def _possible(facts: ModelFacts, precision: str) -> list[WeightsPlace]:
    if precision == "packed":
        return ["packed"]
    blocks = facts.has_blocks or precision.startswith("Q")
    return [s for s in _SOURCES if blocks or s != "packed"]


def best_way(found: Sequence[Assessment]) -> Assessment:
    """Return the way to take: the first that runs, all layers in memory before others.

    Without a precision asked for, bf16 comes before others, as in polyvec's own choice; fp32 where
    there is no bf16.
    """
    order = {"bf16": 0, "fp32": 1}
    return min(
        found,
        key=lambda a: (
            _COLORS.index(a.color), order.get(a.precision, 2), _SOURCES.index(a.source),
        ),
    )  # fmt: skip


def ranked(
    facts: ModelFacts,
    listed: Sequence[Device],
    offers: Sequence[Offer] = (),
    precision: str | None = None,
    source: WeightsPlace | None = None,
    work: Work | None = None,
) -> list[Ranked]:
    """Return each device's best way: green before yellow before red, and of each the cheapest.

    By the lowest known price; devices without one come after, by their memory and bandwidth.
    """
    lowest = lowest_prices(offers, listed)
    rows = [
        Ranked(best_way(every_way(facts, device, precision, source, work)), lowest.get(device.name))
        for device in listed
    ]
    return sorted(rows, key=_cost)


def _cost(row: Ranked) -> tuple[int, float, bool, float, float]:
    device = row.best.device
    price = float("inf") if row.price_per_gpu_h is None else row.price_per_gpu_h
    unknown_memory = device.memory_gb is None
    size = device.memory_gb or 0.0
    color = _COLORS.index(row.best.color)
    return (color, price, unknown_memory, size, device.bandwidth_gb_per_s or 0.0)
