"""The report's charts as PNG files, for slides and papers, by matplotlib."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from polyvec.errors import MissingExtraError
from polyvec.evaluate.charts import short
from polyvec.evaluate.summary import (
    COSTS,
    PRECISIONS,
    Group,
    LanguageMap,
    Row,
    groups_of,
    language_maps,
)

_INCHES, _DOTS = (6.4, 4.4), 160
_MARKERS = "o^s"


_Draw = Callable[[Any], bool]


def write_pictures(folder: Path, rows: Sequence[Row]) -> list[Path]:
    """Draw what the rows have numbers for; returns the files.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figures: dict[str, _Draw] = {"types": partial(_types, rows)}
    for number, one in enumerate(language_maps(rows)):
        figures["languages" + (f"-{number + 1}" if number else "")] = partial(_languages, one)
    for number, group in enumerate(groups_of(rows)):
        mark = f"-{number + 1}" if number else ""
        figures[f"dimension{mark}"] = partial(_dimension, group)
        figures[f"precision{mark}"] = partial(_precision, group)
        for fact, name, words in COSTS:
            figures[f"{name.lower()}{mark}"] = partial(_cost, group, fact, words)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {folder / f"{name}.png": draw for name, draw in figures.items()}
    return [path for path, draw in paths.items() if _drawn(path, draw)]


def _drawn(path: Path, draw: _Draw) -> bool:
    figure = _figure_class()(figsize=_INCHES, dpi=_DOTS, layout="constrained")
    if not draw(figure.subplots()):
        return False
    unfinished = path.with_name(f".{path.name}")
    figure.savefig(unfinished, format="png")
    unfinished.replace(path)
    return True


def _figure_class() -> Any:  # noqa: ANN401 (optional)
    try:
        from matplotlib.figure import Figure  # not pyplot: no window system, no state
    except ImportError as error:
        raise MissingExtraError(
            "Pictures need matplotlib, which is not installed: pip install 'polyvec[evaluate]'."
        ) from error
    return Figure


def _types(rows: Sequence[Row], axes: Any) -> bool:  # noqa: ANN401 (optional library)
    types = list(dict.fromkeys(kind for row in rows for kind in row.by_type))
    places, height = np.arange(len(types)), 0.8 / len(rows)
    for number, row in enumerate(rows):
        scores = [100 * row.by_type.get(kind, np.nan) for kind in types]
        axes.barh(places + number * height, scores, height, label=row.model)
    axes.set_yticks(places + 0.4 - height / 2, types)
    axes.invert_yaxis()
    axes.set_xlabel("score")
    axes.legend(fontsize="small")
    return True


def _languages(one: LanguageMap, axes: Any) -> bool:  # noqa: ANN401
    scores = [[np.nan if s is None else 100 * s for s in row] for row in one.scores]
    image = axes.imshow(np.array(scores).T, aspect="auto", cmap="Blues")
    names = one.languages
    axes.set_xticks(range(len(names)), names, rotation=90 if len(names) > 12 else 0)
    axes.set_yticks(range(len(one.models)), one.models)
    axes.figure.colorbar(image, label=one.title)
    return True


def _dimension(group: Group, axes: Any) -> bool:  # noqa: ANN401
    curves = [sorted(group.curve(row).items()) for row in group.rows]
    for number, (row, curve) in enumerate(zip(group.rows, curves, strict=True)):
        sizes, scores = [size for size, _ in curve], [100 * score for _, score in curve]
        if curve:
            style = {"marker": _marker(number), "color": f"C{number}"}
            axes.plot(sizes, scores, label=row.model, **style)
    enough = sum(map(len, curves)) > 1
    return enough and _labelled(axes, group, "numbers kept of a vector", True)


def _precision(group: Group, axes: Any) -> bool:  # noqa: ANN401
    places = [
        float(PRECISIONS.index(row.about["precision"]))
        if row.about.get("precision") in PRECISIONS
        else None
        for row in group.rows
    ]
    axes.set_xticks(range(len(PRECISIONS)), PRECISIONS)
    enough = _scattered(group, places, axes)
    return enough and _labelled(axes, group, "precision of products", False)


def _cost(group: Group, fact: str, words: str, axes: Any) -> bool:  # noqa: ANN401
    enough = _scattered(group, [row.number(fact) for row in group.rows], axes)
    return enough and _labelled(axes, group, words, True)


def _scattered(group: Group, places: Sequence[float | None], axes: Any) -> bool:  # noqa: ANN401
    drawn = 0
    for number, (row, x) in enumerate(zip(group.rows, places, strict=True)):
        score = group.score(row)
        if x is not None and score is not None:
            style = {"marker": _marker(number), "color": f"C{number}", "alpha": 0.75, "s": 60}
            axes.scatter([x], [100 * score], label=row.model, **style)
            drawn += 1
    return drawn > 1


def _labelled(axes: Any, group: Group, x_title: str, logarithmic: bool) -> bool:  # noqa: ANN401
    if logarithmic:
        axes.set_xscale("log")
        for formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
            formatter(_tick)
    axes.set_xlabel(x_title)
    axes.set_ylabel(group.title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return True


def _tick(value: float, _place: int) -> str:
    """Write 1, 2 and 5 times powers of ten; more would not fit."""
    return short(value) if f"{value:e}"[0] in "125" else ""


def _marker(number: int) -> str:
    return _MARKERS[number % len(_MARKERS)]
