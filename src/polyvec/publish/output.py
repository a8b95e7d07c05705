"""Where a finished model goes: what may be replaced, and how."""

import os
import shutil
from pathlib import Path
from typing import Literal

from polyvec.errors import OutputError

Form = Literal["folder", "gguf"]


def check_output(output: Path, form: Form, force: bool) -> None:
    """Refuse an output that cannot be written, before any work is done.

    Raises:
        OutputError: Something is there that may not be replaced, or its folder cannot be written.
    """
    if output.exists() and not force:
        raise OutputError(f"{output} exists already; use --force to replace it, or another name.")
    if output.exists() and (output.is_dir() != (form == "folder") or not _is_model(output)):
        raise OutputError(
            f"{output} is not a model {form}, so --force does not replace it. Give another name."
        )
    parent = output.parent
    if not parent.is_dir():
        raise OutputError(
            f"{output} cannot be written: there is no folder {parent}. Make it first."
        )
    if not os.access(parent, os.W_OK):
        raise OutputError(f"{output} cannot be written: the folder {parent} is not writable.")


def _is_model(path: Path) -> bool:
    return path.is_file() or (path / "config.json").is_file() or not any(path.iterdir())


def replace_model(partial: Path, output: Path) -> None:
    """Put the finished model in its place; an old folder goes only when the new one is there."""
    if not output.is_dir():
        partial.replace(output)
        return
    old = output.with_name(f".{output.name}.old")
    remove(old)
    output.rename(old)
    partial.rename(output)
    remove(old)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
