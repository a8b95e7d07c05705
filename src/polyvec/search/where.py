"""Which chunks a search looks at: by path, type, language and date."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from polyvec.errors import InputError
from polyvec.search.kinds import file_type_of


@dataclass(frozen=True)
class Where:
    """A filter; what is left empty lets everything through. All given ones must hold."""

    paths: Sequence[str] = ()
    """Folders, files or patterns (``reports``, ``notes/*.md``); one of them must match."""
    file_types: Sequence[str] = ()
    languages: Sequence[str] = ()
    modified_from: datetime | None = None
    """The first moment that counts."""
    modified_before: datetime | None = None
    """The first moment that no longer counts."""

    def sql(self) -> str | None:
        """Return the condition for LanceDB (DataFusion's SQL), or None where there is none.

        Raises:
            InputError: A moment without a time zone, a path that leads out of the folder, or a
                pattern that none can be.
        """
        parts = [_one_of("file_type", self.file_types), _one_of("language", self.languages)]
        if self.paths:
            pattern = "|".join(f"(?:{_path_pattern(path)})" for path in self.paths)
            parts.append(f"regexp_like(path, {quoted(f'^(?:{pattern})$')})")
        if self.modified_from is not None:
            parts.append(f"modified_at >= {_moment(self.modified_from)}")
        if self.modified_before is not None:
            parts.append(f"modified_at < {_moment(self.modified_before)}")
        return " AND ".join(f"({part})" for part in parts if part) or None


def asked(
    paths: Sequence[str],
    file_types: Sequence[str],
    languages: Sequence[str],
    since: datetime | None = None,
    before: datetime | None = None,
) -> Where:
    """Return the filter that a person asks for: types by any of their names, codes in any case.

    Raises:
        InputError: A type or a language is none, or as :meth:`Where.sql`.
    """
    types = [file_type_of(each) for each in file_types]
    where = Where(paths, types, [_language(each) for each in languages], since, before)
    where.sql()  # says what is wrong with a path
    return where


def _language(stated: str) -> str:
    code = stated.strip().lower()
    if not re.fullmatch(r"[a-z]{2,3}", code):
        raise InputError(f"{stated!r} is no language's code; write two letters: en, de, zh.")
    return code


def quoted(text: str) -> str:
    """Return a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def one_of(column: str, values: Sequence[str]) -> str:
    """Return the condition that a column has one of some values; none of them is never true."""
    return f"{column} IN ({', '.join(map(quoted, values))})" if values else "false"


def below(prefix: str) -> str:
    """Return the condition that a path begins with a prefix."""
    return f"starts_with(path, {quoted(prefix)})"


def _one_of(column: str, values: Sequence[str]) -> str:
    return one_of(column, values) if values else ""


def _path_pattern(path: str) -> str:
    """Return a regular expression for a folder, a file or a pattern; ``*`` crosses folders."""
    clean = path.strip("/").removeprefix("./").rstrip("/")
    if ".." in clean.replace("\\", "/").split("/"):
        raise InputError(
            f"The path {path!r} leads out of the indexed folder; paths start from that folder, "
            "without '..'."
        )
    if path.startswith("/") or re.match(r"[A-Za-z]:[\\/]", path):
        raise InputError(
            f"The path {path!r} starts from the machine's root; paths start from the indexed "
            "folder: notes, notes/*.md."
        )
    if not clean or clean == ".":
        return ".*"
    if any(sign in clean for sign in "*?["):
        return "".join(map(_sign_pattern, re.findall(r"\[!?\]?[^\]]*\]|.", clean, re.DOTALL)))
    return f"{_escaped(clean)}(?:/.*)?"


def _sign_pattern(sign: str) -> str:
    """Return the regular expression of ``*``, ``?``, ``[set]`` or a plain character.

    fnmatch's own translation writes what only Python's engine reads, and the store's is Rust's.
    """
    if sign in "*?":
        return ".*" if sign == "*" else "."
    if len(sign) == 1:
        return _escaped(sign)
    negated = sign[1] == "!"
    inside = re.sub(r"([\\\[\]^&~])", r"\\\1", sign[1 + negated : -1])
    pattern = f"[{'^' * negated}{inside}]"
    try:
        re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"{sign} is no set of characters: {error.msg}. Write it like [a-z] or [!0-9]."
        ) from error
    return pattern


def _escaped(text: str) -> str:
    return re.sub(r"([\\.+*?()|\[\]{}^$#&\-~])", r"\\\1", text)


def _moment(moment: datetime) -> str:
    if moment.tzinfo is None:
        raise InputError(f"The moment {moment} has no time zone; state one, e.g. UTC.")
    text = moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    return f"timestamp '{text}Z'"


def read_moment(text: str | None, name: str) -> datetime | None:
    """Read a day, or a moment; without a time zone it is of this machine's.

    Args:
        text: As ISO 8601 writes it; None is none.
        name: What an error calls it.

    Raises:
        InputError: It is neither.
    """
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InputError(
            f"{name} is {text!r}; write a day or a moment: 2026-03-01 or 2026-03-01T12:00."
        ) from None
