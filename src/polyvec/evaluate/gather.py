"""Results from files and folders: polyvec's own and mteb's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from polyvec.errors import InputError
from polyvec.evaluate.results import ModelResult, read_result
from polyvec.evaluate.task_results import TaskResults, read_task_results

_OWN = "*.result.json"
_REVISION_CHARACTERS = 12


@dataclass(frozen=True)
class Gathered:
    """What a report is made of."""

    results: list[ModelResult]
    tasks: list[TaskResults]


def gather(
    paths: Sequence[Path], types: Mapping[str, str] | None = None, baseline: str | None = None
) -> Gathered:
    """Read results from files (``*.result.json``) and folders of them or of mteb's.

    A model that mteb's folders have in several revisions goes by ``model (revision)`` each.

    Args:
        paths: Files and folders.
        types: Type of each task, where it is known.
        baseline: The model that comes first, with which others are compared; None: the first read.

    Raises:
        InputError: A path is not there, or holds no result, two results go by one name, or there
            is no result of the baseline.
    """
    results: list[ModelResult] = []
    tasks: list[TaskResults] = []
    for path in paths:
        own = sorted(path.rglob(_OWN)) if path.is_dir() else [path]
        found = read_task_results(path, types) if path.is_dir() else []
        if not own and not found:
            raise InputError(
                f"{path} holds no results: neither {_OWN} of 'polyvec evaluate' nor mteb's "
                "Task.json."
            )
        results += [read_result(file) for file in own]
        tasks += found
    _check_names(results)
    _tell_apart(tasks)
    names = sorted({result.model for result in results} | {task.model for task in tasks})
    if baseline is not None and baseline not in names:
        raise InputError(f"There is no result of {baseline!r}. There are: {', '.join(names)}.")
    results.sort(key=lambda result: result.model != baseline)
    tasks.sort(key=lambda task: task.model != baseline)
    return Gathered(results, tasks)


def _tell_apart(tasks: Sequence[TaskResults]) -> None:
    """Name models that come in several revisions by these: their scores are not one model's."""
    revisions: dict[str, set[str]] = {}
    for task in tasks:
        revisions.setdefault(task.model, set()).add(task.revision)
    for task in tasks:
        if len(revisions[task.model]) > 1:
            task.model = f"{task.model} ({task.revision[:_REVISION_CHARACTERS]})"


def _check_names(results: Sequence[ModelResult]) -> None:
    seen: dict[tuple[str, str], ModelResult] = {}
    for result in results:
        other = seen.setdefault((result.model, result.collection), result)
        if other.fingerprint != result.fingerprint or other is not result:
            raise InputError(
                f"Two results go by the name {result.model} on collection {result.collection} "
                f"(fingerprints {other.fingerprint} and {result.fingerprint}). Give one of them."
            )
