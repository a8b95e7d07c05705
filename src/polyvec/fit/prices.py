"""Prices of all providers, kept in the cache with their age, and the cheapest that is enough."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from polyvec.engine.plan import WeightsPlace
from polyvec.errors import InputError
from polyvec.fit.devices import Device, devices, named_like
from polyvec.fit.facts import ModelFacts
from polyvec.fit.hunted import Gpuhunt
from polyvec.fit.offers import Offer, PriceError, Provider
from polyvec.fit.plan import Assessment, Work, assess
from polyvec.fit.runpod import RunPod
from polyvec.fit.vast import Vast
from polyvec.hub import cache_folder

FILE = "prices.json"
MAX_AGE_S = 3_600.0
"""Prices older than this are asked for again."""
TIMEOUT_S = 20.0
PROVIDERS: dict[str, Callable[[], Provider]] = {
    "vast": Vast, "runpod": RunPod, "gpuhunt": Gpuhunt,
}  # fmt: skip
DEFAULT_PROVIDERS = ("vast", "runpod")


@dataclass(frozen=True)
class Prices:
    """Offers, when each provider's were fetched, and what went wrong."""

    offers: list[Offer]
    fetched_at: dict[str, float]
    """Provider -> seconds since 1970."""
    problems: list[str] = field(default_factory=list)

    def age_s(self, provider: str) -> float:
        """Return how old a provider's prices are, in seconds."""
        return max(0.0, time.time() - self.fetched_at[provider])


def known_prices() -> Prices | None:
    """Return what the cache has, however old; None where it has nothing. No network."""
    kept = _read(cache_folder() / FILE)
    if not kept:
        return None
    offers = [offer for part in kept.values() for offer in part.offers]
    return Prices(offers, {name: part.at for name, part in kept.items()})


