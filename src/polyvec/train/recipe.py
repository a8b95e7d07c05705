"""A recipe: everything a training run is made of, as a TOML file says it."""

import difflib
import tomllib
import types
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from polyvec.errors import InputError
from polyvec.records.columns import Columns
from polyvec.records.mixture import Share
from polyvec.train.lora import LoraSettings
from polyvec.train.losses import LossSettings

T = TypeVar("T")
_UNIONS = (types.UnionType, Union)


@dataclass(frozen=True)
class ModelSettings:
    """What is trained."""

    base: str = "default"
    """Alias, folder, .gguf file, hf: or pypi: name."""
    num_layers: int | None = None
    """Keep only so many first layers."""
    train: Literal["full", "lora"] = "full"
    freeze: tuple[str, ...] = ()
    """Parameters that stay as they are, by what their names begin with (``embed_tokens``)."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of products; weights are fp32. ``auto`` is bf16 where the machine has it in hardware."""
    gradient_checkpointing: bool = False
    """Keep only what enters a layer and compute the rest again: less memory, a third more time."""
    max_query_tokens: int = 512
    max_document_tokens: int = 512
    attention: str | None = None
    """Where the model's files do not say, or say otherwise: ``bidirectional`` or ``causal``."""
    pooling: str | None = None
    query_prefix: str | None = None
    document_prefix: str | None = None
    default_instruction: str | None = None

    def __post_init__(self) -> None:
        for name in ("max_query_tokens", "max_document_tokens"):
            _at_least(f"model.{name}", getattr(self, name), 1)

    def facts(self) -> dict[str, Any]:
        """Return the facts of the spec that the recipe states."""
        names = (
            "attention",
            "pooling",
            "query_prefix",
            "document_prefix",
            "default_instruction",
        )
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclass(frozen=True)
class DataSettings:
    """A file of records and its share of the mixture."""

    path: str
    """JSONL, CSV, TSV or Parquet; relative paths begin at the recipe's folder."""
    weight: float | None = None
    """Its part of the mixture, relative to other weights; without one, each row once an epoch."""
    count: int | None = None
    """How many of its rows an epoch has, instead of a weight."""
    columns: Columns = field(default_factory=Columns)
    """Column names, where they are none of the usual ones, and what rows do not say."""

    def __post_init__(self) -> None:
        Share(self.weight, self.count)  # which refuses what is none, before any file is read

    @property
    def share(self) -> Share:
        """Return the share."""
        return Share(self.weight, self.count)


@dataclass(frozen=True)
class BatchSettings:
    """How records become batches."""

    size: int = 64
    """Queries of an optimizer step, over all processes and accumulated batches."""
    accumulate: int = 1
    """Cut a step's queries into so many batches that do not see each other."""
    num_negatives: int = 1
    """Negatives of a query; a record with fewer has those, one with more takes them in turn."""
    same_source: bool = False
    """Whether a batch has records of one source only."""
    max_tokens: int = 16_384
    """Tokens of one pass through the network: what bounds memory. A larger batch goes in several
    (gradient cache, where queries see each other's texts), which changes nothing but time."""

    def __post_init__(self) -> None:
        for name in ("size", "accumulate", "max_tokens"):
            _at_least(f"batch.{name}", getattr(self, name), 1)
        _at_least("batch.num_negatives", self.num_negatives, 0)
        if self.size % self.accumulate:
            raise InputError(
                f"batch.size is {self.size}, which batch.accumulate = {self.accumulate} does not "
                "divide. Give a multiple."
            )


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW and its schedule. Only matrices decay; norms and biases do not."""

    lr: float = 1e-4
    """The highest, after the warm-up."""
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    warmup_steps: int = 100
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the rate falls to ``min_lr`` at the last step."""
    min_lr: float = 0.0
    max_gradient_norm: float = 1.0
    """Longer gradients are scaled to this length; 0 leaves them."""
    steps: int | None = None
    """Optimizer steps; otherwise ``epochs``."""
    epochs: float = 1.0

    def __post_init__(self) -> None:
        for name in ("lr", "eps", "epochs"):
            _above(f"optimizer.{name}", getattr(self, name))
        for name in ("weight_decay", "beta1", "beta2", "warmup_steps", "min_lr"):
            _at_least(f"optimizer.{name}", getattr(self, name), 0)
        _at_least("optimizer.max_gradient_norm", self.max_gradient_norm, 0)
        for name in ("beta1", "beta2"):
            if not getattr(self, name) < 1:
                raise InputError(f"optimizer.{name} is {getattr(self, name)}; it must be below 1.")
        if self.min_lr > self.lr:
            raise InputError(
                f"optimizer.min_lr is {self.min_lr}, above optimizer.lr, {self.lr}, from which "
                "the rate falls to it."
            )
        if self.steps is not None:
            _at_least("optimizer.steps", self.steps, 1)


