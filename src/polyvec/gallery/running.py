"""Where a model runs, at what quality and what renting that costs: a part of its card."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape

from polyvec.catalogue.cards import Card
from polyvec.engine.plan import WeightsPlace
from polyvec.errors import InputError
from polyvec.fit.devices import find_device
from polyvec.fit.facts import ModelFacts, facts_of_card
from polyvec.fit.plan import TEXT_TOKENS, Assessment, assess
from polyvec.fit.prices import Prices, Rental, rentals
from polyvec.fit.quality import quality
from polyvec.fit.ranking import Ranked, ranked
from polyvec.gallery.words import NOT_KNOWN

_DEVICES = (
    "RTX 3060 12GB",
    "RTX 4060 Ti 16GB",
    "RTX 4090",
    "RTX 5090",
    "Radeon RX 7900 XTX",
    "L4",
    "L40S",
    "A100 SXM 80GB",
    "H100 SXM",
    "Apple M2",
    "Apple M4 Max 128GB",
)
"""Common ones of each price; `polyvec fit MODEL --all` judges all that are known."""

_QUALITIES = ("bf16", "int8", "Q8_0", "Q6_K", "Q4_K_M")
_RENTED: tuple[tuple[str, WeightsPlace], ...] = (("bf16", "resident"), ("Q4_K_M", "packed"))
"""Layers kept packed need the room of their blocks only; resident ones are expanded to bf16."""
_COMPARED_ON = "RTX 4090"
_ROWS = (
    "needs in bf16, on a GPU",
    "needs in Q4_K_M packed, on a GPU",
    f"texts a second in bf16, {_COMPARED_ON}",
    "quality in Q4_K_M",
    "cheapest rental in bf16, on demand",
)
_VERDICT = {
    "green": ("ok", "●", "runs"),
    "yellow": ("tight", "◐", "runs, with layers outside"),
    "red": ("no", "○", "does not run"),
}


class Running:
    """Makes the part of each card, with one state of the prices."""

    def __init__(self, prices: Prices | None) -> None:
        """Take the prices.

        Args:
            prices: The cache's, however old; None if it has none.
        """
        self._prices = prices
        self._devices = tuple(find_device(name) for name in _DEVICES)

    def part(self, card: Card) -> str:
        """Return HTML: the devices, the qualities, the cheapest rentals and their age."""
        name = escape(card.short_name)
        try:
            facts = facts_of_card(card)
        except InputError as error:
            return (
                f'<details><summary>Where {name} runs</summary><p class="soft">'
                f"{escape(str(error))}</p></details>"
            )
        offers = self._prices.offers if self._prices else []
        return (
            f"<details><summary>Where {name} runs, how well, and what renting costs</summary>"
            f"{_devices_table(name, ranked(facts, self._devices, offers))}"
            f"{_qualities(name, facts)}{self._rent(card, facts)}</details>"
        )

    def rows(self, card: Card) -> list[tuple[str, str]]:
        """Return what a model needs, on one GPU and for rent, as rows of a comparison."""
        try:
            facts = facts_of_card(card)
        except InputError:
            return [(name, NOT_KNOWN) for name in _ROWS]
        there = assess(facts, find_device(_COMPARED_ON))
        fits = there.color != "red" and there.texts_per_s is not None
        speed = f"{there.texts_per_s:,.0f}" if fits else there.why
        small = assess(facts, find_device(_COMPARED_ON), "Q4_K_M", "packed")
        cells = (f"{there.memory.total / 1e9:.1f} GB", f"{small.memory.total / 1e9:.1f} GB", speed)
        return list(zip(_ROWS, (*cells, small.quality.words, self._price(facts)), strict=True))

    def _price(self, facts: ModelFacts) -> str:
        if self._prices is None:
            return "no prices in the cache"
        found = _cheapest(self._prices, facts, _RENTED[0], is_spot=False)
        if found is None:
            return "none is large enough"
        return f"${found.offer.price_per_gpu_h:.2f} an hour, {found.offer.gpu}"

    def _rent(self, card: Card, facts: ModelFacts) -> str:
        ask = f"<code>polyvec rent {escape(_asked(card))}</code>"
        if self._prices is None:
            return f"<p>Renting: no prices are in the cache. {ask} fetches them.</p>"
        found = [
            (f"{precision}, {source}", cheapest)
            for precision, source in _RENTED
            for is_spot in (False, True)
            if (cheapest := _cheapest(self._prices, facts, (precision, source), is_spot))
            is not None
        ]
        if not found:
            return f"<p>Renting: none of the offers in the cache has enough memory. {ask}</p>"
        rows = "".join(_rental_row(way, rental) for way, rental in found)
        return (
            f"<p>The cheapest rentals, from prices of {self._ages()}; {ask} asks again. Spot "
            "machines may be taken away at any moment: use <code>--resume</code>.</p>"
            + _table(
                f"Rentals for {escape(card.short_name)}",
                ("as", "GPU", "where", "kind", "$ a GPU-hour", "$ a million texts"),
                rows,
            )
        )

    def _ages(self) -> str:
        assert self._prices is not None
        return ", ".join(
            f"{escape(provider)} {_age(at)}" for provider, at in self._prices.fetched_at.items()
        )


def _asked(card: Card) -> str:
    return card.short_name


def _age(at: float) -> str:
    """Return a moment and how long it is ago."""
    minutes = max(0.0, time.time() - at) / 60
    ago = f"{minutes:.0f} minutes" if minutes < 100 else f"{minutes / 60:.0f} hours"
    if minutes >= 48 * 60:
        ago = f"{minutes / 60 / 24:.0f} days"
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC ({ago} old)"


def _devices_table(name: str, rows: Sequence[Ranked]) -> str:
    body = "".join(_device_row(row.best) for row in rows)
    note = f"<p>Predicted for texts of {TEXT_TOKENS} tokens; a precision's quality is measured.</p>"
    return note + _table(
        f"Devices for {name}",
        ("device", "verdict", "as", "needs", "texts a second", "quality"),
        body,
    )


def _device_row(best: Assessment) -> str:
    kind, sign, words = _VERDICT[best.color]
    rate = best.texts_per_s
    speed = NOT_KNOWN if rate is None else f"{rate:,.0f}"
    memory, device = best.device.memory_gb, best.device.name
    has = "" if memory is None or "GB" in device else f", {memory:.0f} GB"
    red = best.color == "red"
    cells = (
        f'<td title="{escape(best.why, quote=True)}"><span class="{kind}" aria-hidden="true">'
        f"{sign}</span> {words}</td><td>{escape(best.precision)}, {best.source}</td>"
        f'<td class="n">{best.memory.total / 1e9:.1f} GB</td>'
        f'<td class="n">{"–" if red else speed}</td>'
        f"<td>{'–' if red else escape(best.quality.words)}</td>"
    )
    return f'<tr><th scope="row">{escape(device + has)}</th>{cells}</tr>'


def _qualities(name: str, facts: ModelFacts) -> str:
    rows = "".join(
        f'<tr><th scope="row">{precision}</th><td>{escape(words)}</td></tr>'
        for precision in _QUALITIES
        for words in [quality(facts, precision).words]
    )
    return _table(f"Quality of {name} by precision", ("precision", "against its own fp32"), rows)


def _cheapest(
    prices: Prices, facts: ModelFacts, way: tuple[str, WeightsPlace], is_spot: bool
) -> Rental | None:
    offers = [offer for offer in prices.offers if offer.is_spot == is_spot]
    found = rentals(offers, facts, *way)
    return found[0] if found else None


def _rental_row(way: str, rental: Rental) -> str:
    offer, million = rental.offer, rental.price_per_million
    cost = NOT_KNOWN if million is None else f"{million:.2f}"
    return (
        f'<tr><th scope="row">{way}</th><td>{escape(offer.gpu)}</td>'
        f"<td>{escape(offer.provider)} {escape(offer.place)}</td>"
        f"<td>{'spot' if offer.is_spot else 'on demand'}</td>"
        f'<td class="n">{offer.price_per_gpu_h:.2f}</td><td class="n">{cost}</td></tr>'
    )


def _table(label: str, head: Sequence[str], rows: str) -> str:
    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{label}"><table class="fit">'
        f"<thead><tr>{names}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
