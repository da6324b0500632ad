"""Scores against the number of labels, and against the values of any other axis."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

from experiments.results.aggregates import Aggregate
from experiments.results.axes import Variant
from experiments.results.page import estimates, markup, svg
from experiments.results.page.content import Report
from experiments.results.page.estimates import percent
from experiments.results.page.markup import Markup, element
from experiments.results.page.scales import Scale
from experiments.results.page.svg import COLOURS, Plot

Curve = list[Aggregate]


@dataclasses.dataclass(frozen=True)
class _Axis:
    """What changes along a curve.

    Attributes:
        title: of the x axis.
        keys: the axes of a line that change along it, and so do not tell curves apart.
        place: a line's place on the x axis.
        words: what this place is, for people.
        ticks: number and label of each tick; ``None`` for a logarithmic axis.
    """

    title: str
    keys: tuple[str, ...]
    place: Callable[[Aggregate], float]
    words: Callable[[Aggregate], str]
    ticks: tuple[tuple[float, str], ...] | None = None


def labels(report: Report) -> Markup | None:
    """A panel per regime for each data set; ``None`` if no line has several numbers of labels."""
    counted = all(each.data['train_examples'] for each in report.aggregates)
    title = f'labelled {report.noun}s' if counted else 'share of the labels'
    axis = _Axis(title, (), _labels, estimates.labelled)
    options = _options(report.aggregates, report.datasets, axis)
    if not options:
        return None
    intro = element(
        'p', 'Test score against the number of labels, with the 95 % interval of each. Both axes are the same in all '
        'panels of a data set.',
    )  # fmt: skip
    return markup.escaped([intro, markup.choice('labels-of', 'data set', options)])


def settings(report: Report) -> Markup | None:
    """For each setting that has several values, as ``labels``; with the most labels that each data set has."""
    most = [line for dataset in report.datasets for line in estimates.columns(report.aggregates, dataset)[0]]
    options = []
    for number, key in enumerate(dict.fromkeys(key for line in most for key, _ in line.settings)):
        found = dict.fromkeys(value for line in most for name, value in line.settings if name == key)
        numbers = all(isinstance(value, int | float) for value in found)
        places = {value: place for place, value in enumerate(sorted(found) if numbers else found)}
        ticks = tuple((place, estimates.value_in_words(key, value)) for value, place in places.items())
        axis = _Axis(
            key, (key,),
            lambda line, key=key, places=places: places[dict(line.settings)[key]],
            lambda line, key=key: f'{key} {estimates.value_in_words(key, dict(line.settings)[key])}',
            ticks,
        )  # fmt: skip
        mine = [line for line in most if key in dict(line.settings)]
        inner = _options(mine, report.datasets, axis)
        if inner:
            options.append((key, markup.choice(f'settings-{number}-of', 'data set', inner)))
    if not options:
        return None
    intro = element(
        'p', 'Test score, with its 95 % interval, against each value of an axis, everything else being equal, with the '
        'most labels of each data set that this report has.',
    )  # fmt: skip
    return markup.escaped([intro, markup.choice('settings-of', 'axis', options)])


def _labels(line: Aggregate) -> float:
    return line.data['train_examples'] or line.fraction


def _options(lines: Sequence[Aggregate], datasets: Sequence[str], axis: _Axis) -> list[tuple[str, Markup]]:
    """The data sets in which a curve has several points, each with its panels."""
    options = []
    for dataset in datasets:
        curves: dict[tuple[str, ...], Curve] = {}
        for line in lines:
            if line.dataset == dataset:
                kind = tuple(value for key, value in estimates.axes(line).items() if key not in axis.keys)
                curves.setdefault(kind, []).append(line)
        several = [sorted(curve, key=axis.place) for curve in curves.values() if len({*map(axis.place, curve)}) > 1]
        if several:
            options.append((dataset, _panels(several, axis)))
    return options


def _panels(curves: Sequence[Curve], axis: _Axis) -> Markup:
    """A panel for each kind of lines, the backbones being its curves; the best of them have a colour."""
    points = [line for curve in curves for line in curve]
    best = sorted(curves, key=lambda curve: -estimates.estimate(curve[-1]).mean)
    variants = _names_of_variants([curve[-1] for curve in best])
    groups: dict[str, list[Curve]] = {}
    for curve in best:
        rest = [
            estimates.with_key(key, value)
            for key, value in estimates.axes(curve[-1]).items()
            if key not in ('backbone', 'weights', *axis.keys)
        ]
        groups.setdefault(' · '.join(rest), []).append(curve)
    groups = _with_baselines(groups)
    x = Scale.covering(map(axis.place, points), 'log') if axis.ticks is None else Scale(-0.3, len(axis.ticks) - 0.7)
    y = Scale.covering([100 * bound for line in points for bound in estimates.estimate(line).bounds], within=(0, 100))
    series = {variant: index if index < COLOURS else None for index, variant in enumerate(variants)}
    legend = svg.legend(list(enumerate(variants.values()))[:COLOURS])
    grey = len(variants) - COLOURS
    note = element('p', f'Grey: the other {grey}.', class_='note') if grey > 0 else None
    panels = [_panel(title, group, axis, x, y, series) for title, group in groups.items()]
    return markup.escaped([legend, note, element('div', panels, class_='panels' if len(panels) > 1 else None)])


def _with_baselines(groups: Mapping[str, list[Curve]]) -> dict[str, list[Curve]]:
    """Groups by title, numbers ascending; curves that lack a setting, as pixels do, are in each group that has it."""
    found = {}
    for title in sorted(groups, key=_numbers_last):
        if not any(other.startswith(f'{title} · ') for other in groups):
            found[title] = [
                curve for other, curves in groups.items() if f'{title} · '.startswith(f'{other} · ') for curve in curves
            ]
    return found


def _numbers_last(title: str) -> list[tuple[bool, float, str]]:
    parts = re.split(r'([0-9]+(?:[.][0-9]+)?)', title)
    return [(bool(place % 2), float(part) if place % 2 else 0.0, part) for place, part in enumerate(parts)]


def _names_of_variants(lines: Sequence[Aggregate]) -> dict[Variant, str]:
    """Backbones alone, where each has only one kind of weights."""
    one_each = len({line.variant for line in lines}) == len({line.variant.backbone for line in lines})
    return {line.variant: line.variant.backbone if one_each else line.variant.label for line in lines}


def _panel(
    title: str, group: Sequence[Curve], axis: _Axis, x: Scale, y: Scale, series: Mapping[Variant, int | None]
) -> Markup:
    metric = group[0][0].metric
    plot = Plot(
        f'{metric} against {axis.title}, {markup.shown(title)}', x, y,
        description=f'Best at the end: {markup.shown(group[0][-1].variant.label)}.',
        x_label=axis.title, y_label=f'test {metric} in %', x_format='{:,g}'.format, x_ticks=axis.ticks,
        width=560, height=360,
    )  # fmt: skip
    bands, lines, rows = [], [], []
    for curve in reversed(group):
        colour = series[curve[0].variant]
        found = [estimates.estimate(line) for line in curve]
        places = [axis.place(line) for line in curve]
        if colour is not None and any(each.low is not None for each in found):
            lows, highs = zip(*([100 * bound for bound in each.bounds] for each in found), strict=True)
            bands.append(plot.band(places, lows, highs, colour))
        lines.append(plot.line([(place, 100 * each.mean) for place, each in zip(places, found, strict=True)], colour))
        for line, place, each in zip(curve, places, found, strict=True):
            says = f'{line.variant.label}\n{axis.words(line)}: {each.text()}'
            if colour is not None:
                lines.append(plot.marker(place, 100 * each.mean, colour, says, size=4))
            interval = ' – '.join(map(percent, each.bounds))
            rows.append([markup.name(line.variant.label, 60), axis.words(line), percent(each.mean), interval])
    numbers = markup.table(['backbone', axis.title, f'{metric} in %', '95 % interval'], rows, numbers=3)
    return markup.figure(plot.render(bands, lines), element('b', markup.name(title, 60)), numbers)
