"""``/models``: the catalogue's page, made on a request and kept for a while."""

import contextlib
import threading
import time
from collections.abc import Iterator

_KEPT_S = 60.0
"""The page says how old its prices are, in minutes."""


class CataloguePage:
    """The page and what a policy calls its style and its script by."""

    def __init__(self) -> None:
        """Make nothing yet."""
        self._lock = threading.Lock()
        self._made: tuple[str, str, str] | None = None
        self._made_at = 0.0

    def text(self) -> tuple[str, str, str]:
        """Return the page, its style's hash and its script's; one is made at a time."""
        with self._lock:
            if self._made is None or time.monotonic() - self._made_at > _KEPT_S:
                self._made, self._made_at = _make(), time.monotonic()
            return self._made


def _make() -> tuple[str, str, str]:
    from polyvec.catalogue.cards import cards
    from polyvec.fit.prices import known_prices
    from polyvec.gallery.page import catalogue_page, policy_hashes
    from polyvec.gallery.running import Running

    beside = {"Compare texts": ".", "Search": "search", "API": "docs"}
    page = catalogue_page(cards(), Running(known_prices()), beside)
    return page, *policy_hashes(page)


@contextlib.contextmanager
def fresh_prices(wanted: bool) -> Iterator[None]:
    """Ask for rental prices at once and every hour, if that is wanted: else nobody is asked."""
    if not wanted:
        yield
        return
    from polyvec.fit.prices import keep_fresh

    stop = threading.Event()
    keep_fresh(stop)
    try:
        yield
    finally:
        stop.set()