@dataclass(frozen=True)
class DistillSettings:
    """A teacher whose vectors, or similarities, the model learns."""

    teacher: str
    """A model's name, ``st:`` and a sentence-transformers model, a server's URL, or ``vectors:``
    and a folder of vectors made before (:class:`polyvec.train.teacher.TeacherVectors`)."""
    vectors_weight: float = 1.0
    """Of the mean ``1 - cosine`` of the model's vectors, mapped linearly, and the teacher's."""
    scores_weight: float = 0.0
    """Of the divergence (KL) of the model's shares of candidates from the teacher's."""
    temperature: float = 0.05
    """What the teacher's cosines are divided by for ``scores_weight``."""
    of: Literal["own", "query", "positive"] = "own"
    """Whose teacher vector a text learns: its own; or the query's for the positive too, or the
    positive's for the query too, where the teacher knows the language of one side only."""
    sources: tuple[str, ...] = ()
    """Only records of these sources; none means all."""
    cache: str | None = None
    """The folder its vectors are kept in, to be used by other runs too; else in the output."""

    def __post_init__(self) -> None:
        _at_least("distill.vectors_weight", self.vectors_weight, 0)
        _at_least("distill.scores_weight", self.scores_weight, 0)
        _above("distill.temperature", self.temperature)
        if not self.vectors_weight and not self.scores_weight:
            raise InputError("distill: both weights are 0; leave the section out.")


@dataclass(frozen=True)
class EvaluationSettings:
    """Retrieval on held-out records, now and then."""

    paths: tuple[str, ...] = ()
    """Files of records: each query must find its positives among all documents of its source."""
    columns: Columns = field(default_factory=Columns)
    """Theirs, as in ``[[data]]``."""
    every_steps: int = 0
    """0 means before the first and after the last step only."""
    metric: str = "ndcg@10"
    """What the best checkpoint is chosen by: the mean over sources."""
    max_queries: int = 500
    """Of a source, the first."""
    patience: int = 0
    """Stop after so many evaluations without a new best; 0 goes on."""

    def __post_init__(self) -> None:
        _at_least("evaluation.every_steps", self.every_steps, 0)
        _at_least("evaluation.max_queries", self.max_queries, 1)
        _at_least("evaluation.patience", self.patience, 0)
        if self.patience and not (self.paths and self.every_steps):
            raise InputError(
                f"evaluation.patience is {self.patience} and nothing is evaluated on the way: set "
                "evaluation.paths and evaluation.every_steps."
            )


@dataclass(frozen=True)
class CheckpointSettings:
    """What is kept of a run."""

    every_steps: int = 500
    keep: int = 2
    """How many of the newest; the best one by evaluation is kept beside them."""
    model: Literal["last", "best"] = "last"
    """Which weights become the model folder at the end: the last ones or the best by evaluation."""

    def __post_init__(self) -> None:
        _at_least("checkpoint.every_steps", self.every_steps, 1)
        _at_least("checkpoint.keep", self.keep, 1)


@dataclass(frozen=True)
class LogSettings:
    """What is shown of a run."""

    every_steps: int = 10
    trackers: tuple[str, ...] = ()
    """``tensorboard``, ``wandb``: through their own libraries."""
    plot: bool = True
    """Draw ``curves.png``, where matplotlib is installed (``polyvec[train]``)."""

    def __post_init__(self) -> None:
        _at_least("log.every_steps", self.every_steps, 1)
        unknown = set(self.trackers) - {"tensorboard", "wandb"}
        if unknown:
            raise InputError(
                f"log.trackers has {', '.join(sorted(unknown))}; allowed: tensorboard, wandb."
            )


