"""The report's charts as PNG files, for slides and papers, by matplotlib."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from polyvec.errors import MissingExtraError
from polyvec.evaluate.charts import short
from polyvec.evaluate.summary import COSTS, PRECISIONS, Row

_INCHES, _DOTS = (6.4, 4.4), 160
_MARKERS = "o^s"


def write_pictures(folder: Path, rows: Sequence[Row]) -> list[Path]:
    """Draw what the rows have numbers for; returns the files.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figures: dict[str, Callable[[Any, Sequence[Row]], bool]] = {
        "types": _types,
        "languages": _languages,
        "dimension": _dimension,
        "precision": _precision,
        **{name: _cost(fact, words) for fact, name, words in COSTS},
    }
    folder.mkdir(parents=True, exist_ok=True)
    return [
        path
        for name, draw in figures.items()
        if (path := folder / f"{name.lower()}.png") and _drawn(path, draw, rows)
    ]


def _drawn(path: Path, draw: Callable[[Any, Sequence[Row]], bool], rows: Sequence[Row]) -> bool:
    figure = _figure_class()(figsize=_INCHES, dpi=_DOTS, layout="constrained")
    axes = figure.subplots()
    if not draw(axes, rows):
        return False
    partial = path.with_name(f".{path.name}")
    figure.savefig(partial, format="png")
    partial.replace(path)
    return True


def _figure_class() -> Any:  # noqa: ANN401 (optional)
    try:
        from matplotlib.figure import Figure  # not pyplot: no window system, no state
    except ImportError as error:
        raise MissingExtraError(
            "Pictures need matplotlib, which is not installed: pip install 'polyvec[evaluate]'."
        ) from error
    return Figure


def _types(axes: Any, rows: Sequence[Row]) -> bool:  # noqa: ANN401 (optional library)
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


def _languages(axes: Any, rows: Sequence[Row]) -> bool:  # noqa: ANN401
    spoken = [row for row in rows if row.by_language]
    names = sorted({language for row in spoken for language in row.by_language})
    if len(names) < 2:
        return False
    table = np.array([[100 * row.by_language.get(x, np.nan) for x in names] for row in spoken])
    image = axes.imshow(table, aspect="auto", cmap="Blues")
    axes.set_xticks(range(len(names)), names, rotation=90 if len(names) > 12 else 0)
    axes.set_yticks(range(len(spoken)), [row.model for row in spoken])
    axes.figure.colorbar(image, label="score")
    return True


def _dimension(axes: Any, rows: Sequence[Row]) -> bool:  # noqa: ANN401
    drawn = [(n, row) for n, row in enumerate(rows) if len(row.by_dimension) > 1]
    for number, row in drawn:
        sizes = sorted(row.by_dimension)
        scores = [100 * row.by_dimension[size] for size in sizes]
        axes.plot(sizes, scores, marker=_marker(number), label=row.model, color=f"C{number}")
    return bool(drawn) and _labelled(axes, "numbers kept of a vector", True)


def _precision(axes: Any, rows: Sequence[Row]) -> bool:  # noqa: ANN401
    known = [(n, row) for n, row in enumerate(rows) if row.about.get("precision") in PRECISIONS]
    for number, row in known:
        place = PRECISIONS.index(row.about["precision"])
        _point(axes, number, row, place)
    axes.set_xticks(range(len(PRECISIONS)), PRECISIONS)
    return len(known) > 1 and _labelled(axes, "precision of products", False)


def _cost(fact: str, words: str) -> Callable[[Any, Sequence[Row]], bool]:
    def draw(axes: Any, rows: Sequence[Row]) -> bool:  # noqa: ANN401
        known = [(n, row, x) for n, row in enumerate(rows) if (x := row.number(fact)) is not None]
        for number, row, x in known:
            _point(axes, number, row, x)
        return len(known) > 1 and _labelled(axes, words, True)

    return draw


def _point(axes: Any, number: int, row: Row, x: float) -> None:  # noqa: ANN401
    style = {"marker": _marker(number), "color": f"C{number}", "alpha": 0.75, "s": 60}
    axes.scatter([x], [100 * row.quality], label=row.model, **style)


def _labelled(axes: Any, x_title: str, logarithmic: bool) -> bool:  # noqa: ANN401
    if logarithmic:
        axes.set_xscale("log")
        for formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
            formatter(_tick)
    axes.set_xlabel(x_title)
    axes.set_ylabel("score")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return True


def _tick(value: float, _place: int) -> str:
    """Write 1, 2 and 5 times powers of ten; more would not fit."""
    return short(value) if f"{value:e}"[0] in "125" else ""


def _marker(number: int) -> str:
    return _MARKERS[number % len(_MARKERS)]
