"""Scatter charts as SVG inside a page: its colours follow the page's light or dark."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 420, 300
"""Small, so that words of 13 units are still readable on a phone of 360 pixels."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 12, 44
_TICKS = 5
COLOURS = 8
"""Colours that the page's style has; later series repeat them with another shape."""


@dataclass(frozen=True)
class Series:
    """One model's points, joined by a line if there are several."""

    name: str
    points: list[tuple[float, float]]


def scatter(
    series: Sequence[Series], x_title: str, y_title: str, labels: Sequence[str] | None = None
) -> str:
    """Draw points on a logarithmic x axis, or on one of named places.

    Args:
        series: In the order of the legend, which decides colour and shape; may have no points.
        x_title: Under the chart.
        y_title: Said to those who cannot see it, with every point's numbers.
        labels: Names of the places 0, 1, ...; None means x is a positive number.
    """
    points = [point for one in series for point in one.points]
    across, ticks = _names(labels) if labels else _logarithmic([x for x, _ in points])
    up, heights = _linear([y for _, y in points])
    body = [_grid(across, up, ticks, heights, x_title)]
    body += [_drawn(one, number, across, up, labels) for number, one in enumerate(series)]
    said = escape(f"{y_title} against {x_title}: " + _said(series, labels), quote=True)
    box = f"0 0 {_WIDTH} {_HEIGHT}"
    return f'<svg viewBox="{box}" role="img" aria-label="{said}">{"".join(body)}</svg>'


def mark(number: int, x: float = 7, y: float = 7) -> str:
    """Return the shape of a series: neighbours differ in shape too, so that both can be seen."""
    colour = f'class="s{number % COLOURS}"'
    shapes = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" {colour}/>',
        f'<path d="M{x:.1f} {y - 6:.1f}l6 10h-12z" {colour}/>',
        f'<rect x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9" {colour}/>',
    )
    return shapes[(number + number // COLOURS) % len(shapes)]


_Scale = Callable[[float], float]


def _logarithmic(values: Sequence[float]) -> tuple[_Scale, list[tuple[float, str]]]:
    low, high = min(values) / 1.25, max(values) * 1.25
    span = math.log(high / low)

    def place(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * math.log(value / low) / span

    return place, [(value, short(value)) for value in _round_numbers(low, high)]


def _round_numbers(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten between two numbers, few enough to be written."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps in ((1, 2, 5), (1,)):
        numbers = [m * 10.0**e for e in range(first, last + 1) for m in steps]
        inside = [number for number in numbers if low <= number <= high]
        if 2 <= len(inside) <= _TICKS + 2:
            return inside
    return [low * (high / low) ** share for share in (0.1, 0.5, 0.9)]


def _names(labels: Sequence[str]) -> tuple[_Scale, list[tuple[float, str]]]:
    step = (_WIDTH - _LEFT - _RIGHT) / len(labels)
    return lambda place: _LEFT + (place + 0.5) * step, [(float(n), x) for n, x in enumerate(labels)]


def _linear(values: Sequence[float]) -> tuple[_Scale, list[float]]:
    low, high = min(values), max(values)
    margin = max((high - low) * 0.15, 0.01)
    low, high = max(min(0.0, low), low - margin), min(1.0, high + margin)
    rough = (high - low) / _TICKS
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough)
    first = math.ceil(low / step)
    ticks = [n * step for n in range(first, math.floor(high / step) + 1)]
    room = _HEIGHT - _TOP - _BOTTOM
    return lambda value: _TOP + room * (high - value) / (high - low), ticks


def _grid(
    across: _Scale,
    up: _Scale,
    ticks: Sequence[tuple[float, str]],
    heights: Sequence[float],
    title: str,
) -> str:
    bottom = _HEIGHT - _BOTTOM
    lines = [
        f'<path class="grid" d="M{_LEFT} {up(y):.1f}H{_WIDTH - _RIGHT}"/>'
        f'<text x="{_LEFT - 6}" y="{up(y) + 4:.1f}" text-anchor="end">{100 * y:.4g}</text>'
        for y in heights
    ]
    lines += [
        f'<path class="grid" d="M{across(x):.1f} {_TOP}V{bottom}"/>'
        f'<text x="{across(x):.1f}" y="{bottom + 16}" text-anchor="middle">{escape(name)}</text>'
        for x, name in ticks
    ]
    centre = (_LEFT + _WIDTH - _RIGHT) / 2
    lines.append(
        f'<text x="{centre:.0f}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(title)}</text>'
    )
    return "".join(lines)


def _drawn(
    one: Series, number: int, across: _Scale, up: _Scale, labels: Sequence[str] | None
) -> str:
    places = [(across(x), up(y)) for x, y in sorted(one.points)]
    parts = []
    if len(places) > 1:
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path class="line l{number % COLOURS}" d="M{path}"/>')
    for (x, y), (value, score) in zip(places, sorted(one.points), strict=True):
        where = labels[int(value)] if labels else short(value)
        title = escape(f"{one.name}: {100 * score:.1f} at {where}")
        parts.append(f"<g><title>{title}</title>{mark(number, x, y)}</g>")
    return "".join(parts)


def _said(series: Sequence[Series], labels: Sequence[str] | None) -> str:
    return "; ".join(
        f"{one.name} {100 * y:.1f} at {labels[int(x)] if labels else short(x)}"
        for one in series
        for x, y in one.points
    )


def short(value: float) -> str:
    """Write a number in three or four characters: 384, 1.5k, 22.7M, 8B."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
