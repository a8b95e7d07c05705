"""Settings as a command's flags and its file of settings state them."""

from dataclasses import fields
from pathlib import Path
from typing import TypeVar

import typer

from polyvec.settings import resolve_settings

Settings = TypeVar("Settings")


def settings_given(kind: type[Settings], file: Path | None, context: typer.Context) -> Settings:
    """Build settings whose fields have the names of the command's parameters.

    A flag is called what its setting is called, so a command names none a third time.

    Args:
        kind: A dataclass of settings.
        file: A TOML file of settings; flags win over it.
        context: Of the command that runs.

    Raises:
        InputError: As :func:`polyvec.settings.resolve_settings`.
    """
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    return resolve_settings(kind, file, {name: _given(context.params.get(name)) for name in names})


def _given(value: object) -> object:
    """A repeatable flag that nobody gave is an empty list, and no wish to have none."""
    return None if value in ([], ()) else value
