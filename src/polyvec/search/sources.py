"""The folders of a shared index: each has a name, which its paths begin with.

A folder is known by machine and path, so that two people's ``~/Documents`` are two folders. Where
it was indexed from before, its name is found again; a share that is mounted elsewhere is named by
``--source``.
"""

import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from polyvec.errors import InputError
from polyvec.search.database import committed, made_table, merge
from polyvec.search.tables import source_row, sources_schema
from polyvec.search.where import quoted

if TYPE_CHECKING:
    from lancedb import DBConnection
    from lancedb.table import Table

SOURCES = "sources"
_COMPARED = 1_000
"""Files of a known source that are looked for in the folder that claims to be it."""


@dataclass(frozen=True)
class Source:
    """A folder that is indexed, and what its paths begin with in the index."""

    name: str
    """Empty in an index of one folder."""
    root: Path

    @property
    def prefix(self) -> str:
        """What its paths begin with."""
        return f"{self.name}/" if self.name else ""

    def key(self, path: str) -> str:
        """Return a path in the folder as the index has it."""
        return self.prefix + path

    def path(self, key: str) -> str:
        """Return a path of the index as the folder has it."""
        return key.removeprefix(self.prefix)


@dataclass(frozen=True)
class Place:
    """Where a source was indexed from."""

    place: str
    """Machine and path, ``host:/path``."""
    name: str
    claimed_at: datetime


def place_of(root: Path) -> str:
    """Return a folder with its machine."""
    return f"{socket.gethostname()}:{root.resolve()}"


def checked_name(name: str) -> str:
    """Return a source's name.

    Raises:
        InputError: It would not do as the first part of a path.
    """
    if not re.fullmatch(r"\w[\w.+ -]{0,63}", name):
        raise InputError(
            f"--source is {name!r}; allowed: up to 64 letters, digits, spaces, '.', '-', '+' and "
            "'_', the first a letter, a digit or '_'."
        )
    return name


class Sources:
    """The table of sources."""

    def __init__(self, database: "DBConnection") -> None:
        self._table: Table = made_table(database, SOURCES, sources_schema())

    def places(self) -> list[Place]:
        """Return where sources were indexed from, by name."""
        rows = self._table.search().select(["place", "name", "claimed_at"]).limit(None).to_arrow()
        found = [Place(**row) for row in rows.to_pylist()]
        return sorted(found, key=lambda each: (each.name, each.place))

    def claim(
        self, root: Path, stated: str | None, known: Callable[[str], Iterable[str]]
    ) -> Source:
        """Return the source that a folder is, and remember it.

        Args:
            root: The folder.
            stated: Its name; None is the one it had before, else the folder's own name.
            known: Gives the paths, in the folder, that the index has of a name.

        Raises:
            InputError: The name is another folder's, or the folder has none of the source's files.
        """
        places = self.places()
        here = place_of(root)
        mine = sorted({each.name for each in places if each.place == here})
        if stated is None and len(mine) == 1:
            return Source(mine[0], root.resolve())
        if stated is None and mine:
            raise InputError(f"{root} is several sources: {', '.join(mine)}. State --source NAME.")
        name = checked_name(stated) if stated else _name_of(root)
        others = [each.place for each in places if each.name == name and each.place != here]
        if stated in mine:
            return Source(name, root.resolve())
        if others and not stated:
            raise _taken(root, name, others)
        if others:
            _check_alike(root, name, others, known(name))
        self._remember(root, here, name, is_stated=stated is not None)
        return Source(name, root.resolve())

    def forget(self, name: str) -> None:
        """Forget where a source was indexed from."""
        committed(lambda: self._table.delete(f"name = {quoted(name)}"))

    def _remember(self, root: Path, here: str, name: str, *, is_stated: bool) -> None:
        row = source_row(f"{here}#{name}", here, name, datetime.now(UTC))
        committed(lambda: merge(self._table, "key", row, update=False))
        others = [p.place for p in self.places() if p.name == name and p.place != here]
        if others and not is_stated:  # another folder of that name came at the same moment
            self._table.delete(f"key = {quoted(f'{here}#{name}')}")
            raise _taken(root, name, others)


def _name_of(root: Path) -> str:
    return re.sub(r"[^\w.+-]+", "-", root.resolve().name).lstrip(".+-")[:64] or "root"


def _taken(root: Path, name: str, others: list[str]) -> InputError:
    return InputError(
        f"The index has a source {name!r} already, {', '.join(others)}. If {root} is the same "
        f"folder, say so: --source {name}. If it is another one, give it a name of its own: "
        "--source NAME."
    )


def _check_alike(root: Path, name: str, others: list[str], known: Iterable[str]) -> None:
    some = list(islice(known, _COMPARED))
    if some and not any((root / path).exists() for path in some):
        raise InputError(
            f"{root} has none of the files of the source {name!r} ({', '.join(others)}): its "
            "documents would replace the others. Give it another name: --source NAME."
        )
