"""A full disk, as an error that says where and what to do."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from polyvec.errors import DiskFullError

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def full_disk_is_an_error(path: Path, advice: str) -> Iterator[None]:
    """Turn "no space left" into an error of ours; every other one stays as it is.

    Args:
        path: What is being written.
        advice: What became of it and what to do, in whole sentences.

    Raises:
        DiskFullError: The disk of ``path``, or its owner's share of it, is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DiskFullError(f"No room left on the disk of {path}. {advice}") from error
