"""Results of any benchmark ranked, for MMTEB together with the published ones."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from polyvec.errors import InputError
from polyvec.evaluate.borda import Rank, rank
from polyvec.evaluate.mmteb_instructions import published_types, table
from polyvec.evaluate.task_results import TaskResults, read_task_results

_TABLE = "mmteb_reference_scores.csv"
PUBLISHED = {
    "nemotron8b": "nvidia/llama-embed-nemotron-8b",
    "e5mistral": "intfloat/e5-mistral-7b-instruct",
    "bge-m3": "BAAI/bge-m3",
    "me5-l-inst": "intfloat/multilingual-e5-large-instruct",
    "qwen3-8b": "Qwen/Qwen3-Embedding-8B",
    "gemini001": "google/gemini-embedding-001",
    "kalm12b": "tencent/KaLM-Embedding-Gemma3-12B-2511",
}
"""The published models by their column."""


@dataclass(frozen=True)
class Board:
    """Models ranked on the tasks that are common."""

    ranks: list[Rank]
    tasks: list[str]
    types: Mapping[str, str]
    published: frozenset[str]
    """Which models are published ones."""
    missing: Mapping[str, list[str]]
    """Tasks that a model has not run though another has."""

    @property
    def field(self) -> str:
        """What a reader has to know of a Borda rank."""
        return (
            f"Borda over {len(self.ranks)} models and {len(self.tasks)} tasks. A Borda rank "
            "depends on the field: with other models beside them, two models may change places. "
            "Means do not."
        )


def published_scores() -> dict[str, dict[str, float]]:
    """Return the published models' main scores, in percent, by task."""
    found: dict[str, dict[str, float]] = {name: {} for name in PUBLISHED.values()}
    for row in table(_TABLE):
        for column, name in PUBLISHED.items():
            if row[column]:
                found[name][row["task"]] = float(row[column])
    return found


def read_results(folders: Sequence[Path]) -> list[TaskResults]:
    """Read results in mteb's format from any folders above them.

    Raises:
        InputError: A folder is not there or has no results; or a file is not one.
    """
    results = []
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"There is no folder {folder}. Give a folder of mteb's results.")
        found = read_task_results(folder, published_types())
        if not found:
            raise InputError(
                f"{folder} has no results. They are MODEL/REVISION/TASK.json, as `polyvec evaluate "
                "--benchmark` and mteb write them."
            )
        results += found
    return results


def board(
    results: Sequence[TaskResults],
    *,
    with_published: bool = True,
    all_tasks: bool = False,
) -> Board:
    """Rank results, beside the published models where they are of MMTEB.

    Args:
        results: Of any models.
        with_published: Rank the published models too, on the tasks that a result has. Where no
            task is MMTEB's there are none.
        all_tasks: Rank on every task, one that a model has not run earning it nothing; else only
            on those that all have run.

    Raises:
        InputError: There is nothing to rank.
    """
    scores = _by_name(results)
    types = {task: kind for result in results for task, kind in result.types.items()}
    ours = {task for found in scores.values() for task in found}
    published: dict[str, dict[str, float]] = {}
    if with_published:
        for name, found in published_scores().items():
            if chosen := {t: s for t, s in found.items() if not ours or t in ours}:
                published[name] = chosen
    types |= published_types()
    everyone = {**published, **scores}
    tasks = known = sorted({task for found in everyone.values() for task in found})
    if not all_tasks:
        tasks = [task for task in tasks if all(task in found for found in everyone.values())]
    ranked = {m: {t: found[t] for t in tasks if t in found} for m, found in everyone.items()}
    missing = {m: [t for t in known if t not in found] for m, found in everyone.items()}
    return Board(
        rank(ranked, types),
        tasks,
        {task: types[task] for task in tasks},
        frozenset(published) - frozenset(scores),
        {m: gone for m, gone in missing.items() if gone},
    )


def _by_name(results: Sequence[TaskResults]) -> dict[str, dict[str, float]]:
    """Return scores in percent; a model with several revisions has them in its names."""
    names = [result.model for result in results]
    scores: dict[str, dict[str, float]] = {}
    for result in results:
        name = result.model
        if names.count(name) > 1:
            name = f"{name}@{result.revision[:8]}"
        while name in scores:  # one revision in two folders
            name = next(
                x for i in itertools.count(2) if (x := f"{result.model} ({i})") not in scores
            )
        scores[name] = {task: 100 * score for task, score in result.scores.items()}
    return scores
