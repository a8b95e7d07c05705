"""``/models``: the catalogue's page, made on the first request and kept."""

import threading


class CataloguePage:
    """The page and what a policy calls its style and its script by."""

    def __init__(self) -> None:
        """Make nothing yet."""
        self._lock = threading.Lock()
        self._made: tuple[str, str, str] | None = None

    def text(self) -> tuple[str, str, str]:
        """Return the page, its style's hash and its script's; made once, whoever asks."""
        from polyvec.catalogue.cards import cards
        from polyvec.gallery.page import catalogue_page, policy_hashes

        with self._lock:
            if self._made is None:
                page = catalogue_page(cards())
                self._made = (page, *policy_hashes(page))
            return self._made
