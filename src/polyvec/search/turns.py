"""Turns: what only one run at a time may do to an index, in a folder or in an object store.

In a folder it is a lock of the file system, which goes with its process. An object store has none:
there a turn is a table of one row (name, holder, beat, who, since), and taking it is an update on
the condition that holder and beat are what was read. Lance commits by a put that fails where
another came first, so one of several takers wins. The holder raises the beat now and then; a waiter
who sees the same beat for ``PATIENCE_S``, by its own clock, takes the turn of the dead. No two
clocks are compared. Each turn has a table of its own, so that holders do not delay each other.
"""

import getpass
import hashlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from polyvec.errors import OutputError, PolyvecError, TurnLostError
from polyvec.search.database import attempted, committed, made_table, merge, table_names
from polyvec.search.storage import reaching
from polyvec.search.tables import turn_row, turns_schema
from polyvec.search.where import quoted

if TYPE_CHECKING:
    from lancedb import DBConnection
    from lancedb.table import Table

PREFIX = "turn_"
"""Of the tables; a hash of the turn's name follows."""
PATIENCE_S = 120.0
"""A run that was silent for so long is dead: others take its turn."""
BEAT_S = 20.0
"""How often a holder says that it lives."""
TRUSTED_S = 60.0
"""So long after its last beat a holder still writes; the rest is for what it began."""
_TIDY_EVERY = 64
"""Beats; each leaves a version of the table."""

Tell = Callable[[str], None]
"""Is given a sentence about what a run waits for."""


