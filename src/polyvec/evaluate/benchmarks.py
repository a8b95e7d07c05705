"""A benchmark of mteb's or the offline one, on any model: planned, resumed, task by task.

mteb is imported here only when a benchmark is opened: it takes seconds and is an extra.
"""

import difflib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partialmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyvec.engine.peers import Peer
from polyvec.errors import InputError, MissingExtraError, OutputError
from polyvec.evaluate.benchmark_plan import Plan, measure_speed, plan
from polyvec.evaluate.cache import VectorCache
from polyvec.evaluate.mmteb_instructions import instructions

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

    from polyvec.evaluate.mmteb_encoder import BenchmarkEncoder

OFFLINE = "offline"


@dataclass(frozen=True)
class Benchmark:
    """Tasks under one name."""

    name: str
    tasks: "list[AbsTask]"
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Why tasks are not there, by their names."""


@dataclass(frozen=True)
class TaskOutcome:
    """What became of a task."""

    task: str
    kind: str
    score: float | None
    """Its main score, from 0 to 1; None where it failed."""
    subsets: Mapping[str, float]
    """Main score by language or other subset."""
    error: str | None = None
    was_done: bool = False
    """Whether the result was there already."""


@dataclass(frozen=True)
class Outcome:
    """A model's results on a benchmark."""

    benchmark: str
    model: str
    fingerprint: str
    folder: Path
    """Where the results lie, in mteb's format."""
    tasks: list[TaskOutcome]
    skipped: Mapping[str, str]


def open_benchmark(name: str, only: Sequence[str] | None = None) -> Benchmark:
    """Open a benchmark by name; of the offline one, fetch the texts.

    Args:
        name: ``offline``, or a name of mteb's such as ``MTEB(Multilingual, v2)``.
        only: Take these tasks of it.

    Raises:
        InputError: There is no such benchmark or task; the message lists the nearest.
        MissingExtraError: mteb is not installed.
        DiskFullError: There is no room for the offline texts.
    """
    mteb = _mteb()
    if name == OFFLINE:
        from polyvec.evaluate.offline_tasks import offline_tasks

        tasks, skipped = offline_tasks()
        return _only(Benchmark(name, tasks, skipped), only)
    known = [benchmark.name for benchmark in mteb.get_benchmarks()]
    if name not in known:
        near = difflib.get_close_matches(name, [OFFLINE, *known], n=3, cutoff=0.3)
        raise InputError(
            f"There is no benchmark {name!r}. Nearest: {', '.join(near) or OFFLINE}. Known are "
            f"{OFFLINE!r} and mteb's {len(known)} (mteb.get_benchmarks())."
        )
    return _only(Benchmark(name, list(mteb.get_benchmark(name).tasks)), only)


def _mteb() -> Any:  # noqa: ANN401 (a module)
    try:
        import mteb
    except ImportError as error:
        raise MissingExtraError(
            'Benchmarks need mteb, which is an extra: pip install "polyvec[evaluate]".'
        ) from error
    return mteb


@contextmanager
def _no_bars() -> Iterator[None]:
    """Keep mteb's and datasets' progress bars quiet: ours counts all of a task's texts."""
    from tqdm import tqdm

    first = tqdm.__init__
    tqdm.__init__ = partialmethod(first, disable=True)
    try:
        yield
    finally:
        tqdm.__init__ = first


def _only(benchmark: Benchmark, names: Sequence[str] | None) -> Benchmark:
    if not names:
        return benchmark
    known = [task.metadata.name for task in benchmark.tasks] + list(benchmark.skipped)
    if unknown := [name for name in names if name not in known]:
        near = difflib.get_close_matches(unknown[0], known, n=3, cutoff=0.3)
        raise InputError(
            f"{benchmark.name} has no task {unknown[0]!r}. Nearest: {', '.join(near) or 'none'}."
        )
    tasks = [task for task in benchmark.tasks if task.metadata.name in names]
    skipped = {name: why for name, why in benchmark.skipped.items() if name in names}
    return Benchmark(benchmark.name, tasks, skipped)


