"""Vast.ai's offers: ``POST /api/v0/bundles/`` (docs.vast.ai/api-reference, "search offers")."""

import os
from typing import Any

from polyvec.fit.offers import Found, Offer, PriceError, positive, post_json

URL = "https://console.vast.ai/api/v0"
URL_VARIABLE = "POLYVEC_VAST_URL"
KEY_VARIABLE = "VAST_API_KEY"
_MOST = 1_000


class Vast:
    """Offers of verified machines: on demand, and interruptible ones at their least bid."""

    name = "vast"

    def __init__(self, url: str | None = None) -> None:
        self._url = (url or os.environ.get(URL_VARIABLE) or URL).rstrip("/")

    def fetch(self, timeout_s: float) -> Found:
        """Return what is for rent now.

        Raises:
            PriceError: Nothing could be had.
        """
        offers: list[Offer] = []
        skipped = 0
        for kind in ("on-demand", "bid"):
            rows = self._rows(kind, timeout_s)
            read = [_offer(row, is_spot=kind == "bid") for row in rows]
            offers += [offer for offer in read if offer is not None]
            skipped += read.count(None)
        return Found(offers, skipped)

    def _rows(self, kind: str, timeout_s: float) -> list[Any]:
        asked = {
            "verified": {"eq": True}, "rentable": {"eq": True}, "external": {"eq": False},
            "type": kind, "order": [["dph_total", "asc"]], "limit": _MOST,
        }  # fmt: skip
        reply = post_json("Vast.ai", f"{self._url}/bundles/", asked, KEY_VARIABLE, timeout_s)
        rows = reply.get("offers")
        if not isinstance(rows, list):
            raise PriceError("Vast.ai's answer has no list 'offers': its format has changed.")
        return rows


def _offer(row: object, is_spot: bool) -> Offer | None:
    """Read an entry: memory is in MiB, prices in dollars an hour of the whole offer."""
    if not isinstance(row, dict):
        return None
    price = positive(row.get("min_bid")) if is_spot else positive(row.get("dph_total"))
    memory, count = positive(row.get("gpu_ram")), positive(row.get("num_gpus"))
    name = row.get("gpu_name")
    if price is None or memory is None or count is None or not isinstance(name, str) or not name:
        return None
    host = positive(row.get("cpu_ram"))
    return Offer(
        provider="vast", gpu=name, gpus=int(count), memory_gb=memory / 1024,
        host_memory_gb=None if host is None else host / 1024, price_per_h=price, is_spot=is_spot,
        place=str(row.get("geolocation") or ""), id=str(row.get("id") or ""),
    )  # fmt: skip
