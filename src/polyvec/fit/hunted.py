"""More providers through gpuhunt, an optional library (``pip install gpuhunt``, MPL-2.0)."""

from collections.abc import Sequence
from typing import Any

from polyvec.fit.offers import Found, Offer, PriceError, positive


class Gpuhunt:
    """The catalogue that gpuhunt downloads: AWS, GCP, Azure, Lambda and others."""

    name = "gpuhunt"

    def fetch(self, timeout_s: float) -> Found:
        """Return its offers; the library has its own timeouts.

        Raises:
            PriceError: It is not installed, or its catalogue cannot be had.
        """
        del timeout_s
        try:
            import gpuhunt
        except ModuleNotFoundError as error:
            raise PriceError("gpuhunt is not installed: pip install gpuhunt.") from error
        try:
            rows: Sequence[Any] = gpuhunt.query(min_gpu_count=1)
        except (OSError, ValueError) as error:
            raise PriceError(f"gpuhunt's catalogue could not be had: {error}.") from error
        read = [_offer(row) for row in rows]
        return Found([offer for offer in read if offer is not None], read.count(None))


def _offer(row: Any) -> Offer | None:  # noqa: ANN401 (gpuhunt's CatalogItem)
    """Read a ``CatalogItem``: memory is in GB, the price in dollars an hour of the instance."""
    price, memory = positive(row.price), positive(row.gpu_memory)
    if price is None or memory is None or not row.gpu_name or not row.gpu_count:
        return None
    return Offer(
        str(row.provider), str(row.gpu_name), int(row.gpu_count), memory, positive(row.memory),
        price, bool(row.spot), str(row.location or ""), str(row.instance_name),
    )  # fmt: skip
