"""Runs that change an index: who may write, and who waits.

In a folder one run at a time changes the index. In an object store, runs of different sources go on
side by side; runs of one source take turns; a migration is alone; and one run at a time compacts.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from polyvec.errors import InputError
from polyvec.search.sources import Source, Sources
from polyvec.search.storage import is_object_store, reaching
from polyvec.search.store import Store
from polyvec.search.turns import Tell, Turn, Turns, folder_turn

_INDEX, _SOURCE, _UPKEEP = "the whole index", "source", "upkeep"


def silent(sentence: str) -> None:
    """Tell nobody."""


@contextmanager
def updating(store: Store, tell: Tell) -> Iterator[None]:
    """Wait for the turn of the store's source and have it meanwhile.

    Raises:
        IndexMismatchError: Another run has changed the index's model or cut.
        TurnLostError: When something is to be written and the turn may be another's.
    """
    if is_object_store(store.uri):
        turns = Turns(store.database)
        with _held(store, lambda: _entered(turns, _turn_of(store.source.name), tell)):
            store.check_current()
            yield
    else:
        with folder_turn(Path(store.uri), tell):
            store.check_current()
            yield


@contextmanager
def migrating(store: Store, tell: Tell) -> Iterator[None]:
    """Wait until nobody else changes the index, and keep others from it meanwhile.

    Raises:
        TurnLostError: As for :func:`updating`.
    """
    if is_object_store(store.uri):
        turns = Turns(store.database)
        with _held(store, lambda: _emptied(turns, tell)):
            yield
    else:
        with folder_turn(Path(store.uri), tell):
            yield


def refresh(store: Store) -> None:
    """Keep the index fast, unless another run is at it."""
    if not is_object_store(store.uri):
        with reaching(store.uri):
            store.refresh()
        return
    with reaching(store.uri):
        turn = Turns(store.database).take(_UPKEEP, silent, unless_alive=True)
        if turn is not None:
            try:
                store.refresh()
            finally:
                turn.end()


def forget_source(store: Store, name: str, tell: Tell) -> int:
    """Take a source's documents out of an index, and return how many they were.

    Raises:
        InputError: The index has no source of that name.
    """
    sources = Sources(store.database) if store.info.is_shared else None
    known = sorted({each.name for each in sources.places()}) if sources else []
    if sources is None or name not in known:
        raise InputError(
            f"The index {store.uri} has no source {name!r}; it has: {', '.join(known) or 'none'}."
        )
    store.source = Source(name, Path())
    with updating(store, tell):
        documents = len(store.documents(store.source.prefix))
        store.forget_below(store.source.prefix)
        sources.forget(name)
        refresh(store)
    return documents


def writers(store: Store) -> dict[str, str]:
    """Return who changes what now, as far as turns say: those of the dead are among them."""
    if not is_object_store(store.uri):
        return {}
    with reaching(store.uri):
        return {row.name: row.who for row in Turns(store.database).held()}


@contextmanager
def _held(store: Store, take: Callable[[], Turn]) -> Iterator[None]:
    with reaching(store.uri):
        turn = take()
    store.before_write = turn.check
    try:
        yield
    finally:
        with reaching(store.uri):
            turn.end()


def _turn_of(source: str) -> str:
    return f"{_SOURCE} {source}".strip()


def _entered(turns: Turns, name: str, tell: Tell) -> Turn:
    """Take a source's turn while nobody has the whole index.

    Both write first and look then, so one of them sees the other; the source makes way.
    """
    while True:
        turn = _taken(turns, name, tell)
        if not turns.read(_INDEX).holder:
            return turn
        turn.end()
        _taken(turns, _INDEX, tell).end()


def _emptied(turns: Turns, tell: Tell) -> Turn:
    turn = _taken(turns, _INDEX, tell)
    for row in turns.held(_SOURCE):
        _taken(turns, row.name, tell).end()
    return turn


def _taken(turns: Turns, name: str, tell: Tell) -> Turn:
    turn = turns.take(name, tell)
    assert turn is not None, "only a caller that asks for it is given none"
    return turn
