"""A recipe made ready: data, model, teachers, optimizer, and where an earlier run stopped."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import orjson
import torch
from rich.console import Console
from torch import Tensor, nn

from polyvec.errors import InputError, OutputError, ResumeError
from polyvec.hub import resolve
from polyvec.model.files import ModelFiles, open_model
from polyvec.records.mixture import Mixture, Order
from polyvec.records.record import Record
from polyvec.spec import Role, Spec
from polyvec.train.batches import Item, Reader, Text
from polyvec.train.checkpoint import Checkpoint, checkpoints, read_checkpoint, restore_optimizer
from polyvec.train.data import (
    Records,
    check_against_loss,
    copy_records,
    every_text,
    open_records,
    source_names,
)
from polyvec.train.journal import METRICS_FILE
from polyvec.train.lora import add_adapters
from polyvec.train.maps import fit_maps
from polyvec.train.network import Network, build_network, cut_layers
from polyvec.train.optimizer import freeze, make_optimizer, trained
from polyvec.train.ranks import Parallel, Ranks, choose_parallel, spread
from polyvec.train.recipe import DistillSettings, ModelSettings, Recipe, recipe_of
from polyvec.train.step import Stepper
from polyvec.train.teacher import Distillation, TeacherVectors, Vectors

RECIPE_FILE = "recipe.json"
_VECTORS = "vectors:"
_MAY_CHANGE = ("output", "log", "checkpoint")


class Teacher(Protocol):
    """A model that embeds; those of ``polyvec.engine.peers`` are."""

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        ...

    @property
    def fingerprint(self) -> str:
        """What another model does not have."""
        ...

    def encode_query(self, texts: Sequence[str], instruction: str | None = None) -> Vectors:
        """Return vectors of queries."""
        ...

    def encode_document(self, texts: Sequence[str]) -> Vectors:
        """Return vectors of documents."""
        ...


OpenTeacher = Callable[[str], Teacher]


@dataclass(frozen=True)
class Ready:
    """Everything a run's loop needs."""

    recipe: Recipe
    folder: Path
    ranks: Ranks
    files: ModelFiles
    network: Network
    parallel: Parallel
    stepper: Stepper
    parameters: dict[str, nn.Parameter]
    """What is trained, teachers' maps included."""
    optimizer: torch.optim.AdamW
    mixture: Mixture[Record]
    steps: int
    checkpoint: Checkpoint | None
    records: dict[str, Records]

    def items(self, step: int) -> list[list[Item]]:
        """Return a step's batches."""
        count = self.recipe.batch.accumulate
        return [self._batch(step * count + n) for n in range(count)]

    def ending_at(self, steps: int) -> "Ready":
        """Return the run with fewer steps: it stops early."""
        return replace(self, steps=steps)

    def _batch(self, number: int) -> list[Item]:
        sources = self.mixture.sources
        return [(sources[d.source][d.row], d) for d in self.mixture.order.batch(number)]


def prepare(
    recipe: Recipe, ranks: Ranks, open_teacher: OpenTeacher, console: Console, fresh: bool
) -> Ready:
    """Read, check and build everything; nothing is trained yet.

    Raises:
        InputError: The recipe, or a row of the data, cannot be used.
        ResumeError: The output holds a run of another recipe.
    """
    folder = Path(recipe.output)
    if ranks.first:
        _open_output(folder, recipe, fresh)
    ranks.barrier()
    records = _records(recipe, folder, ranks, console)
    order = _order(recipe, records)
    per_epoch = order.steps_per_epoch / recipe.batch.accumulate
    steps = recipe.optimizer.steps or max(1, int(per_epoch * recipe.optimizer.epochs))
    found = checkpoints(folder / "checkpoints")
    checkpoint = read_checkpoint(found[-1]) if found else None
    files = cut_layers(_open_base(recipe.model), recipe.model.num_layers)
    _check_cuts(recipe.loss.matryoshka_dimensions, files.architecture.hidden_size)
    network, module, parallel = _network(recipe, files, ranks, checkpoint)
    distillations = [
        _distillation(settings, number, recipe, records, files, ranks, open_teacher, console)
        for number, settings in enumerate(recipe.distill)
    ]
    parameters = trained(network)
    maps = {f"distill.{n}.map": d.map for n, d in enumerate(distillations) if d.map is not None}
    optimizer = make_optimizer(parameters, recipe.optimizer, maps)
    parameters = parameters | maps
    if checkpoint is not None:
        _restore_maps(checkpoint, maps)
        restore_optimizer(checkpoint, parameters, optimizer)
    stepper = Stepper(
        module=module,
        network=network,
        reader=Reader(files.tokenizer, _specs(files.spec, recipe.model)),
        loss=recipe.loss,
        distillations=distillations,
        num_negatives=recipe.batch.num_negatives,
        max_tokens=recipe.batch.max_tokens,
        ranks=ranks,
        seed=recipe.seed,
    )
    if checkpoint is None:
        fit_maps(stepper, records)
    return Ready(
        recipe, folder, ranks, files, network, parallel, stepper, parameters, optimizer,
        Mixture(records, order), steps, checkpoint, records,
    )  # fmt: skip