def plan_benchmark(benchmark: Benchmark, peer: Peer, output: Path) -> Plan:
    """Say what a run will cost; measures the model's speed here for a second or more."""
    from polyvec.evaluate.mmteb_encoder import model_meta

    for task in benchmark.tasks:
        if not task.metadata.descriptive_stats and benchmark.name == OFFLINE:
            task.load_data()
    asked = {t.metadata.name: instructions(t.metadata, t.abstask_prompt) for t in benchmark.tasks}
    results = _results(output)
    meta = model_meta(peer)
    done = [t.metadata.name for t in benchmark.tasks if _is_done(results, t, meta)]
    return plan(benchmark.tasks, asked, done, peer, measure_speed(peer))


def run_benchmark(
    benchmark: Benchmark,
    peer: Peer,
    output: Path,
    cache: Path,
    *,
    order: Sequence[str] = (),
    on_texts: Callable[[int, int], None] | None = None,
    on_task: Callable[[TaskOutcome], None] | None = None,
) -> Outcome:
    """Run what is not done yet, one task after the other.

    A task that fails is told of and does not stop the others; what is done is kept, and the same
    call goes on with the rest. Vectors are kept too, so a task that was killed has lost little.

    Args:
        benchmark: From :func:`open_benchmark`.
        peer: The model.
        output: Folder of results, mteb's: ``results/MODEL/FINGERPRINT/TASK.json``.
        cache: Folder of vectors.
        order: Names of tasks, which to run first; a plan's.
        on_texts: Told (texts, characters) as they are embedded.
        on_task: Told of every task when it ends.

    Raises:
        OutputError: The folder cannot be written.
    """
    from polyvec.evaluate.mmteb_encoder import BenchmarkEncoder

    defaults = {task.metadata.name: task.abstask_prompt for task in benchmark.tasks}
    encoder = BenchmarkEncoder(peer, VectorCache(cache, peer), defaults, on_texts)
    places = {name: place for place, name in enumerate(order)}
    tasks = sorted(benchmark.tasks, key=lambda t: places.get(t.metadata.name, len(places)))
    outcomes = []
    for task in tasks:
        outcomes.append(_run(task, encoder, output))
        if on_task is not None:
            on_task(outcomes[-1])
    meta = encoder.mteb_model_meta
    folder = output / "results" / meta.model_name_as_path() / str(meta.revision)
    return Outcome(
        benchmark.name, str(meta.name), peer.fingerprint, folder, outcomes, benchmark.skipped
    )


def _run(task: "AbsTask", encoder: "BenchmarkEncoder", output: Path) -> TaskOutcome:
    import mteb

    results = _results(output)
    was_done = _is_done(results, task, encoder.mteb_model_meta)
    logging.getLogger("mteb").setLevel(logging.CRITICAL)  # what fails is told once, by us
    try:
        with _no_bars():
            found = mteb.evaluate(
                encoder,
                task,
                cache=results,
                raise_error=False,
                co2_tracker=False,
                show_progress_bar=False,
                encode_kwargs={"batch_size": 1024, "show_progress_bar": False},
            )
    except OSError as error:
        raise OutputError(f"Results cannot be written below {output}: {error}.") from error
    name, kind = task.metadata.name, str(task.metadata.type)
    task.unload_data()
    if found.exceptions:
        return TaskOutcome(name, kind, None, {}, found.exceptions[0].exception or "no reason given")
    scores = found.task_results[0].scores
    subsets = {s["hf_subset"]: float(s["main_score"]) for split in scores.values() for s in split}
    mean = sum(subsets.values()) / len(subsets)
    return TaskOutcome(name, kind, mean, subsets, was_done=was_done)


def _results(output: Path) -> Any:  # noqa: ANN401 (mteb's ResultCache)
    import mteb

    return mteb.ResultCache(cache_path=output)


def _is_done(results: Any, task: "AbsTask", meta: Any) -> bool:  # noqa: ANN401 (mteb's own)
    """Whether a whole result of these texts is there; one that a kill left half is removed."""
    path: Path = results.get_task_result_path(task.metadata.name, meta)
    if not path.exists():
        return False
    try:
        json.loads(path.read_bytes())  # mteb writes NaN, which is no JSON to stricter readers
    except ValueError:
        path.unlink()
        return False
    found = results.load_task_result(task.metadata.name, meta)
    if found is None or found.dataset_revision != task.metadata.revision:
        return False
    return not found.get_missing_evaluations(task)
