"""What so many tokens take on a few common GPUs: hours and dollars, before a long run starts."""

from collections.abc import Sequence
from dataclasses import dataclass

from polyvec.fit.devices import Device, find_device
from polyvec.fit.offers import Offer
from polyvec.fit.prices import lowest_prices
from polyvec.fit.speed import device_speed
from polyvec.spec import Architecture

ASSUMED_PRICE_PER_H = {"H100 SXM": 3.0, "A100 SXM 80GB": 1.8, "L4": 0.8}
"""Devices that clouds have, and US dollars an hour, about what was asked in 2026: an assumption,
used where no price was fetched, and said so."""


@dataclass(frozen=True)
class Elsewhere:
    """A device's share of a run."""

    device: Device
    hours: float
    price_per_h: float
    """US dollars."""
    is_assumed: bool
    """Whether the price is an assumption and not the lowest one known."""

    @property
    def dollars(self) -> float:
        """US dollars for all hours."""
        return self.hours * self.price_per_h


def elsewhere(
    shape: Architecture, tokens: float, tokens_per_text: float, offers: Sequence[Offer] = ()
) -> list[Elsewhere]:
    """Return what so many tokens take in bf16 on each common device, all layers in its memory.

    Args:
        shape: The model's.
        tokens: All of them.
        tokens_per_text: Their mean: attention grows with it.
        offers: Rentals that are known, of which the cheapest counts.
    """
    common = tuple(find_device(name) for name in ASSUMED_PRICE_PER_H)
    lowest = lowest_prices(offers, common)
    found = []
    for device in common:
        speed = device_speed(shape, device, "resident", max(1, round(tokens_per_text)))
        if speed is not None:
            price = lowest.get(device.name, ASSUMED_PRICE_PER_H[device.name])
            hours = tokens / speed.tokens_per_s / 3600
            found.append(Elsewhere(device, hours, price, device.name not in lowest))
    return found
