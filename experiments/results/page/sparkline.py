"""Curves as small as a word."""

from collections.abc import Sequence

from experiments.results.page.markup import Markup, element

_WIDTH, _HEIGHT, _MARGIN = 104.0, 30.0, 4.0


def sparkline(points: Sequence[tuple[float, float]], title: str) -> Markup:
    """A curve without axes, from its smallest to its largest value, with a dot at its end.

    Args:
        points: in the order of x; at least one.
        title: what it shows, with numbers: its tooltip, and what is read in its place.
    """
    places = list(zip(_spread([x for x, _ in points], _WIDTH), _spread([-y for _, y in points], _HEIGHT), strict=True))
    path = 'M' + 'L'.join(f'{x:.1f},{y:.1f}' for x, y in places)
    x, y = places[-1]
    dot = element('circle', cx=f'{x:.1f}', cy=f'{y:.1f}', r=2.5, class_='mark series0')
    line = element('path', d=path, class_='line series0') if len(places) > 1 else None
    return element(
        'svg', element('title', title), line, dot,
        viewBox=f'0 0 {_WIDTH:g} {_HEIGHT:g}', class_='sparkline', role='img', aria_label=title,
    )  # fmt: skip


def _spread(values: Sequence[float], length: float) -> list[float]:
    low, high = min(values), max(values)
    inside = length - 2 * _MARGIN
    return [_MARGIN + (inside * (value - low) / (high - low) if high > low else inside / 2) for value in values]
