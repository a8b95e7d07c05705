"""Results of one model on one collection: what is kept in a file, written whole or not at all."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import orjson

from polyvec.disk import full_disk_is_an_error
from polyvec.errors import InputError, ResumeError

FORMAT = "polyvec retrieval result 1"

Scores = dict[str, dict[str, float]]
"""Measure -> mean, low and high end of its interval."""


@dataclass(frozen=True)
class QueryResult:
    """One query's scores, and the first documents it found."""

    scores: list[float]
    """In the order of the result's ``metrics``."""
    retrieved: list[tuple[str, float]]
    """(document id, cosine), best first."""
    language: str | None = None


@dataclass(frozen=True)
class ModelResult:
    """How well one model does on one collection."""

    model: str
    fingerprint: str
    collection: str
    """Fingerprint of the collection."""
    settings: dict[str, Any]
    """What else decides the scores."""
    about: dict[str, Any]
    """What the model is and costs: dimension, precision, parameters, bytes, texts a second."""
    counts: dict[str, int]
    metrics: list[str]
    scores: Scores
    queries: dict[str, QueryResult]
    languages: dict[str, Scores] = field(default_factory=dict)
    dimensions: dict[str, dict[str, float]] = field(default_factory=dict)
    """Measures of vectors cut to fewer numbers, by their number."""
    worst: list[dict[str, Any]] = field(default_factory=list)
    """The queries that fail most, with their texts."""

    def values(self, metric: str) -> list[float]:
        """Return a measure of every query."""
        place = self.metrics.index(metric)
        return [query.scores[place] for query in self.queries.values()]

    @property
    def texts_per_s(self) -> float | None:
        """Return the speed of embedding, where it was measured."""
        speed = self.about.get("texts_per_s")
        return None if speed is None else float(speed)


def result_file(folder: Path, model: str) -> Path:
    """Return where a model's result is kept: a readable name, and a hash against clashes."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", model).strip("-.")[-60:]
    return folder / f"{readable}-{hashlib.sha256(model.encode()).hexdigest()[:8]}.result.json"


def write_result(path: Path, result: ModelResult) -> None:
    """Write a result under a temporary name, then rename.

    Raises:
        DiskFullError: There is no room; nothing half-written is left.
    """
    write_json(path, {"format": FORMAT, **asdict(result)})


def write_json(path: Path, value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write JSON under a temporary name, then rename."""
    raw = orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY)
    write_file(path, raw)


def write_file(path: Path, raw: bytes) -> None:
    """Write bytes under a temporary name, then rename.

    Raises:
        DiskFullError: There is no room; the temporary file is removed.
    """
    partial = path.with_name(f".{path.name}.writing")
    try:
        with full_disk_is_an_error(path, "Make room and run the same command again."):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(raw)
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_result(path: Path) -> ModelResult:
    """Read a result that :func:`write_result` wrote.

    Raises:
        InputError: The file cannot be read or is of another format.
    """
    try:
        facts = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise InputError(f"The result {path} cannot be read: {error}.") from error
    if not isinstance(facts, dict) or facts.pop("format", None) != FORMAT:
        raise InputError(f"{path} is not a {FORMAT!r}; 'polyvec evaluate' writes them.")
    return _result(facts, path)


def _result(facts: dict[str, Any], path: Path) -> ModelResult:
    names = {f.name for f in fields(ModelResult)}
    if set(facts) != names:
        wrong = ", ".join(sorted(set(facts) ^ names))
        raise InputError(f"{path} is damaged: it lacks or has too many of these fields: {wrong}.")
    queries = {
        query: QueryResult(
            value["scores"], [(d, s) for d, s in value["retrieved"]], value["language"]
        )
        for query, value in facts.pop("queries").items()
    }
    return ModelResult(**facts, queries=queries)


def earlier_result(
    path: Path, fingerprint: str, collection: str, settings: Mapping[str, Any]
) -> ModelResult | None:
    """Return the result of an earlier run of the same model, collection and settings, if any.

    Raises:
        ResumeError: There is one of another model, collection or settings.
    """
    if not path.exists():
        return None
    result = read_result(path)
    asked = {"fingerprint": fingerprint, "collection": collection, "settings": dict(settings)}
    there = {name: getattr(result, name) for name in asked}
    differing = [name for name in asked if asked[name] != there[name]]
    if not differing:
        return result
    words = "; ".join(
        f"{part} {was} there, {now} now"
        for name in differing
        for part, was, now in _parts(name, there[name], asked[name])
    )
    raise ResumeError(
        f"{path} has other {' and '.join(differing)} than this run ({words}). Replace it with "
        "--restart, or name another --output."
    )


def _parts(name: str, there: Any, asked: Any) -> list[tuple[str, Any, Any]]:  # noqa: ANN401
    """Return what differs: of settings only those that do."""
    if not isinstance(there, dict):
        return [(name, there, asked)]
    keys = [key for key in {**there, **asked} if there.get(key) != asked.get(key)]
    return [(key, there.get(key), asked.get(key)) for key in keys]
