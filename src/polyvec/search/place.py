"""Where indexes are kept: in the user's data folder, one for each folder indexed.

Not inside the folder: it may be read-only, shared or under version control, and a private index
must not travel with it.
"""

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from polyvec.errors import IndexMissingError, InputError

VARIABLE = "POLYVEC_INDEXES"


def indexes_folder() -> Path:
    """Return where indexes are kept: ``$POLYVEC_INDEXES``, else in the user's data folder."""
    stated = os.environ.get(VARIABLE)
    if stated:
        return Path(stated).expanduser().absolute()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Application Support")
    else:
        base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "polyvec" / "indexes"


def index_of(root: Path) -> str:
    """Return where the index of a folder is kept, made or not."""
    place = str(root.resolve())
    name = re.sub(r"[^\w.-]+", "-", root.resolve().name) or "root"
    digest = hashlib.blake2b(place.encode(errors="surrogateescape"), digest_size=4).hexdigest()
    return str(indexes_folder() / f"{name}-{digest}")


def check_new_place(place: str, root: Path) -> None:
    """Refuse a place where the tables of a new index would lie among other files.

    Raises:
        InputError: It is the indexed folder, a file, or a folder with other files in it.
    """
    path = Path(place)
    if "://" in place or not (path.exists() or path.resolve() == root.resolve()):
        return
    if not path.is_dir():
        raise InputError(f"--index is {place}, a file; give a folder, or s3://bucket/prefix.")
    others = sorted(p.name for p in path.iterdir() if not p.match("*.lance") and p.name[0] != ".")
    if others or path.resolve() == root.resolve():
        has = f"has {others[0]!r} in it" if others else "is the folder that is to be indexed"
        raise InputError(
            f"--index is where the index is kept, and {place} {has}. Give an empty or a new "
            f"folder, or leave --index out; what is indexed stands before it: polyvec index FOLDER."
        )


def find_index(stated: str | None = None, folder: Path | None = None) -> str:
    """Return the index that a question goes to.

    The one stated, as :func:`stated_index` takes it; else that of the folder (the current one by
    default) or of the nearest folder above it that has one; else the only one there is.

    Raises:
        IndexMissingError: There is none, or several and none of them stated.
    """
    if stated:
        return stated_index(stated)
    here = (folder or Path.cwd()).resolve()
    for root in (here, *here.parents):
        if _is_index(Path(index_of(root))):
            return index_of(root)
    known = list(known_indexes())
    if len(known) == 1:
        return known[0]
    if not known:
        raise IndexMissingError(
            f"There is no index yet (looked in {indexes_folder()}). Make one: polyvec index FOLDER"
        )
    listed = "\n".join(f"  {uri}" for uri in known)
    raise IndexMissingError(
        f"{here} and the folders above it have no index, and there are several others. State one "
        f"with --index:\n{listed}"
    )


def stated_index(stated: str) -> str:
    """Return the index that is meant: by its place, its name, or the folder it was made of.

    Args:
        stated: ``s3://...``, an index's folder, the name of one in the user's data folder (with or
            without the hash at its end), or an indexed folder.

    Raises:
        IndexMissingError: There is none; the message lists those there are.
    """
    if "://" in stated:
        return stated
    path = Path(stated).expanduser().absolute()
    if _is_index(path):
        return str(path)
    if path.is_dir() and _is_index(Path(index_of(path))):
        return index_of(path)
    known = list(known_indexes())
    meant = [uri for uri in known if stated in (Path(uri).name, index_name(uri))]
    if len(meant) == 1:
        return meant[0]
    listed = "".join(f"\n  {uri}" for uri in meant or known)
    if meant:
        raise IndexMissingError(f"Several indexes are called {stated!r}; state one:{listed}")
    others = f" There are:{listed}" if known else ""
    raise IndexMissingError(
        f"{stated!r} is no index, no folder with one and no index's name. Make one: polyvec index "
        f"FOLDER.{others}"
    )


def index_name(uri: str) -> str:
    """Return what an index is called: the end of its place, without the hash there."""
    name = uri.rstrip("/").rpartition("/")[2] if "://" in uri else Path(uri).name
    return re.sub(r"-[0-9a-f]{8}$", "", name) or "index"


def known_indexes() -> Iterator[str]:
    """Yield the indexes in the user's data folder."""
    folder = indexes_folder()
    if folder.is_dir():
        yield from (str(path) for path in sorted(folder.iterdir()) if _is_index(path))


def _is_index(path: Path) -> bool:
    return (path / "facts.lance").is_dir()
