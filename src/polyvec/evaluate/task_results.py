"""Results in mteb's own format, as any run of mteb leaves them in a folder."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from polyvec.errors import InputError

_META = "model_meta.json"
_TELLING_KEYS = (
    ("v_measure", "Clustering"),
    ("max_ap", "PairClassification"),
    ("scores_per_experiment", "Classification"),
    ("cosine_spearman", "STS"),
    ("ndcg_at_10", "Retrieval"),
    ("f1", "BitextMining"),
)
"""Which type of task reports which score, the most telling first: files do not name the type."""


@dataclass
class TaskResults:
    """One model's scores on tasks."""

    model: str
    revision: str
    scores: dict[str, float] = field(default_factory=dict)
    """Main score of each task: the mean over its subsets, as mteb takes it."""
    types: dict[str, str] = field(default_factory=dict)
    languages: dict[str, list[float]] = field(default_factory=dict)
    """Main scores of the subsets in one language."""
    about: dict[str, Any] = field(default_factory=dict)


def read_task_results(folder: Path, types: Mapping[str, str] | None = None) -> list[TaskResults]:
    """Read every ``model/revision/Task.json`` under a folder.

    Args:
        folder: Any folder above the files.
        types: Task name to type, where it is known; else it is told by the scores.

    Raises:
        InputError: A file is no result of mteb.
    """
    found: dict[Path, TaskResults] = {}
    for path in sorted(folder.rglob("*.json")):
        facts = _json(path)
        if isinstance(facts, dict) and "task_name" in facts and "scores" in facts:
            if path.parent not in found:
                found[path.parent] = _model(path.parent)
            _add(found[path.parent], facts, types or {}, path)
    return list(found.values())


def _json(path: Path) -> Any:  # noqa: ANN401 (any JSON)
    try:
        return json.loads(path.read_bytes())  # mteb writes NaN, which orjson refuses
    except (OSError, ValueError) as error:
        raise InputError(f"The result {path} cannot be read: {error}.") from error


def _model(folder: Path) -> TaskResults:
    meta = _json(folder / _META) if (folder / _META).exists() else {}
    name = meta.get("name") or folder.parent.name.replace("__", "/")
    wanted = {"dimension": "embed_dim", "parameters": "n_parameters", "max_tokens": "max_tokens"}
    about = {ours: meta[theirs] for ours, theirs in wanted.items() if meta.get(theirs)}
    if isinstance(meta.get("memory_usage_mb"), int | float):
        about["size_bytes"] = int(meta["memory_usage_mb"] * 2**20)
    return TaskResults(str(name), folder.name, about=about)


def _add(result: TaskResults, facts: dict[str, Any], types: Mapping[str, str], path: Path) -> None:
    task = str(facts["task_name"])
    subsets = list(_subsets(facts["scores"], path))
    if not subsets:
        raise InputError(f"{path} has no score. Remove it and run the task again.")
    result.scores[task] = float(np.mean([subset["main_score"] for subset in subsets]))
    result.types[task] = types.get(task) or _type(subsets[0])
    for subset in subsets:
        spoken = subset.get("languages") or []
        for language in dict.fromkeys(str(code).partition("-")[0] for code in spoken):
            result.languages.setdefault(language, []).append(subset["main_score"])


def _subsets(splits: Any, path: Path) -> Iterator[dict[str, Any]]:  # noqa: ANN401 (any JSON)
    try:
        for split in splits.values():
            for subset in split:
                float(subset["main_score"])
                yield subset
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is no result of mteb's: under 'scores' are splits of subsets, each with a "
            f"'main_score' ({error})."
        ) from error


def _type(subset: Mapping[str, Any]) -> str:
    return next((kind for key, kind in _TELLING_KEYS if key in subset), "Other")
