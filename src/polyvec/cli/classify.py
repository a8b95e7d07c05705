"""``polyvec classify``: train a classifier on few labelled texts, judge it, apply it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from polyvec.cli.flags import classify as flags
from polyvec.cli.options import (
    MESSAGES,
    DeviceOption,
    ForceOption,
    FormatOption,
    IdColumnOption,
    InstructionOption,
    JsonOption,
    MaxTokensOption,
    ModelOption,
    PrecisionOption,
    RoleOption,
    SeedOption,
    TextColumnOption,
    TextFilesArgument,
)
from polyvec.cli.output import print_json, results_console
from polyvec.engine.bulk import checked
from polyvec.engine.rows import Columns, Format, Row, check_readable, read_rows
from polyvec.errors import InputError
from polyvec.hub import cache_folder
from polyvec.records.table import input_name
from polyvec.spec import Role

if TYPE_CHECKING:
    from polyvec.engine.peers import Peer
    from polyvec.evaluate.classifier import Judgement

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Train a classifier on few labelled texts, judge it, apply it.",
)


@app.command("train")
def train(
    files: flags.LabelledFiles,
    output: flags.Output = None,
    folds: flags.Folds = 5,
    repeats: flags.Repeats = 3,
    shots: flags.Shots = None,
    seed: SeedOption = 0,
    force: ForceOption = False,
    as_json: JsonOption = False,
    model: ModelOption = "default",
    precision: PrecisionOption = "auto",
    device: DeviceOption = "auto",
    max_tokens: MaxTokensOption = None,
    role: RoleOption = None,
    instruction: InstructionOption = None,
    label_column: flags.LabelColumn = "label",
    text_column: TextColumnOption = "text",
    id_column: IdColumnOption = None,
    format: FormatOption = None,  # noqa: A002 (the option's name)
) -> None:
    """Train on labelled texts, and say how good it is on texts it was not trained on.

    Logistic regression on unit vectors; its regularization is picked by cross-validation inside
    each training part, so no text judges a classifier that has seen it. What is saved is trained
    on all texts.

    Examples:

    - `polyvec classify train tickets.csv --text-column body --label-column team -o team.npz`
    - `polyvec classify train tickets.jsonl --shots 8 --repeats 10`
    """
    from polyvec.evaluate.classifier import judge_classifier, save_classifier, train_classifier
    from polyvec.evaluate.labelled import labels_of, made_by

    _check_output(output, force)
    rows = rows_from(files, Columns(text_column, id_column, label_column), format)
    labels = labels_of(rows)
    peer = opened(model, precision, device, max_tokens)
    reading = reading_of(role, instruction)
    vectors = embedded(rows, peer, reading)
    judgement = judge_classifier(
        vectors, labels, folds=folds, repeats=repeats, shots=shots, seed=seed
    )
    if output is not None:
        classifier = train_classifier(vectors, labels, made_by(peer, reading), seed)
        save_classifier(output, classifier, judgement)
    if as_json:
        print_json({"texts": len(rows), "judgement": judgement, "output": output and str(output)})
    else:
        _print(judgement, len(rows), output)


@app.command("apply")
def apply(
    classifier: flags.Classifier,
    files: TextFilesArgument,
    as_json: JsonOption = False,
    model: flags.TrainedModel = None,
    precision: PrecisionOption = "auto",
    device: DeviceOption = "auto",
    max_tokens: MaxTokensOption = None,
    text_column: TextColumnOption = "text",
    id_column: IdColumnOption = None,
    format: FormatOption = None,  # noqa: A002 (the option's name)
) -> None:
    """Label texts: prints id, label and probability, a line a text.

    The model must be the one the classifier was trained on: its fingerprint is compared.

    Examples:

    - `polyvec classify apply team.npz new.csv --text-column body --id-column id`
    - `polyvec classify apply team.npz - --json < lines.txt`
    """
    from polyvec.evaluate.classifier import load_classifier
    from polyvec.evaluate.labelled import Reading, check_made_by

    trained = load_classifier(classifier)
    rows = rows_from(files, Columns(text_column, id_column), format)
    facts = trained.made_by
    peer = opened(model or facts["model"], precision, device, max_tokens)
    check_made_by(facts, peer, classifier)
    vectors = embedded(rows, peer, Reading(facts["role"], facts["instruction"]))
    shares_NC = trained.probabilities(vectors)
    answers = [
        {"id": row.id, "label": trained.labels[int(np.argmax(shares))], "probability": shares.max()}
        for row, shares in zip(rows, shares_NC, strict=True)
    ]
    if as_json:
        names = trained.labels
        every = [dict(zip(names, shares.tolist(), strict=True)) for shares in shares_NC]
        print_json([a | {"probabilities": p} for a, p in zip(answers, every, strict=True)])
        return
    for answer in answers:
        typer.echo(f"{answer['id']}\t{answer['label']}\t{answer['probability']:.3f}")


def _check_output(output: Path | None, force: bool) -> None:
    if output is not None and output.suffix != ".npz":
        raise InputError(f"{output}: a classifier's name ends in .npz.")
    if output is not None and output.exists() and not force:
        raise InputError(f"{output} exists already; use --force to replace it, or another name.")


def rows_from(files: list[Path], columns: Columns, stated: Format | None) -> list[Row]:
    """Read every row.

    Raises:
        InputError: A file cannot be read or has no row.
    """
    check_readable(files, stated)
    rows = list(checked(read_rows(files, columns, stated), "error"))
    if not rows:
        raise InputError(f"{', '.join(map(input_name, files))}: no text.")
    return rows


def opened(model: str, precision: str, device: str, max_tokens: int | None) -> "Peer":
    """Open a model of any kind."""
    from polyvec.engine.peers import open_peer

    return open_peer(model, precision=precision, device=device, max_tokens=max_tokens)


def reading_of(role: Role | None, instruction: str | None) -> Any:  # noqa: ANN401 (brings torch)
    """Return how texts are embedded."""
    from polyvec.evaluate.labelled import Reading

    return Reading(role or ("document" if instruction is None else "query"), instruction)


def embedded(rows: list[Row], peer: "Peer", reading: Any) -> Any:  # noqa: ANN401 (brings torch)
    """Embed rows, with the cache, and say how many were cut."""
    from polyvec.evaluate.labelled import vectors_of

    vectors = vectors_of(rows, peer, reading, cache_folder() / "vectors")
    if peer.cut:
        MESSAGES.print(
            f"[bold yellow]warning:[/] {peer.cut:,} texts are longer than the model reads and "
            "were cut."
        )
    return vectors


def _print(judgement: "Judgement", texts: int, output: Path | None) -> None:
    console = results_console()
    console.print(
        f"{texts:,} texts, {len(judgement.f1)} labels, {judgement.experiments} experiments with "
        f"{judgement.train_texts:,} texts to train on\n"
    )
    for name, spread in (("macro F1", judgement.macro_f1), ("accuracy", judgement.accuracy)):
        console.print(f"{name} {spread.mean:.3f} ± {spread.deviation:.3f}")
    console.print(f"always the most frequent label: accuracy {judgement.majority_accuracy:.3f}\n")
    table = Table("label", "F1", box=None, padding=(0, 2, 0, 0))
    for label, f1 in sorted(judgement.f1.items(), key=lambda item: item[1]):
        table.add_row(Text(label), f"{f1:.3f}")
    console.print(table)
    if output is not None:
        MESSAGES.print(f"[dim]Saved: {output}[/]")