def prices(
    names: Sequence[str] = DEFAULT_PROVIDERS,
    refresh: bool = False,
    offline: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> Prices:
    """Return prices: fresh ones from the cache, others from their providers, else the last ones.

    Args:
        names: Of :data:`PROVIDERS`.
        refresh: Ask again even if the cache is fresh.
        offline: Ask nobody.
        timeout_s: For each request.

    Raises:
        InputError: There is no provider of that name.
        PriceError: Nothing is cached and no provider could be reached.
    """
    if unknown := sorted(set(names) - set(PROVIDERS)):
        raise InputError(f"No provider {', '.join(unknown)}; known: {', '.join(PROVIDERS)}.")
    kept, problems = _read(cache_folder() / FILE), list[str]()
    for name in names:
        is_fresh = name in kept and 0 <= time.time() - kept[name].at < MAX_AGE_S
        if offline or (is_fresh and not refresh):
            continue
        try:
            kept[name] = _fetched(name, timeout_s, problems)
        except PriceError as error:
            problems.append(str(error))
    found = {name: kept[name] for name in names if name in kept}
    if not found:
        why = " ".join(problems) or "Nobody was asked (--offline)."
        raise PriceError(f"No prices: none are in the cache. {why} Try again with a network.")
    if not offline:
        _write(cache_folder() / FILE, kept)
    offers = [offer for part in found.values() for offer in part.offers]
    return Prices(offers, {name: part.at for name, part in found.items()}, problems)


@dataclass(frozen=True)
class _Kept:
    at: float
    offers: list[Offer]


def _fetched(name: str, timeout_s: float, problems: list[str]) -> _Kept:
    found = PROVIDERS[name]().fetch(timeout_s)
    if not found.offers:
        raise PriceError(f"{name} has no usable offer ({found.skipped} could not be read).")
    if found.skipped:
        problems.append(f"{name}: {found.skipped} entries without a price or size were left out.")
    return _Kept(time.time(), found.offers)


def _read(path: Path) -> dict[str, _Kept]:
    try:
        value = orjson.loads(path.read_bytes())
        return {
            name: _Kept(float(part["at"]), [Offer(**offer) for offer in part["offers"]])
            for name, part in value.items()
        }
    except (OSError, orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError):
        return {}  # none yet, or of another version: fetched again


def _write(path: Path, kept: dict[str, _Kept]) -> None:
    """Keep prices; where nothing can be written they are fetched again next time."""
    partial = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}.partial")
    value: dict[str, Any] = {name: asdict(part) for name, part in kept.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(orjson.dumps(value))
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def keep_fresh(
    stop: threading.Event, names: Sequence[str] = DEFAULT_PROVIDERS, every_s: float = MAX_AGE_S
) -> threading.Thread:
    """Refresh the cache at once and then every hour, until ``stop`` is set: for a server.

    A provider that does not answer is asked again an hour later; the cache stays as it was.
    """

    def loop() -> None:
        while not stop.is_set():
            with contextlib.suppress(PriceError):
                prices(names, refresh=True)
            stop.wait(every_s)

    thread = threading.Thread(target=loop, name="polyvec-prices", daemon=True)
    thread.start()
    return thread


@dataclass(frozen=True)
class Rental:
    """An offer, judged for a model."""

    offer: Offer
    assessment: Assessment

    @property
    def price_per_million(self) -> float | None:
        """US dollars a million documents on one of its GPUs; None where its speed is unknown."""
        rate = self.assessment.texts_per_s
        return None if rate is None else self.offer.price_per_gpu_h * 1e6 / rate / 3600


def rentals(
    offers: Sequence[Offer],
    facts: ModelFacts,
    precision: str,
    source: WeightsPlace | None = None,
    work: Work | None = None,
) -> list[Rental]:
    """Return the offers with enough memory, the cheapest GPU-hour of each kind first.

    One for each provider, GPU, place and kind of contract. A model runs on one GPU; where layers
    are packed or streamed, the machine's own memory must hold them too, if it is stated.
    """
    sources: list[WeightsPlace] = [source] if source else _sources(facts, precision)
    judged: dict[tuple[str, float], Assessment | None] = {}
    best: dict[tuple[str, str, bool], Rental] = {}
    for offer in sorted(offers, key=lambda o: o.price_per_gpu_h):
        size = (offer.gpu, round(offer.memory_gb, 1))
        if size not in judged:
            judged[size] = _first(offer, facts, precision, sources, work)
        found = judged[size]
        if found is None or not _host_is_enough(offer, found):
            continue
        best.setdefault((offer.provider, offer.gpu, offer.is_spot), Rental(offer, found))
    return sorted(best.values(), key=lambda r: r.offer.price_per_gpu_h)


def _sources(facts: ModelFacts, precision: str) -> list[WeightsPlace]:
    blocks = facts.has_blocks or precision.startswith("Q")
    return ["resident", "packed"] if blocks else ["resident"]


def _first(
    offer: Offer,
    facts: ModelFacts,
    precision: str,
    sources: Sequence[WeightsPlace],
    work: Work | None,
) -> Assessment | None:
    for source in sources:
        found = assess(facts, device_of(offer), precision, source, work)
        if found.color != "red":
            return found
    return None


def device_of(offer: Offer) -> Device:
    """Return the device of an offer, with the table's rates where it has that name."""
    listed = named_like(offer.gpu, devices())
    if listed is None:
        return Device(offer.gpu, "nvidia", offer.memory_gb, None, None, None, offer.provider)
    return replace(listed, memory_gb=offer.memory_gb)


def lowest_prices(offers: Sequence[Offer], listed: Sequence[Device]) -> dict[str, float]:
    """Return the lowest price of each listed device's GPU-hour that is known, spot included."""
    lowest: dict[str, float] = {}
    for offer in offers:
        found = named_like(device_of(offer).name, tuple(listed))
        if found is not None:
            price = offer.price_per_gpu_h
            lowest[found.name] = min(price, lowest.get(found.name, price))
    return lowest


def _host_is_enough(offer: Offer, found: Assessment) -> bool:
    host = offer.host_memory_gb
    # A share of the machine's memory goes with each of its GPUs.
    return host is None or found.memory.host <= host * 2**30
