"""A file of vectors made in shards, by anything that can call :func:`embed_shard`.

A shard is some thousand rows of the input. ``OUTPUT.shards/`` has its texts
(``000007-<hash of them>.jsonl``) and then its vectors (``.npy``) and what made them
(``.npy.json``, written last). A shard is named after its content, so one that is done is never
made again, and one whose input changed has another name. Shards begin at multiples of the rows
that are computed together, so the gathered file has the bytes that one process writes.
"""

import functools
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import orjson

from polyvec.engine.bulk import (
    BulkReport,
    BulkSettings,
    chunk_rows,
    count_row,
    embed_rows,
    made_by,
    rows_hash,
    write_whole,
)
from polyvec.engine.rows import Row, RowId
from polyvec.engine.vectors import Vectors, disk_full_is_an_error, write_blocks
from polyvec.errors import ResumeError
from polyvec.hub import resolve
from polyvec.spec import Attention, Pooling

if TYPE_CHECKING:
    from polyvec.engine.embedder import Embedder
    from polyvec.engine.plan import WeightsWanted
    from polyvec.model.files import ModelFiles

DEFAULT_SHARD_ROWS = 8_192


@dataclass(frozen=True)
class ShardJob:
    """What every shard of a run has in common; plain values, to be sent to other machines."""

    model: str
    """As given to :func:`polyvec.load`; each machine finds it by itself."""
    fingerprint: str
    """The model it must be."""
    precision: str
    """``fp32``, ``bf16``, ``int8`` or ``packed``: ``auto`` might differ between machines."""
    settings: BulkSettings
    device: str = "auto"
    weights: "WeightsWanted" = "auto"
    attention: Attention | None = None
    pooling: Pooling | None = None
    max_tokens: int | None = None

    def files(self) -> "ModelFiles":
        """Open the model's files; no weight is read."""
        from polyvec.model.files import open_model  # torch takes a second to import

        place = resolve(self.model)
        given = {
            "attention": self.attention,
            "pooling": self.pooling,
            "max_tokens": self.max_tokens,
        }
        stated = {name: value for name, value in given.items() if value is not None}
        return open_model(place.path, {**place.facts, **stated})


@dataclass(frozen=True)
class Shard:
    """A part of the input, and where its vectors go."""

    source: Path
    target: Path
    rows: int
    is_done: bool


def embed_shard(source: str, target: str, job: ShardJob) -> dict[str, Any]:
    """Embed one shard; the function to call from any scheduler, on any machine with the folder.

    Idempotent: a shard that is done is left as it is, and one that is made twice, even at once,
    has the same bytes: it is written under a name of its own, then renamed. The model is loaded
    once a process.

    Args:
        source: The shard's texts, JSON lines of ``id``, ``text`` and ``where``.
        target: The ``.npy`` to write; what made it is written to ``target + ".json"``, last.
        job: What all shards have in common.

    Returns:
        ``rows``, ``tokens``, ``cut``, and ``was_done``.

    Raises:
        ResumeError: This machine has another model under the name.
        InputError: A row cannot be embedded; the message names file and line of the input.
    """
    output = Path(target)
    known = _manifest(output)
    if known is not None:
        return {**_counts(known), "was_done": True}
    own = output.with_name(f"{output.stem}.{uuid4().hex}.npy")
    try:
        report = embed_rows(_embedder(job), _rows(Path(source)), own, job.settings)
        own.replace(output)
        _manifest_path(own).replace(_manifest_path(output))
    finally:
        shutil.rmtree(own.with_name(own.name + ".partial"), ignore_errors=True)
    return {**_counts(report.facts()), "was_done": False}


@functools.lru_cache(maxsize=1)
def _embedder(job: ShardJob) -> "Embedder":
    from polyvec.engine.embedder import Embedder  # torch takes a second to import

    files = job.files()
    if files.fingerprint() != job.fingerprint:
        raise ResumeError(
            f"{job.model} is another model here than where the run was started: fingerprint "
            f"{files.fingerprint()}, wanted {job.fingerprint}. Give every machine the same files."
        )
    return Embedder(files, job.precision, job.device, weights=job.weights)


