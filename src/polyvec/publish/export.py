"""A model, from wherever it was read, to a model folder or a GGUF that others run right."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from polyvec.disk import full_disk_is_an_error
from polyvec.errors import InputError, OutputError
from polyvec.model.files import ModelFiles, open_model
from polyvec.model.save import write_folder
from polyvec.model.weights import Weights
from polyvec.publish.gguf import write_gguf
from polyvec.publish.measure import Quality, check_tokens, measure
from polyvec.publish.mixture import FILE_TYPES
from polyvec.publish.notes import gguf_notes
from polyvec.publish.output import Form, check_output, remove, replace_model

FOLDER_TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_DEFAULT_GGUF_TYPE = "Q8_0"
_GGUF = ".gguf"
_NO_ROOM = "What was written of it is removed again; make room, or choose a smaller --type."


@dataclass(frozen=True)
class Exported:
    """What was written, and how near it is to its source."""

    path: str
    form: str
    type: str
    size_bytes: int
    files: dict[str, int]
    """Bytes of each file."""
    tensors: dict[str, int]
    """How many tensors have which type."""
    quality: Quality
    notes: list[str]
    """What programs that run it will do otherwise than the model."""

    def facts(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return asdict(self)


def export(
    source: ModelFiles,
    output: Path,
    to: Form | None = None,
    type_name: str | None = None,
    force: bool = False,
) -> Exported:
    """Write a model in another form, read it back and compare the vectors.

    Args:
        source: The model, opened.
        output: A folder or a ``.gguf`` file to make.
        to: ``folder`` or ``gguf``; None goes by the ending of ``output``.
        type_name: F32, F16 or BF16 (None: as the source has it) for a folder; one of
            :data:`polyvec.publish.mixture.FILE_TYPES` for a GGUF (None: Q8_0).
        force: Replace what is at ``output``.

    Raises:
        InputError: The form or type is not one that can be written.
        OutputError: Something is at ``output``, or it cannot be written there.
        DiskFullError: There is no room; nothing half-written is left.
        SpecError: The form has no words for something the model is.
        ModelFileError: A weight is not a number.
    """
    output = output.absolute()
    form = _form(to, output)
    type_name = _type(form, type_name, source)
    check_output(output, form, force)
    partial = output.with_name(f".{output.name}.partial{_GGUF if form == 'gguf' else ''}")
    remove(partial)
    try:
        with full_disk_is_an_error(output, _NO_ROOM):
            tensors = _write(source, partial, form, type_name)
        report = _report(source, partial, output, form, type_name, tensors)
        replace_model(partial, output)
    finally:
        remove(partial)
    return report


def _form(to: Form | None, output: Path) -> Form:
    if to is None:
        return "gguf" if output.suffix == _GGUF else "folder"
    if to not in get_args(Form):
        raise InputError(f"A model is exported to {' or '.join(get_args(Form))}; given: {to!r}.")
    if (to == "gguf") != (output.suffix == _GGUF):
        raise OutputError(
            f"A GGUF's name ends in {_GGUF} and a folder's does not; given: --to {to} and {output}."
        )
    return to


def _type(form: Form, name: str | None, source: ModelFiles) -> str:
    allowed = list(FOLDER_TYPES if form == "folder" else FILE_TYPES)
    if name is None:
        return stored_type(source.weights) if form == "folder" else _DEFAULT_GGUF_TYPE
    if name not in allowed:
        hint = " Export to gguf for it." if name in FILE_TYPES else ""
        raise InputError(
            f"Type {name!r} was asked for; a {form} can have {', '.join(allowed)}.{hint}"
        )
    return name


def stored_type(weights: Weights) -> str:
    """Return the type that weights are stored in; what is quantized is read as F32."""
    table = next(
        n for n in sorted(weights.names) if n.startswith("embed") and n.endswith("s.weight")
    )
    stored = weights.rows(table, 0, 1).dtype
    return next((name for name, dtype in FOLDER_TYPES.items() if dtype == stored), "F32")


def _write(source: ModelFiles, path: Path, form: Form, type_name: str) -> Counter[str]:
    if form == "gguf":
        return write_gguf(source, path, type_name)
    write_folder(source, path, FOLDER_TYPES[type_name])
    return Counter({type_name: len(open_model(path).weights.names)})


def _report(
    source: ModelFiles,
    partial: Path,
    output: Path,
    form: Form,
    type_name: str,
    tensors: Counter[str],
) -> Exported:
    result = open_model(partial)
    check_tokens(source, result)
    paths = [partial] if form == "gguf" else sorted(p for p in partial.rglob("*") if p.is_file())
    names = [output.name if p == partial else str(p.relative_to(partial)) for p in paths]
    files = {name: path.stat().st_size for name, path in zip(names, paths, strict=True)}
    return Exported(
        path=str(output),
        form=form,
        type=type_name,
        size_bytes=sum(files.values()),
        files=files,
        tensors=dict(tensors.most_common()),
        quality=measure(source, result),
        notes=gguf_notes(source) if form == "gguf" else [],
    )
