"""Bytes of weight files, and the promise that the files stay what they were."""

from pathlib import Path

import numpy as np

from polyvec.errors import ModelFileError
from polyvec.kernels.blocks import Raw


def read_bytes(path: Path, offset: int, count: int, into: Raw | None = None) -> Raw:
    """Read bytes of a file, into the start of ``into`` if it is given and large enough.

    Raises:
        ModelFileError: The file is gone, or ends before them.
    """
    buffer = np.empty(count, np.uint8) if into is None or len(into) < count else into[:count]
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            got, view = 0, buffer.data
            while got < count and (read := file.readinto(view[got:])):
                got += read
    except OSError as error:
        raise ModelFileError(
            f"{path} cannot be read any more ({error.strerror or error}). The model's files must "
            "stay where they are while it is used; put them back and load it again."
        ) from error
    if got < count:
        raise ModelFileError(
            f"{path} is truncated: byte {offset + count:,} is needed and it ends before. Fetch or "
            "save it again."
        )
    return buffer


def state_of(path: Path) -> tuple[int, int, int]:
    """Return what changes when a file is written or replaced: inode, size, time (ns)."""
    try:
        found = path.stat()
    except OSError as error:
        raise ModelFileError(
            f"{path} is gone ({error.strerror or error}). The model's files must stay where they "
            "are while it is used; put them back and load it again."
        ) from error
    return found.st_ino, found.st_size, found.st_mtime_ns


class Watched:
    """Files that must stay as they were when the model was opened."""

    def __init__(self, paths: list[Path]) -> None:
        self._states = {path: state_of(path) for path in paths}

    def check(self) -> None:
        """Refuse to go on with other weights than those it began with.

        Raises:
            ModelFileError: A file was changed, replaced or removed.
        """
        for path, state in self._states.items():
            if state_of(path) != state:
                raise ModelFileError(
                    f"{path} was changed while the model was in use, so some vectors would be of "
                    "the old weights and some of the new. Load the model again."
                )
