"""A command's settings: one frozen dataclass, filled from defaults < TOML file < flags."""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from polyvec.errors import InputError

Settings = TypeVar("Settings")


def resolve_settings(
    kind: type[Settings], file: Path | None, flags: Mapping[str, object]
) -> Settings:
    """Build settings of a dataclass from its defaults, a TOML file and flags, later ones winning.

    A flag that is None was not given.

    Raises:
        InputError: The file cannot be read, or has a key the settings do not have.
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
    given = {name: value for name, value in flags.items() if value is not None}
    return kind(**(stated | given))


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"The settings file {file} cannot be read: {error}.") from error
