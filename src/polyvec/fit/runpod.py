"""RunPod's prices: the query ``gpuTypes`` of its GraphQL interface (graphql-spec.runpod.io)."""

import os
from collections.abc import Iterator

from polyvec.fit.offers import Found, Offer, PriceError, positive, post_json

URL = "https://api.runpod.io/graphql"
URL_VARIABLE = "POLYVEC_RUNPOD_URL"
KEY_VARIABLE = "RUNPOD_API_KEY"
QUERY = """query GpuTypes { gpuTypes {
  id displayName memoryInGb securePrice communityPrice secureSpotPrice communitySpotPrice
} }"""
_PRICES = {
    "securePrice": (False, "secure cloud"),
    "communityPrice": (False, "community cloud"),
    "secureSpotPrice": (True, "secure cloud"),
    "communitySpotPrice": (True, "community cloud"),
}


class RunPod:
    """One GPU of each type, in both clouds, on demand and spot."""

    name = "runpod"

    def __init__(self, url: str | None = None) -> None:
        self._url = url or os.environ.get(URL_VARIABLE) or URL

    def fetch(self, timeout_s: float) -> Found:
        """Return what is for rent now.

        Raises:
            PriceError: Nothing could be had.
        """
        reply = post_json("RunPod", self._url, {"query": QUERY}, KEY_VARIABLE, timeout_s)
        if errors := reply.get("errors"):
            raise PriceError(f"RunPod refused the query: {str(errors)[:200]}.")
        data = reply.get("data")
        rows = data.get("gpuTypes") if isinstance(data, dict) else None
        if not isinstance(rows, list):
            raise PriceError("RunPod's answer has no list 'gpuTypes': its format has changed.")
        read = [list(_offers(row)) for row in rows]
        return Found([offer for offers in read for offer in offers], read.count([]))


def _offers(row: object) -> Iterator[Offer]:
    """Read a type: a price of 0 or null means that the type is not to be had that way."""
    if not isinstance(row, dict):
        return
    name, memory = row.get("displayName") or row.get("id"), positive(row.get("memoryInGb"))
    if not isinstance(name, str) or memory is None:
        return
    for key, (is_spot, place) in _PRICES.items():
        price = positive(row.get(key))
        if price is not None:
            yield Offer("runpod", name, 1, memory, None, price, is_spot, place, str(row.get("id")))