def _open_output(folder: Path, recipe: Recipe, fresh: bool) -> None:
    """Make the output's folder, or check that it is this recipe's."""
    path = folder / RECIPE_FILE
    if fresh and path.is_file():
        shutil.rmtree(folder)
    if path.is_file():
        before = orjson.loads(path.read_bytes())
        if checkpoints(folder / "checkpoints"):
            _check_same(before, recipe, folder)
        else:
            _forget(folder, before, recipe)
    elif folder.is_dir() and any(folder.iterdir()):
        raise OutputError(f"{folder} holds something that is no training run; give another output.")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(recipe.facts(), option=orjson.OPT_INDENT_2))


def _forget(folder: Path, before: dict[str, Any], recipe: Recipe) -> None:
    """Take away what a run left that has no checkpoint: it begins anew, from files as they are."""
    shutil.rmtree(folder / "data", ignore_errors=True)
    (folder / METRICS_FILE).unlink(missing_ok=True)
    if before.get("distill") != _plain(recipe)["distill"]:
        for teacher in folder.glob("teacher-*"):
            shutil.rmtree(teacher)


def _check_same(before: dict[str, Any], recipe: Recipe, folder: Path) -> None:
    # An earlier version's recipe lacks the keys that are new since: they had their defaults.
    before = _plain(recipe_of(before, str(folder / RECIPE_FILE)))
    now = _plain(recipe)
    changed = [
        f"{name} was {was!r:.80} and is {now_is!r:.80}"
        for section in now
        if section not in _MAY_CHANGE
        for name, was, now_is in _differences(section, before.get(section), now[section])
    ]
    if changed:
        raise ResumeError(
            f"{folder} holds a run of another recipe: {'; '.join(changed)}. Give another output, "
            "or --fresh to begin anew (which removes that run)."
        )