@dataclass(frozen=True)
class Recipe:
    """A training run."""

    output: str
    """The folder everything is written to; a relative path begins where the command runs."""
    data: tuple[DataSettings, ...]
    seed: int = 0
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"
    """Under torchrun: whole copies (ddp) or weights shared out (fsdp); auto is ddp on CPUs and for
    models under a billion weights, else fsdp."""
    model: ModelSettings = field(default_factory=ModelSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    batch: BatchSettings = field(default_factory=BatchSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    distill: tuple[DistillSettings, ...] = ()
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    log: LogSettings = field(default_factory=LogSettings)

    def __post_init__(self) -> None:
        if not self.data:
            raise InputError("The recipe has no data: add a [[data]] section with a path.")
        if not self.loss.weight and not self.distill:
            raise InputError("loss.weight is 0 and there is no [[distill]]: nothing is learned.")
        if self.checkpoint.model == "best" and not self.evaluation.paths:
            raise InputError("checkpoint.model is 'best' and evaluation.paths names no file.")

    def facts(self) -> dict[str, Any]:
        """Return the recipe as plain values."""
        return asdict(self)


def read_recipe(path: Path, changes: Mapping[str, str] | None = None) -> Recipe:
    """Read a recipe; ``changes`` are ``section.key`` -> TOML value, and win.

    Paths of data and evaluation that are relative begin at the recipe's folder.

    Raises:
        InputError: The file cannot be read, or has an unknown key or a value of another kind.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"The recipe {path} cannot be read: {error}.") from error
    for name, text in (changes or {}).items():
        _change(values, name, text)
    for section in values.get("data") or []:
        if isinstance(section, dict) and isinstance(section.get("path"), str):
            section["path"] = str(path.parent / section["path"])
    evaluation = values.get("evaluation")
    if isinstance(evaluation, dict) and isinstance(evaluation.get("paths"), list):
        evaluation["paths"] = [str(path.parent / p) for p in evaluation["paths"]]
    return _build(Recipe, values, str(path), "")


def recipe_of(facts: Mapping[str, Any], file: str) -> Recipe:
    """Return the recipe whose :meth:`Recipe.facts` these are; keys it lacks have their defaults.

    Raises:
        InputError: It has a key that is unknown; the message names it and ``file``.
    """
    return _build(Recipe, facts, file, "")


def _change(values: dict[str, Any], name: str, text: str) -> None:
    """Set ``section.key``; a text that is no TOML value is a string."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    section, place = values, name.split(".")
    for part in place[:-1]:
        section = section.setdefault(part, {})
        if not isinstance(section, dict):
            raise InputError(f"--set {name}: {part} is no section; name section.key.")
    section[place[-1]] = value


def _build(kind: type[T], values: Mapping[str, Any], file: str, section: str) -> T:
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    types_of = get_type_hints(kind)
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
            raise InputError(
                f"{file}: {section}{key} is unknown; did you mean {section}{near[0]}? Known here: "
                f"{', '.join(known)}."
            )
    missing = [
        name
        for name, f in known.items()
        if name not in values and f.default is MISSING and f.default_factory is MISSING
    ]
    if missing:
        raise InputError(f"{file} lacks {section}{missing[0]}.")
    built = {
        key: _value(types_of[key], value, file, f"{section}{key}") for key, value in values.items()
    }
    try:
        return kind(**built)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def _value(kind: Any, value: Any, file: str, name: str) -> Any:  # noqa: ANN401 (any TOML value)
    """Check a TOML value against a field's type, and build what is nested."""
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind) and isinstance(kind, type) and isinstance(value, dict):
        return _build(kind, value, file, f"{name}.")
    if origin is tuple and isinstance(value, list):
        return tuple(_value(inner[0], item, file, name) for item in value)
    if origin is Literal and value in inner:
        return value
    if origin in _UNIONS and any(_fits(one, value) for one in inner):
        return float(value) if float in inner and type(value) is int and int not in inner else value
    if _fits(kind, value):
        return float(value) if kind is float else value
    raise InputError(f"{file}: {name} is {value!r}; it must be {_said(kind)}.")


def _fits(kind: Any, value: Any) -> bool:  # noqa: ANN401
    if kind is float:
        return type(value) in (int, float)
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    return isinstance(kind, type) and type(value) is kind


def _said(kind: Any) -> str:  # noqa: ANN401
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(repr, get_args(kind)))}"
    if get_origin(kind) is tuple:
        return f"a list, each {_said(get_args(kind)[0])}"
    if get_origin(kind) in _UNIONS:
        return " or ".join(_said(one) for one in get_args(kind) if one is not type(None))
    if is_dataclass(kind):
        return "a section"
    words = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}
    return words.get(kind, str(kind))


def _at_least(name: str, value: float, least: float) -> None:
    if value < least:
        raise InputError(f"{name} is {value}; it must be at least {least}.")


def _above(name: str, value: float) -> None:
    if not value > 0:
        raise InputError(f"{name} is {value}; it must be above 0.")
