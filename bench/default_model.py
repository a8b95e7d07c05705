"""SmolLM2-135M, the default model's backbone, in the forms that other engines read."""

import shutil
from pathlib import Path

from polyvec.hub import resolve
from polyvec.model.files import ModelFiles, open_model
from polyvec.model.save import save_folder
from polyvec.publish.export import export

_STAMP = "model.fingerprint"
"""Whose files are in the folder: another default model replaces them."""


def open_default() -> ModelFiles:
    """Open SmolLM2-135M made bidirectional, fetched on first use."""
    place = resolve("smollm2")
    return open_model(place.path, place.facts)


def write_default(folder: Path, *, gguf: bool) -> ModelFiles:
    """Write ``model`` (a folder, fp32) and, if asked for, ``model-Q8_0.gguf`` unless there."""
    files = open_default()
    folder.mkdir(parents=True, exist_ok=True)
    stamp, fingerprint = folder / _STAMP, files.fingerprint()
    if not stamp.exists() or stamp.read_text() != fingerprint:
        shutil.rmtree(folder / "model", ignore_errors=True)
        for path in folder.glob("model[-.]*"):
            path.unlink()
        save_folder(files, folder / "model")
        stamp.write_text(fingerprint)
    if gguf and not (folder / "model-Q8_0.gguf").exists():
        export(files, folder / "model-Q8_0.gguf", "gguf", "Q8_0")
    return files
