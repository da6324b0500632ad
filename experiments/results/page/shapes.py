"""Shapes of the points of plots, as outlines of SVG paths."""

import math
from collections.abc import Sequence

SHAPES = ('circle', 'square', 'triangle', 'diamond', 'wedge', 'cross', 'plus', 'bar', 'star')


def marker_path(shape: str, x: float, y: float, size: float = 4.5) -> str:
    """The outline of a shape of ``SHAPES`` around a place, as the ``d`` of a path.

    Raises:
        ValueError: there is no such shape.
    """
    if shape == 'circle':
        half = f'a{number(size)},{number(size)} 0 1 0'
        return f'M{number(x - size)},{number(y)}{half} {number(2 * size)},0{half} {number(-2 * size)},0Z'
    if shape not in _OUTLINES:
        raise ValueError(f'there is no shape {shape!r}; there are {", ".join(SHAPES)}')
    points = [f'{number(x + size * across)},{number(y + size * down)}' for across, down in _OUTLINES[shape]]
    return f'M{"L".join(points)}Z'


def _turned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    half = math.sqrt(0.5)
    return [((x - y) * half, (x + y) * half) for x, y in points]


_PLUS = [
    (-0.35, -1.1), (0.35, -1.1), (0.35, -0.35), (1.1, -0.35), (1.1, 0.35), (0.35, 0.35), (0.35, 1.1), (-0.35, 1.1),
    (-0.35, 0.35), (-1.1, 0.35), (-1.1, -0.35), (-0.35, -0.35),
]  # fmt: skip
# Corners in units of half the width, of about equal area.
_OUTLINES: dict[str, Sequence[tuple[float, float]]] = {
    'square': [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    'triangle': [(0, -1.25), (1.15, 0.85), (-1.15, 0.85)],
    'diamond': [(0, -1.3), (1.15, 0), (0, 1.3), (-1.15, 0)],
    'wedge': [(0, 1.25), (1.15, -0.85), (-1.15, -0.85)],
    'cross': _turned(_PLUS),
    'plus': _PLUS,
    'bar': [(-0.5, -1.3), (0.5, -1.3), (0.5, 1.3), (-0.5, 1.3)],
    'star': [
        (radius * math.sin(math.pi * corner / 5), -radius * math.cos(math.pi * corner / 5))
        for corner, radius in ((corner, 0.6 if corner % 2 else 1.4) for corner in range(10))
    ],
}


def number(value: float) -> str:
    """A number of a drawing with at most two decimals, as short as it can be."""
    text = f'{value:.2f}'.rstrip('0').rstrip('.')
    return '0' if text in ('-0', '') else text
