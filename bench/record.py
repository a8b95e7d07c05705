"""Writes measured rows into the package's table of qualities, in the place of older ones."""

from dataclasses import asdict
from pathlib import Path

from polyvec.engine.quality import Measured

TABLE = Path(__file__).parents[1] / "src" / "polyvec" / "engine" / "quality.toml"
_HEAD = "[[measured]]\n"


def write(row: Measured) -> None:
    """Replace the row of a model at a precision, or add it at the end."""
    start, *blocks = TABLE.read_text().split(_HEAD)
    names = (f'model = "{row.model}"', f'precision = "{row.precision}"')
    made = "".join(f"{key} = {_toml(value)}\n" for key, value in _stated(row).items())
    same = [n for n, block in enumerate(blocks) if set(names) <= set(block.splitlines())]
    if same:
        blocks[same[0]] = made + "\n"
    else:
        blocks[-1] = blocks[-1].rstrip("\n") + "\n\n"
        blocks.append(made)
    text = _HEAD.join([start, *blocks]).rstrip("\n") + "\n"
    partial = TABLE.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(TABLE)


def _stated(row: Measured) -> dict[str, str | float | bool]:
    return {key: value for key, value in asdict(row).items() if value is not None}


def _toml(value: str | float | bool) -> str:
    """Write a word, number or truth as TOML does; the words here need no escapes."""
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
