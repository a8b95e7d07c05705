"""What is fetched from Debian, by apt, with the machine's own sources and proxies.

It is kept in a folder of polyvec's cache; neither root's rights nor the system's package lists are
needed or touched. What is there is not fetched again: delete the folder for a newer edition.
"""

import fcntl
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from polyvec.disk import full_disk_is_an_error
from polyvec.errors import DiskFullError, DownloadError
from polyvec.hub import cache_folder

LANGUAGES = (
    "da", "it", "fr", "de", "sk", "ja", "pt-BR", "uk", "ko", "pl",
    "ru", "es", "cs", "pt", "zh-CN", "fi", "sr", "nl", "sv", "hu",
)  # fmt: skip
"""Languages with 100 or more translated descriptions in Debian 12, most of them first."""

_FULL = "No space left"
_TIMEOUT_S = 1_800


def sources_folder() -> Path:
    """Return where fetched texts are kept: ``sources`` in polyvec's cache folder."""
    return cache_folder() / "sources"


def lists() -> Path:
    """Return the folder with Debian's lists of packages and translations, fetched once.

    The first call downloads 36 MB, 260 MB when unpacked.

    Raises:
        DownloadError: apt is not there, knows no Debian, or could not fetch them.
        DiskFullError: There is no room for them.
    """
    folder = sources_folder() / "debian"
    with _locked(folder):
        if not list(folder.glob("*_Packages")):
            _update(folder)
    return folder


def _update(folder: Path) -> None:
    """Fetch into a work folder; the lists are moved over when all are there, Packages last."""
    what = "Debian's package descriptions"
    work = folder / ".fetch"
    _apt(work, what, "update")
    fetched = work / "lists"
    texts = [path for path in fetched.glob("*_main_i18n_Translation-*") if _is_release(path)]
    packages = [path for path in fetched.glob("*_main_*_Packages") if _is_release(path)]
    missing = {_escaped(language) for language in ("en", *LANGUAGES)}
    missing -= {path.name.rpartition("-")[2] for path in texts}
    if missing or not packages:
        raise DownloadError(
            f"{what} came without {', '.join(sorted(missing)) or 'the list of packages'}. "
            f"{_ADVICE} What came is in {fetched}."
        )
    notes = [path for path in fetched.glob("*_InRelease") if _is_release(path)]
    for path in (*notes, *texts, *packages):
        path.rename(folder / path.name)


def translation_file(folder: Path, language: str) -> Path:
    """Return the list with one language's descriptions, in a folder from :func:`lists`."""
    return next(folder.glob(f"*_Translation-{_escaped(language)}"))


def edition(folder: Path) -> str:
    """Return which Debian the lists are of, such as ``bookworm 12.15``: figures depend on it."""
    facts: dict[str, str] = {}
    for path in folder.glob("*_InRelease"):
        head = path.read_text(encoding="utf-8", errors="replace")[:2_000]
        facts = dict(re.findall(r"^(Codename|Version): (\S+)$", head, flags=re.MULTILINE))
    return f"{facts.get('Codename', 'unknown')} {facts.get('Version', '')}".strip()


def packages(names: Sequence[str]) -> dict[str, Path]:
    """Return each named package's ``.deb``, downloaded unless it is there.

    Raises:
        DownloadError: One cannot be fetched; the message names it.
        DiskFullError: There is no room for it.
    """
    folder = sources_folder() / "packages"
    with _locked(folder):
        missing = sorted({name for name in names if _package(folder, name) is None})
        if missing:
            _download(folder, missing)
    return {name: _required(folder, name) for name in names}


def _download(folder: Path, names: Sequence[str]) -> None:
    what, work = f"The Debian packages {', '.join(names)}", folder / ".fetch"
    if not list((work / "lists").glob("*_Packages")):
        _apt(work, what, "update", languages=("en",))
    target = work / "debs"
    target.mkdir(exist_ok=True)
    _apt(work, what, "download", *names, cwd=target)
    for path in target.glob("*.deb"):
        path.rename(folder / path.name)


