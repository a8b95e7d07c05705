"""``polyvec precision``: what each precision costs a model on the user's own texts."""

from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.table import Table

import polyvec
from polyvec.cli.flags import precision as flags
from polyvec.cli.options import (
    MESSAGES,
    AttentionOption,
    FormatOption,
    JsonOption,
    ModelArgument,
    PoolingOption,
    TextColumnOption,
)
from polyvec.cli.output import print_json, results_console
from polyvec.engine.bulk import checked
from polyvec.engine.quality import LEAST, LEAST_TEXTS, Measured, measured, pick_for, remember
from polyvec.engine.rows import Columns, Format, check_readable, read_rows
from polyvec.errors import DeviceError, InputError
from polyvec.metrics import fidelity

if TYPE_CHECKING:
    from polyvec.engine.embedder import Embedder, Vectors

_COMPARED = ("bf16", "int8")


def precision(
    model: ModelArgument,
    files: flags.Files,
    as_json: JsonOption = False,
    attention: AttentionOption = None,
    pooling: PoolingOption = None,
    text_column: TextColumnOption = "text",
    format: FormatOption = None,  # noqa: A002 (the option's name)
) -> None:
    """Measure what bf16 and int8 cost a model on your texts, on the CPU.

    Vectors are compared with fp32's: the cosine in the mean and at the lowest, and the share of
    texts whose nearest neighbour stays the same. If int8 keeps them, `--precision auto` takes it
    for this model from then on; training the model further makes it another model.

    Examples:

    - `polyvec precision ./my-model corpus.jsonl --text-column body`
    - `polyvec precision default notes.txt --json`
    """
    check_readable(files, format)
    texts = _texts(files, Columns(text_column, None), format)
    stated: dict[str, Any] = {"attention": attention, "pooling": pooling, "device": "cpu"}
    exact = polyvec.load(model, precision="fp32", **stated)
    reference = _vectors(exact, texts)
    rows: list[Measured] = []
    for name in _COMPARED:
        try:
            other = polyvec.load(model, precision=name, **stated)
        except DeviceError as error:
            MESSAGES.print(f"{name} is left out: {error}", markup=False)
            continue
        found = fidelity(_vectors(other, texts), reference)
        rows.append(measured(exact.files, _name(model), name, found, len(texts), "here"))
        where = remember(rows[-1])
        del other
    if not rows:
        raise DeviceError("This machine has neither bf16 nor int8 to compare with fp32.")
    MESSAGES.print(f"[dim]Remembered in {where}[/]")
    _print(rows, pick_for(exact.files, "auto", torch.device("cpu")), as_json)


def _texts(files: list[Path], columns: Columns, format: Format | None) -> list[str]:  # noqa: A002
    """Read the texts, each once: equal ones would be each other's nearest at any precision."""
    rows = checked(read_rows(files, columns, format), "error")
    texts = list(dict.fromkeys(row.text for row in islice(rows, flags.MOST_TEXTS)))
    if len(texts) < LEAST_TEXTS:
        raise InputError(
            f"The files have {len(texts)} different texts; {LEAST_TEXTS} are the least that tell "
            "how many neighbours stay. Give more, of the kind that the model is to embed."
        )
    return texts


def _name(model: str) -> str:
    return Path(model).name if Path(model).exists() else model


def _vectors(embedder: "Embedder", texts: list[str]) -> "Vectors":
    return embedder.encode_document(texts)


def _print(rows: list[Measured], picked: str, as_json: bool) -> None:
    if as_json:
        figures = [{**asdict(row), "holds": row.holds} for row in rows]
        print_json({"auto": picked, "precisions": figures})
        return
    table = Table("precision", "mean cosine", "lowest", "nearest kept", box=None)
    for row in rows:
        table.add_row(
            row.precision, f"{row.cosine_mean:.5f}", f"{row.cosine_lowest:.4f}", f"{row.kept:.1%}"
        )
    table.add_row("needed", f"{LEAST.mean}", f"{LEAST.lowest}", f"{LEAST.kept:.0%}", style="dim")
    console = results_console()
    console.print(table)
    console.print(f"--precision auto is {picked} for this model here.")
