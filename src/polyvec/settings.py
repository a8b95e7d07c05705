"""A command's settings: one frozen dataclass, filled from defaults < TOML file < flags."""

import difflib
import tomllib
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from polyvec.errors import InputError

Settings = TypeVar("Settings")

_UNIONS = (types.UnionType, Union)
_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    Path: "a path",
}


def resolve_settings(
    kind: type[Settings], file: Path | None, flags: Mapping[str, object]
) -> Settings:
    """Build settings of a dataclass from its defaults, a TOML file and flags, later ones winning.

    A flag that is None was not given.

    Raises:
        InputError: The file cannot be read, or has a key the settings do not have or a value of
            another kind.
    """
    stated = {} if file is None else _read_toml(file)
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for key in stated:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
            raise InputError(
                f"{file} has an unknown key {key!r}; did you mean {near[0]!r}? "
                f"Known: {', '.join(known)}."
            )
    _check_kinds(kind, stated, file)
    given = {name: value for name, value in flags.items() if value is not None}
    return kind(**(stated | given))


def _check_kinds(kind: type, stated: Mapping[str, Any], file: Path | None) -> None:
    hints = get_type_hints(kind)
    for key, value in stated.items():
        if not _fits(value, hints[key]):
            raise InputError(f"{file}: {key} is {value!r:.80}; it must be {_said(hints[key])}.")


def _fits(value: Any, hint: Any) -> bool:  # noqa: ANN401 (any TOML value and any type)
    """Whether a TOML value is of a field's kind; which texts are allowed, the settings say."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in _UNIONS:
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return type(value) in {type(one) for one in inner}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, dict)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        one = value if isinstance(value, list) else [value]  # a single one needs no brackets
        return all(_fits(item, inner[0]) for item in one)
    if hint is float:
        return type(value) in (int, float)
    if hint in (Path, type(None)):
        return isinstance(value, str) and hint is Path
    return hint not in _WORDS or type(value) is hint


def _said(hint: Any) -> str:  # noqa: ANN401
    origin, inner = get_origin(hint), get_args(hint)
    if origin in _UNIONS:
        return " or ".join(_said(one) for one in inner if one is not type(None))
    if origin is Literal:
        return f"one of {', '.join(map(repr, inner))}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a table"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"a list, each {_said(inner[0])}"
    return _WORDS.get(hint, str(hint))


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"The settings file {file} cannot be read: {error}.") from error