def _package(folder: Path, name: str) -> Path | None:
    return next(iter(sorted(folder.glob(f"{name}_*.deb"))), None)


def _required(folder: Path, name: str) -> Path:
    package = _package(folder, name)
    if package is None:
        raise DownloadError(f"apt left no {name}_*.deb in {folder}. {_ADVICE}")
    return package


_ADVICE = (
    "Check the network, apt's sources and its proxy settings (`apt-get update` is what runs), or "
    "copy the folder `sources` of polyvec's cache from a machine that has it ($POLYVEC_CACHE, else "
    "~/.cache/polyvec)."
)


def _apt(
    work: Path,
    what: str,
    *command: str,
    languages: Sequence[str] = ("en", *LANGUAGES),
    cwd: Path | None = None,
) -> None:
    """Run apt-get with a state of its own in ``work``, on the machine's file of Debian sources."""
    if not shutil.which("apt-get"):
        raise DownloadError(f"{what} come from Debian and there is no apt-get here. {_ADVICE}")
    for part in ("lists/partial", "cache/archives/partial"):
        (work / part).mkdir(parents=True, exist_ok=True)
    settings = work / "apt.conf"
    settings.write_text(_settings(work, what, languages))
    try:
        done = subprocess.run(
            ["apt-get", "-qq", "-c", str(settings), *command],
            cwd=cwd, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise DownloadError(
            f"{what} could not be fetched in {_TIMEOUT_S} seconds. {_ADVICE}"
        ) from error
    if _FULL in done.stderr:
        raise DiskFullError(f"No room on the disk of {work} for {what}. Make room and try again.")
    complaints = [line for line in done.stderr.splitlines() if line.startswith(("E:", "W: Failed"))]
    if done.returncode != 0 or any(line.startswith("W: Failed") for line in complaints):
        said = complaints[0][2:].strip() if complaints else f"exit code {done.returncode}"
        raise DownloadError(f"{what} could not be fetched: {said}. {_ADVICE}")


def _settings(work: Path, what: str, languages: Sequence[str]) -> str:
    """Return apt's settings: read after the machine's own, so that proxies and keys stay."""
    chosen = "".join(f' "{language.replace("-", "_")}";' for language in languages)
    return f"""#clear Acquire::Languages;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Acquire::Languages {{{chosen} }};
Acquire::GzipIndexes "false";
Acquire::Retries "1";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
APT::Sandbox::User "root";
Dir::Etc::sourcelist "{_debian_sources(what)}";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "{work}/lists";
Dir::Cache "{work}/cache";
"""


def _debian_sources(what: str) -> str:
    """Return the file, of the machine's apt sources, that names Debian's main archive."""
    command = ["apt-get", "indextargets", "--format", "$(SOURCESENTRY)|$(REPO_URI)|$(RELEASE)"]
    command += ["Created-By: Packages", "Component: main"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        entry, _, rest = line.partition("|")
        uri, _, release = rest.partition("|")
        if uri.rstrip("/").endswith("/debian") and "-" not in release:
            return entry.rpartition(":")[0]
    raise DownloadError(
        f"{what} come from Debian, and no source of this machine's apt is Debian's main archive "
        f"(an address that ends in /debian). {_ADVICE}"
    )


def _is_release(path: Path) -> bool:
    """Whether a list is of the release itself, and not of its updates or security fixes."""
    match = re.search(r"_dists_([^_]+)_", path.name)
    return match is not None and "-" not in match[1]


def _escaped(language: str) -> str:
    """Return a language as apt's file names have it: pt-BR is ``pt%5fBR``."""
    return language.replace("-", "%5f")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process fetch and the others wait for it; a full disk is an error of ours."""
    with full_disk_is_an_error(folder, "Make room and try again; what was fetched is kept."):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
