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
    """Return the filter that flags ask for.

    Raises:
        InputError: One of them is no path, type, language, day or moment.
    """
    from polyvec.search.where import asked, read_moment

    return asked(
        paths or (),
        types or (),
        languages or (),
        read_moment(since, "--since"),
        read_moment(before, "--before"),
    )
