"""What providers rent out: one offer, and the small interface each provider has."""

import json
import math
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from polyvec.errors import PolyvecError

_MAX_REPLY_BYTES = 64 * 2**20


class PriceError(PolyvecError):
    """A provider's prices could not be had: no network, a refusal, or another shape."""


@dataclass(frozen=True)
class Offer:
    """GPUs for rent."""

    provider: str
    gpu: str
    """As the provider names it."""
    gpus: int
    memory_gb: float
    """Of one GPU, in 2^30 bytes."""
    host_memory_gb: float | None
    """Of the machine; None where the provider does not say."""
    price_per_h: float
    """US dollars for all its GPUs."""
    is_spot: bool
    """Whether it may be taken away at any moment."""
    place: str = ""
    id: str = ""

    @property
    def price_per_gpu_h(self) -> float:
        """US dollars a GPU-hour."""
        return self.price_per_h / self.gpus


@dataclass(frozen=True)
class Found:
    """A provider's offers, and how many entries of its reply could not be used."""

    offers: list[Offer]
    skipped: int = 0


class Provider(Protocol):
    """Where prices come from."""

    @property
    def name(self) -> str:
        """A short name."""
        ...

    def fetch(self, timeout_s: float) -> Found:
        """Return what is for rent now.

        Raises:
            PriceError: Nothing could be had; the message says why.
        """
        ...


def post_json(
    who: str, url: str, body: Mapping[str, Any], key_variable: str, timeout_s: float
) -> dict[str, Any]:
    """Send JSON and read a JSON object; the key, if its variable is set, goes along.

    Raises:
        PriceError: No answer, a refusal, or an answer that is no JSON object.
    """
    headers = {"Content-Type": "application/json", "User-Agent": "polyvec"}
    if key := os.environ.get(key_variable):
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310 (https, or a test's own)
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as reply:  # noqa: S310
            text = reply.read(_MAX_REPLY_BYTES)
    except urllib.error.HTTPError as error:
        raise PriceError(f"{who} answered {error.code}{_hint(error, key_variable)}.") from error
    except (OSError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", None) or error
        raise PriceError(f"{who} could not be reached: {reason}.") from error
    return _object(who, text)


def _hint(error: urllib.error.HTTPError, key_variable: str) -> str:
    if error.code == 429:
        wait = error.headers.get("Retry-After")
        return f" (too many requests{f'; try again in {wait} s' if wait else ''})"
    if error.code in (401, 403):
        return f" (it wants a key: set {key_variable})"
    return ""


def _object(who: str, text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise PriceError(f"{who} answered something that is not JSON ({error}).") from error
    if not isinstance(value, dict):
        raise PriceError(f"{who} answered {type(value).__name__}, not a JSON object.")
    return value


def positive(value: object) -> float | None:
    """Return a number above zero, or None: a price of nothing is no price."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and value > 0 else None
