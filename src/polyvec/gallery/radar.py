"""Radar charts as SVG: one axis a task type, one shape a model."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from polyvec.catalogue.facts import TASK_TYPES
from polyvec.gallery.scores import SHORT, Scores

_WIDTH, _HEIGHT, _RADIUS = 440, 300, 120
_INNER = 0.15
"""The lowest score of an axis is drawn this far out, so that a shape does not fall together."""
_RINGS = 4


class Scale:
    """Where a score lies on its axis: from the lowest to the highest of all models."""

    def __init__(self, scores: Mapping[str, Scores]) -> None:
        """Take the ends of each axis.

        Args:
            scores: Those of every model that may be drawn.
        """
        columns = {k: [one.by_type[k] for one in scores.values()] for k in TASK_TYPES}
        self.ends = {k: (min(v), max(v)) for k, v in columns.items() if v}

    def path(self, by_type: Mapping[str, float]) -> str:
        """Return the shape of a model as an SVG path."""
        points = [
            self._point(number, kind, by_type[kind]) for number, kind in enumerate(TASK_TYPES)
        ]
        return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + "Z"

    def _point(self, number: int, kind: str, score: float) -> tuple[float, float]:
        low, high = self.ends[kind]
        share = (score - low) / (high - low) if high > low else 1.0
        return _place(number, _INNER + (1 - _INNER) * share)


def _place(number: int, share: float) -> tuple[float, float]:
    angle = 2 * math.pi * number / len(TASK_TYPES) - math.pi / 2
    centre_x, centre_y = _WIDTH / 2, _HEIGHT / 2 + 6
    return (
        centre_x + _RADIUS * share * math.cos(angle),
        centre_y + _RADIUS * share * math.sin(angle),
    )


def radar(shapes: Sequence[tuple[str, Scores]], scale: Scale, mark: str = "") -> str:
    """Draw models over each other, the first one filled.

    Args:
        shapes: Names and scores; the place decides the colour.
        scale: Of all models, so that charts can be compared.
        mark: An attribute for the drawing, such as an id.
    """
    body = [_grid()]
    body += [
        f'<path class="shape r{place}" d="{scale.path(one.by_type)}"/>'
        for place, (_, one) in reversed(list(enumerate(shapes)))
    ]
    said = "Scores by task type. " + " ".join(_said(name, one) for name, one in shapes)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" {mark} '
        f'aria-label="{escape(said, quote=True)}">{"".join(body)}</svg>'
    )


def _said(name: str, scores: Scores) -> str:
    parts = ", ".join(f"{SHORT[k]} {scores.by_type[k]:.1f}" for k in TASK_TYPES)
    return f"{name}: {parts}."


def _grid() -> str:
    lines = []
    for ring in range(_RINGS + 1):
        share = _INNER + (1 - _INNER) * ring / _RINGS
        corners = "L".join(
            f"{x:.1f} {y:.1f}" for x, y in (_place(n, share) for n in range(len(TASK_TYPES)))
        )
        lines.append(f'<path class="grid" d="M{corners}Z"/>')
    for number, kind in enumerate(TASK_TYPES):
        (x, y), (far_x, far_y) = _place(number, 1.0), _place(number, 1.13)
        start_x, start_y = _place(number, _INNER)
        lines.append(f'<path class="grid" d="M{start_x:.1f} {start_y:.1f}L{x:.1f} {y:.1f}"/>')
        side = (
            "middle" if abs(far_x - _WIDTH / 2) < 20 else "start" if far_x > _WIDTH / 2 else "end"
        )
        lines.append(
            f'<text x="{far_x:.1f}" y="{far_y + 4:.1f}" text-anchor="{side}">{SHORT[kind]}</text>'
        )
    return "".join(lines)
