"""What the commands say about indexes of several folders, and about object stores."""

from typing import TYPE_CHECKING, Any

import typer
from rich.text import Text

from polyvec.cli.options import MESSAGES
from polyvec.cli.terminal import visible
from polyvec.errors import InputError

if TYPE_CHECKING:
    from polyvec.search.store import Store


def tell(sentence: str) -> None:
    """Say what a run waits for."""
    MESSAGES.print(Text(visible(sentence), style="yellow"))


def forget(place: str, source: str | None, options: dict[str, str]) -> None:
    """Take a source out of an index.

    Raises:
        InputError: The index has no such source.
    """
    from polyvec.search.runs import forget_source
    from polyvec.search.store import Store

    if source is None:
        raise InputError("--forget takes a folder out of an index of several: give --source NAME.")
    documents = forget_source(Store.open(place, storage_options=options), source, tell)
    typer.echo(f"{documents:,} documents of {source} forgotten in {visible(place)}")


def source_facts(store: "Store") -> dict[str, Any]:
    """Return the sources of an index, with where they are indexed from, and who writes now."""
    from polyvec.search.runs import writers
    from polyvec.search.sources import Sources

    if not store.info.is_shared:
        return {}
    sources: dict[str, list[str]] = {}
    for each in Sources(store.database).places():
        sources.setdefault(each.name, []).append(each.place)
    return {"sources": sources, "writers": writers(store)}


def source_lines(facts: dict[str, Any]) -> dict[str, str]:
    """Return what :func:`source_facts` gave as titled lines."""
    places, turns = facts.get("sources", {}), facts.get("writers", {})
    lines = {f"  {name}": ", ".join(known) for name, known in places.items()}
    lines |= {f"  {turn}": f"being changed by {who}" for turn, who in turns.items()}
    return lines