def whoami() -> str:
    """Return this run in words: user, machine and process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = f"user {os.getuid()}"
    return f"{user}@{socket.gethostname()}, process {os.getpid()}"


@dataclass(frozen=True)
class Row:
    """A turn as the table has it."""

    name: str
    holder: str
    """Who has it, as a number of its own; empty where nobody does."""
    beat: int
    who: str
    since: datetime


class Turn:
    """A turn that this run has, until :meth:`end`."""

    def __init__(self, turns: "Turns", name: str, holder: str, taken_at_s: "_Moment") -> None:
        self.name, self._turns, self._holder = name, turns, holder
        self._heard, self._lost = taken_at_s, False
        self._stop = threading.Event()
        self._beating = threading.Thread(target=self._beat, name=f"turn {name}", daemon=True)
        self._beating.start()

    def check(self) -> None:
        """Make sure that the turn is still this run's, before something is written.

        Raises:
            TurnLostError: Another run took it, or may have.
        """
        if self._lost or self._heard.ago_s() > TRUSTED_S:
            raise TurnLostError(
                f"This run was not heard of for too long (asleep, or cut off from the store), so "
                f"another may have gone on with {self.name!r}. What it wrote is kept; run the same "
                "command again."
            )

    def end(self) -> None:
        """Give the turn back."""
        self._stop.set()
        self._beating.join()
        if not self._lost:
            self._turns.release(self.name, self._holder)

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_S):
            begun = _Moment()
            try:
                if not self._turns.renew(self.name, self._holder):
                    self._lost = True
                    return
            except (RuntimeError, OSError, ValueError, PolyvecError):
                continue  # a store out of reach: check() counts from the last beat that arrived
            self._heard = begun


class _Moment:
    """Now, by both clocks: the steady one stands still while a machine sleeps."""

    def __init__(self) -> None:
        self._steady_s, self._wall_s = time.monotonic(), time.time()

    def ago_s(self) -> float:
        return max(time.monotonic() - self._steady_s, time.time() - self._wall_s)


class Turns:
    """The turns of an index in an object store."""

    def __init__(self, database: "DBConnection") -> None:
        self._database = database
        self._tables: dict[str, Table] = {}

    def take(self, name: str, tell: Tell, *, unless_alive: bool = False) -> Turn | None:
        """Wait for a turn and take it.

        Args:
            name: The turn's.
            tell: Told once whom this run waits for.
            unless_alive: Give up, with None, when another run has it and is seen to be alive.
        """
        holder, seen, seen_at, told = uuid.uuid4().hex, None, 0.0, False
        while True:
            begun, row = _Moment(), self.read(name)
            if seen is None or (row.holder, row.beat) != (seen.holder, seen.beat):
                if seen is not None and row.holder and unless_alive:
                    return None
                seen, seen_at = row, time.monotonic()
            is_dead = time.monotonic() - seen_at >= PATIENCE_S
            if (not row.holder or is_dead) and self._swap(row, holder):
                return Turn(self, name, holder, begun)
            if row.holder and not told:
                told = True
                tell(_waiting_for(row))
            if row.holder:
                time.sleep(min(PATIENCE_S / 10, 5.0))

    def read(self, name: str) -> Row:
        """Return a turn's row; it is made where there is none."""
        table = self._table(name)
        rows = _rows(table)
        if not rows:
            free = turn_row(name, "", 0, "", datetime.now(UTC))
            committed(lambda: merge(table, "name", free, update=False))
            rows = _rows(table)
        return rows[0]

    def held(self, prefix: str = "") -> list[Row]:
        """Return the turns that somebody has, or had when it died."""
        names = [name for name in table_names(self._database) if name.startswith(PREFIX)]
        rows = [row for name in names for row in _rows(self._database.open_table(name))]
        return [row for row in rows if row.holder and row.name.startswith(prefix)]

    def renew(self, name: str, holder: str) -> bool:
        """Raise the beat; False where the turn is another's by now."""
        row = self.read(name)
        return row.holder == holder and self._swap(row, holder)

    def release(self, name: str, holder: str) -> None:
        """Make a turn free, if it is this holder's."""
        row = self.read(name)
        if row.holder == holder:
            self._swap(row, "")

    def _swap(self, row: Row, holder: str) -> bool:
        """Give a turn to a holder if it is as it was read; True where it has it now."""
        where = f"holder = {quoted(row.holder)} AND beat = {row.beat}"
        values: dict[str, object] = {"holder": holder, "beat": row.beat + 1}
        if holder != row.holder:
            values |= {"who": whoami() if holder else "", "since": datetime.now(UTC)}
        table, changed = self._table(row.name), list[int]()
        committed(lambda: changed.append(table.update(where, values).rows_updated))
        if (row.beat + 1) % _TIDY_EVERY == 0:
            attempted(lambda: table.optimize(cleanup_older_than=timedelta(hours=1)))
        if changed[-1] == 1:
            return True
        now = self.read(row.name)  # a commit whose answer was lost may have been made
        return (now.holder, now.beat) == (holder, row.beat + 1)

    def _table(self, name: str) -> "Table":
        if name not in self._tables:
            digest = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
            self._tables[name] = made_table(self._database, PREFIX + digest, turns_schema())
        return self._tables[name]


def _waiting_for(row: Row) -> str:
    since = row.since.astimezone().strftime("%H:%M:%S")
    return (
        f"Waiting for {row.who}, at work on {row.name!r} since {since}. If it died, this run goes "
        f"on in {PATIENCE_S:,.0f} seconds."
    )


def _rows(table: "Table") -> list[Row]:
    return [Row(**row) for row in table.search().limit(None).to_arrow().to_pylist()]


@contextmanager
def folder_turn(folder: Path, tell: Tell) -> Iterator[None]:
    """Wait until no other run updates the same folder of tables.

    The lock goes with its process. Readers need none.

    Raises:
        OutputError: The system has no such lock (Windows).
        StorageError: The folder cannot be written.
    """
    try:
        import fcntl
    except ImportError as error:
        raise OutputError(
            "Indexes in folders are written under a lock that only POSIX systems have. On Windows "
            "run polyvec in WSL."
        ) from error

    with reaching(str(folder)):
        opened = (folder / ".updating").open("a+", encoding="utf-8")
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            tell(f"Waiting for {lock.read().strip() or 'another run'}, which updates {folder}.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(whoami())
        lock.flush()
        yield
