"""Prompts: TOML files that a user can copy and edit."""

import random
import string
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from polyvec.errors import InputError, OutputError

_SHIPPED = "polyvec.data.generate"
_FOLDER = "prompts"
_TEXTS = ("ideas", "write")


@dataclass(frozen=True)
class Prompt:
    """A kind's prompts. ``${name}`` in them is a slot."""

    name: str
    write: str
    ideas: str = ""
    options: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Slots that are filled with one of several values, drawn anew for every request."""

    def fill(self, text: str, draw: random.Random, **slots: object) -> str:
        """Put values into the slots.

        Raises:
            InputError: A slot has no value: the file was edited wrongly.
        """
        values = {name: str(value) for name, value in slots.items()}
        for name, choices in self.options:  # an option may itself name a slot
            values[name] = string.Template(draw.choice(choices)).safe_substitute(values)
        try:
            return string.Template(text).substitute(values).strip()
        except (KeyError, ValueError) as error:
            raise InputError(
                f"The prompt {self.name} cannot be filled ({error}); it may use: "
                f"{', '.join('${' + name + '}' for name in sorted(values))}; a plain dollar is $$."
            ) from error


def load_prompt(name: str, folder: Path | None = None) -> Prompt:
    """Read a kind's prompts from a folder, or those shipped where the folder has none.

    Raises:
        InputError: The file is no TOML, or lacks a part.
    """
    own = None if folder is None else folder / f"{name}.toml"
    if folder is not None and not folder.is_dir():
        raise InputError(f"There is no folder of prompts {folder}; make it with --write-prompts.")
    if own is not None and own.is_file():
        return _parse(name, own.read_text(encoding="utf-8"), str(own))
    return _parse(name, _shipped(name), f"{name}.toml")


def write_prompts(folder: Path) -> list[Path]:
    """Copy the shipped prompts into a folder, to be edited; none that is there is replaced.

    Raises:
        OutputError: One is there already, or the folder cannot be made.
    """
    names = [item.name for item in _shipped_folder().iterdir() if item.name.endswith(".toml")]
    there = [name for name in sorted(names) if (folder / name).exists()]
    if there:
        raise OutputError(
            f"{folder / there[0]} exists already; give another folder, or remove it first."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / name).write_text(_shipped(name.removesuffix(".toml")), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"Prompts cannot be written to {folder}: {error.strerror}.") from error
    return [folder / name for name in sorted(names)]


def _shipped_folder() -> Any:  # noqa: ANN401 (importlib's Traversable moved between Pythons)
    return resources.files(_SHIPPED) / _FOLDER


def _shipped(name: str) -> str:
    text: str = (_shipped_folder() / f"{name}.toml").read_text(encoding="utf-8")
    return text


def _parse(name: str, text: str, where: str) -> Prompt:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where} is not TOML: {error}.") from error
    unknown = set(table) - {*_TEXTS, "options"}
    if unknown or not isinstance(table.get("write"), str):
        raise InputError(
            f"{where} must have a text 'write', and may have 'ideas' and a table 'options'; it has "
            f"{', '.join(sorted(table)) or 'nothing'}."
        )
    options = tuple((slot, tuple(values)) for slot, values in table.get("options", {}).items())
    if any(not values or not all(isinstance(v, str) for v in values) for _, values in options):
        raise InputError(f"{where}: every option must be a list of texts, with one at least.")
    return Prompt(where, table["write"], str(table.get("ideas", "")), options)
