"""Files inside a Debian package, read without unpacking it."""

import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

from polyvec.errors import DownloadError


def files(package: Path, folder: str, suffix: str = "") -> Iterator[tuple[str, bytes]]:
    """Yield (path, content) of the files below a folder, in the package's order.

    Args:
        package: A ``.deb``.
        folder: As ``usr/share/wordnet/``; the paths begin with it.
        suffix: How a path has to end.

    Raises:
        DownloadError: The package is broken, or nothing in it is so called.
    """
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    empty = True
    try:
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process,
            tarfile.open(fileobj=process.stdout, mode="r|") as archive,
        ):
            for member in archive:
                path = member.name.removeprefix("./")
                if not (path.startswith(folder) and path.endswith(suffix) and member.isfile()):
                    continue
                content = archive.extractfile(member)
                if content:
                    empty = False
                    yield path, content.read()
    except tarfile.TarError as error:
        raise DownloadError(
            f"{package} is broken ({error}); delete it to fetch it anew."
        ) from error
    if empty:
        raise DownloadError(f"{package} holds no {folder}*{suffix}; delete it to fetch it anew.")