def _plain(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as JSON gives it back."""
    facts: dict[str, Any] = orjson.loads(orjson.dumps(recipe.facts()))
    return facts


def _differences(name: str, was: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:  # noqa: ANN401
    """Yield what differs: its name, what it was, what it is."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in now:
            yield from _differences(f"{name}.{key}", was.get(key), now[key])
    elif was != now:
        yield name, was, now


def _records(recipe: Recipe, folder: Path, ranks: Ranks, console: Console) -> dict[str, Records]:
    place = folder / "data"
    if ranks.first and not (place / "data.json").is_file():
        console.print(f"Reading and checking {len(recipe.data)} file(s) of records ...")
        copy_records(recipe.data, place)
    ranks.barrier()
    records, facts = open_records(place)
    check_against_loss(facts, recipe.loss, recipe.batch.num_negatives)
    return records


def _order(recipe: Recipe, records: dict[str, Records]) -> Order:
    batch = recipe.batch
    return Order(
        {name: len(part) for name, part in records.items()},
        batch.size // batch.accumulate,
        recipe.seed,
        {name: section.share for name, section in source_names(recipe.data).items()},
        batch.same_source,
    )


def _open_base(settings: ModelSettings) -> ModelFiles:
    place = resolve(settings.base)
    return open_model(place.path, {**place.facts, **settings.facts()})


def _check_cuts(sizes: Sequence[int], dimension: int) -> None:
    """Refuse shorter vectors that are none."""
    wrong = [size for size in sizes if not 0 < size <= dimension]
    if wrong:
        raise InputError(
            f"loss.matryoshka_dimensions has {wrong[0]}; this model's vectors have {dimension} "
            f"numbers, so 1 to {dimension} can be kept of them."
        )


def _specs(spec: Spec, settings: ModelSettings) -> dict[Role, Spec]:
    lengths: dict[Role, int] = {
        "query": settings.max_query_tokens, "document": settings.max_document_tokens,
    }  # fmt: skip
    return {role: replace(spec, max_tokens=min(n, spec.max_tokens)) for role, n in lengths.items()}


def _network(
    recipe: Recipe, files: ModelFiles, ranks: Ranks, checkpoint: Checkpoint | None
) -> tuple[Network, nn.Module, Parallel]:
    settings = recipe.model
    dtype = _dtype(settings.precision, ranks.device)
    network = build_network(files, dtype, settings.gradient_checkpointing)
    values: dict[str, Tensor] = {}
    if settings.train == "lora":
        values = add_adapters(network, recipe.lora, recipe.seed)
    freeze(network, settings.freeze)
    if checkpoint is not None:
        values |= checkpoint.weights
    parallel = choose_parallel(recipe.parallel, ranks, files.architecture.num_parameters)
    return network, spread(network, parallel, ranks, values), parallel


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    if precision == "auto":
        flags = torch.cpu.get_capabilities()
        in_hardware = any(flags.get(f) for f in ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16"))
        precision = "bf16" if device.type == "cuda" or in_hardware else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def _distillation(
    settings: DistillSettings,
    number: int,
    recipe: Recipe,
    records: dict[str, Records],
    files: ModelFiles,
    ranks: Ranks,
    open_teacher: OpenTeacher,
    console: Console,
) -> Distillation:
    dimension, seed = files.architecture.hidden_size, recipe.seed + number
    if settings.teacher.startswith(_VECTORS):
        folder = Path(settings.teacher.removeprefix(_VECTORS))
        return Distillation(settings, TeacherVectors.open(folder), dimension, seed)
    folder = Path(settings.cache or Path(recipe.output) / f"teacher-{number}")
    if ranks.first:
        _ask_teacher(settings, folder, records, open_teacher, console)
    ranks.barrier()
    return Distillation(settings, TeacherVectors.open(folder), dimension, seed)


def _ask_teacher(
    settings: DistillSettings,
    folder: Path,
    records: dict[str, Records],
    open_teacher: OpenTeacher,
    console: Console,
) -> None:
    """Have the teacher embed every text of its sources that is not in its folder yet."""
    teacher = open_teacher(settings.teacher)
    kept = TeacherVectors.make(folder, teacher.fingerprint, teacher.dimension)

    def encode(texts: Sequence[Text]) -> Vectors:
        plain = [text.text for text in texts]
        found = (
            teacher.encode_document(plain)
            if texts[0].role == "document"
            else teacher.encode_query(plain)
        )
        return np.asarray(found, np.float32)

    def done(count: int) -> None:
        if count:
            console.print(f"{settings.teacher}: {len(kept):,} texts embedded", end="\r")

    kept.add(_texts(settings, records), encode, done)
    console.print(f"{settings.teacher}: {len(kept):,} texts embedded in {folder}")


def _texts(settings: DistillSettings, records: dict[str, Records]) -> Iterable[Text]:
    for record in chain.from_iterable(records.values()):
        if not settings.sources or record.source in settings.sources:
            yield from every_text(record)


def _restore_maps(checkpoint: Checkpoint, maps: dict[str, nn.Parameter]) -> None:
    for name, parameter in maps.items():
        if name not in checkpoint.weights:
            raise ResumeError(f"The checkpoint has no {name}.")
        with torch.no_grad():
            parameter.copy_(checkpoint.weights[name])
