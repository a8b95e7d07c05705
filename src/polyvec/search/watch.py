"""When a folder has changed."""

import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

from polyvec.errors import MissingExtraError

LOOK_EVERY_S = 300.0
"""Network drives tell nothing of changes made elsewhere, so now and then all is looked at."""
_QUIET_MS = 1_600
"""Changes that follow each other closer than this are one."""


def changes(
    root: Path, without: Path, stop: Event | None = None, look_every_s: float = LOOK_EVERY_S
) -> Iterator[None]:
    """Yield whenever a folder's files have changed, or may have.

    Args:
        root: The folder.
        without: A folder whose changes do not count: the index.
        stop: Set it to end.
        look_every_s: Yield after so long without a change too.

    Raises:
        MissingExtraError: watchfiles is not installed.
    """
    try:
        from watchfiles import Change, watch
    except ImportError as error:
        raise MissingExtraError(
            "Folders are watched by watchfiles, which is not installed: "
            "pip install 'polyvec[search]'."
        ) from error

    def counts(_: Change, path: str) -> bool:
        return not Path(path).is_relative_to(without)

    looked = time.monotonic()
    for changed in watch(
        root,
        watch_filter=counts,
        step=_QUIET_MS // 4,
        debounce=_QUIET_MS,
        stop_event=stop,
        rust_timeout=int(min(look_every_s, 5.0) * 1_000),
        yield_on_timeout=True,
    ):
        if changed or time.monotonic() - looked >= look_every_s:
            yield None
            looked = time.monotonic()
