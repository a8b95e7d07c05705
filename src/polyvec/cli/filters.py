"""Which documents are searched, as flags say it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polyvec.search.where import Where


def where_of(
    paths: list[str] | None,
    types: list[str] | None,
    languages: list[str] | None,
    since: str | None,
    before: str | None,
) -> "Where":
    """Return the filter that flags ask for."""
    from polyvec.search.where import Where, read_moment

    return Where(
        paths or (),
        types or (),
        languages or (),
        read_moment(since, "--since"),
        read_moment(before, "--before"),
    )
