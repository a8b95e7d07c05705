"""The files of a folder: walked without following links, so that no path leads outside or round."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from polyvec.errors import InputError, MissingExtraError
from polyvec.search.kinds import has_no_text
from polyvec.search.settings import ReadSettings

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

IGNORE_FILES = (".gitignore", ".polyvecignore")
_MACHINE_FOLDERS = frozenset({"node_modules", "__pycache__", "CVS"})


@dataclass(frozen=True)
class Seen:
    """A file as the folder lists it."""

    path: str
    """From the root, with ``/``."""
    size_bytes: int
    modified_ns: int


@dataclass
class Scan:
    """What a walk found and what it passed over."""

    files: list[Seen] = field(default_factory=list)
    links: int = 0
    """Symbolic links: never followed."""
    without_text: int = 0
    """Pictures, sound, archives, programs, sockets and the like."""
    ignored: int = 0
    """Hidden, or named by an ignore file; a folder counts as one."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Folders that could not be listed, with the reason."""


def scan(root: Path, settings: ReadSettings, without: Path | None = None) -> Scan:
    """Walk a folder.

    Args:
        root: The folder.
        settings: What is passed over.
        without: A folder to leave out: the index itself.

    Raises:
        InputError: There is no such folder.
        MissingExtraError: pathspec is not installed.
    """
    if not root.is_dir():
        raise InputError(f"{root} is no folder. Give the folder whose documents are to be found.")
    found = Scan()
    _walk(root, "", [], settings, without, found)
    found.files.sort(key=lambda seen: seen.path)
    return found


def _walk(
    folder: Path,
    prefix: str,
    ignoring: list[tuple[str, "GitIgnoreSpec"]],
    settings: ReadSettings,
    without: Path | None,
    found: Scan,
) -> None:
    """Add a folder's files to ``found``; ``prefix`` is its path from the root, ending in ``/``."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        found.unreadable[prefix or "."] = error.strerror or str(error)
        return
    if settings.ignore_files:
        ignoring = [*ignoring, *_ignore_specs(folder, prefix, {entry.name for entry in entries})]
    for entry in entries:
        path = prefix + entry.name
        if entry.is_symlink():
            found.links += 1
        elif _is_ignored(entry, path, ignoring, settings):
            found.ignored += 1
        elif entry.is_dir(follow_symlinks=False):
            if without is None or Path(entry.path) != without:
                _walk(Path(entry.path), path + "/", ignoring, settings, without, found)
        else:
            _add(entry, path, found)


def _add(entry: os.DirEntry[str], path: str, found: Scan) -> None:
    try:
        facts = entry.stat(follow_symlinks=False)
    except FileNotFoundError:  # deleted since the folder was listed
        return
    if not _is_unicode(path):
        found.unreadable[path.encode(errors="backslashreplace").decode()] = (
            "its name is not UTF-8; rename it"
        )
    elif not stat.S_ISREG(facts.st_mode) or has_no_text(path):
        found.without_text += 1
    else:
        found.files.append(Seen(path, facts.st_size, facts.st_mtime_ns))


def _is_unicode(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_ignored(
    entry: os.DirEntry[str],
    path: str,
    ignoring: list[tuple[str, "GitIgnoreSpec"]],
    settings: ReadSettings,
) -> bool:
    if entry.name.startswith(".") and not settings.hidden:
        return True
    is_folder = entry.is_dir(follow_symlinks=False)
    if is_folder and (entry.name in _MACHINE_FOLDERS or entry.name == ".git"):
        return True
    verdict = False
    for prefix, spec in ignoring:  # the innermost file has the last word, as in git
        inside = path.removeprefix(prefix) + ("/" if is_folder else "")
        stated = spec.check_file(inside).include
        verdict = verdict if stated is None else stated
    return verdict


def _ignore_specs(
    folder: Path, prefix: str, names: set[str]
) -> Iterator[tuple[str, "GitIgnoreSpec"]]:
    for name in IGNORE_FILES:
        path = folder / name
        if name in names and path.is_file() and not path.is_symlink():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            yield prefix, _spec(lines)


def _spec(lines: list[str]) -> "GitIgnoreSpec":
    try:
        from pathspec import GitIgnoreSpec
    except ImportError as error:
        raise MissingExtraError(
            "Ignore files are read by pathspec, which is not installed: "
            "pip install 'polyvec[search]'."
        ) from error
    return GitIgnoreSpec.from_lines(lines)