class Shards:
    """The shards of one output, in ``OUTPUT.shards/``."""

    def __init__(self, output: Path, job: ShardJob, shard_rows: int, restart: bool) -> None:
        self.output, self.job = output, job
        self.folder = output.with_name(output.name + ".shards")
        files = job.files()
        together = chunk_rows(files, _is_resident(files, job))
        self.shard_rows = max(1, -(-shard_rows // together)) * together
        """Rounded up to what is computed together."""
        self.dimension = files.spec.check_dimensions(job.settings.dimensions)
        self.max_tokens = files.spec.max_tokens
        self.made_by = made_by(files, job.precision, files.spec, job.settings)
        self.made_by["shard_rows"] = self.shard_rows
        self.redone = 0
        """Shards whose texts are others than in an earlier run."""
        self._all: list[Shard] = []
        self._facts_file = self.folder / "run.json"
        if restart and self.folder.exists():
            shutil.rmtree(self.folder)
        self._check_resumable()
        self._found: dict[int, set[str]] = {}
        """The sources of an earlier run, by number."""
        for path in self.folder.glob("*.jsonl"):
            self._found.setdefault(int(path.name.split("-")[0]), set()).add(path.name)

    def _check_resumable(self) -> None:
        if not self._facts_file.exists():
            return
        found, ours = orjson.loads(self._facts_file.read_bytes()), _plain(self.made_by)
        differing = [key for key in ours if ours[key] != found.get(key)]
        if differing:
            raise ResumeError(
                f"{self.folder} holds shards of an interrupted run with another "
                f"{' and '.join(differing)}. Run it again as it was, or use --restart to throw "
                "them away."
            )

    def plan(self, rows: Iterator[Row]) -> Iterator[Shard]:
        """Write the input into shards that are not there yet; give each as soon as it is.

        Raises:
            InputError: A row cannot be read or embedded. Earlier shards are kept.
        """
        with disk_full_is_an_error(self.folder):
            self.folder.mkdir(exist_ok=True)
            write_whole(self._facts_file, orjson.dumps(self.made_by))
            while part := list(islice(rows, self.shard_rows)):
                shard = self._write(len(self._all), part)
                self._all.append(shard)
                yield shard

    def _write(self, number: int, rows: Sequence[Row]) -> Shard:
        digest = rows_hash()
        for row in rows:
            count_row(digest, row)
        source = self.folder / f"{number:06d}-{digest.hexdigest()}.jsonl"
        target = source.with_suffix(".npy")
        earlier = self._found.get(number, {source.name})
        self.redone += source.name not in earlier
        if not source.exists():
            facts = ({"id": row.id, "text": row.text, "where": row.where} for row in rows)
            lines = (orjson.dumps(f, option=orjson.OPT_APPEND_NEWLINE) for f in facts)
            write_whole(source, b"".join(lines))
        return Shard(source, target, len(rows), _manifest(target) is not None)

    def gather(self, resumed_rows: int, seconds: float) -> tuple[BulkReport, bool]:
        """Put all shards' vectors into the output, in order, and remove the shards.

        Returns:
            The report, and whether one kind of processor and one torch made all of it: else a
            shard's last bits may be others than one machine's.
        """
        found = [_manifest(shard.target) or {} for shard in self._all]
        tokens, cut = (sum(facts[key] for facts in found) for key in ("tokens", "cut"))
        rows = sum(shard.rows for shard in self._all)
        with disk_full_is_an_error(self.output):
            write_blocks(self.output, self._blocks(), rows, self.dimension, self._ids())
        made_on = sorted({orjson.dumps(facts["made_on"]).decode() for facts in found})
        facts = {"rows": rows, "dimension": self.dimension, "tokens": tokens, "cut": cut}
        facts |= {"shards": len(found), "made_on": [orjson.loads(m) for m in made_on]}
        text = orjson.dumps(facts | self.made_by, option=orjson.OPT_INDENT_2)
        write_whole(_manifest_path(self.output), text)
        shutil.rmtree(self.folder)
        rate = 0.0 if seconds == 0 else (tokens - self.resumed_tokens(found)) / seconds
        report = BulkReport(rows, resumed_rows, tokens, cut, self.dimension, seconds, rate)
        return report, len(made_on) <= 1

    def resumed_tokens(self, found: Sequence[dict[str, Any]]) -> int:
        """Return the tokens of shards that were done before this run."""
        pairs = zip(self._all, found, strict=True)
        return sum(facts["tokens"] for shard, facts in pairs if shard.is_done)

    def _blocks(self) -> Iterator[Vectors]:
        return (np.load(shard.target, mmap_mode="r") for shard in self._all)

    def _ids(self) -> Iterator[RowId]:
        return chain.from_iterable((r.id for r in _rows(shard.source)) for shard in self._all)


def _rows(source: Path) -> Iterator[Row]:
    with source.open("rb") as file:
        for line in file:
            yield Row(**orjson.loads(line))


def _manifest(target: Path) -> dict[str, Any] | None:
    path = _manifest_path(target)
    facts: dict[str, Any] | None = orjson.loads(path.read_bytes()) if path.exists() else None
    return facts


def _manifest_path(target: Path) -> Path:
    return target.with_name(target.name + ".json")


def _counts(facts: dict[str, Any]) -> dict[str, Any]:
    return {key: facts[key] for key in ("rows", "tokens", "cut")}


def _plain(facts: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = orjson.loads(orjson.dumps(facts))
    return plain


def _is_resident(files: "ModelFiles", job: ShardJob) -> bool:
    from polyvec.engine.holding import choices

    return choices(job.weights, job.precision, files)[0].place == "resident"


def job_of(settings: BulkSettings, **given: Any) -> ShardJob:  # noqa: ANN401 (fields of a job)
    """Return the job of a model by name, its precision picked and its fingerprint taken here.

    Raises:
        TypeError: An argument that :class:`ShardJob` does not have.
    """
    from polyvec.engine.cpu import pick_device
    from polyvec.engine.quality import pick_for

    job = ShardJob(fingerprint="", settings=settings, **given)
    files = job.files()
    precision = pick_for(files, job.precision, pick_device(job.device))
    return replace(job, precision=precision, fingerprint=files.fingerprint())
