"""Scores against the number of labels."""

from collections.abc import Sequence

from experiments.results.aggregates import Aggregate
from experiments.results.page import estimates, markup, svg
from experiments.results.page.content import Report
from experiments.results.page.estimates import percent
from experiments.results.page.markup import Markup, element
from experiments.results.page.scales import Scale
from experiments.results.page.svg import COLOURS, Plot


def section(report: Report) -> Markup | None:
    """A panel per regime for each data set; ``None`` if no line has several label fractions."""
    options = []
    for dataset in report.datasets:
        mine = [each for each in report.aggregates if each.dataset == dataset]
        curves: dict[tuple[str, ...], list[Aggregate]] = {}
        for each in mine:
            curves.setdefault(tuple(estimates.axes(each).values()), []).append(each)
        several = [sorted(curve, key=_labels) for curve in curves.values() if len({*map(_labels, curve)}) > 1]
        if several:
            options.append((dataset, _panels(several)))
    if not options:
        return None
    intro = element(
        'p', 'Test score against the number of labels, with the 95 % interval of each. Both axes are the same in all '
        'panels of a data set.',
    )  # fmt: skip
    return markup.escaped([intro, markup.choice('labels-of', 'data set', options)])


def _labels(line: Aggregate) -> float:
    return line.data['train_examples'] or line.fraction


def _panels(curves: Sequence[list[Aggregate]]) -> Markup:
    points = [each for curve in curves for each in curve]
    x = Scale.covering(map(_labels, points), 'log')
    y = Scale.covering([100 * bound for each in points for bound in estimates.estimate(each).bounds], within=(0, 100))
    best = sorted(curves, key=lambda curve: -estimates.estimate(curve[-1]).mean)
    variants = list(dict.fromkeys(curve[-1].variant for curve in best))
    names = dict(zip(map(id, best), estimates.names([curve[-1] for curve in best]), strict=True))
    without = _variant_names([curve[-1] for curve in best])
    groups: dict[str, list[list[Aggregate]]] = {}
    for curve in best:
        last = estimates.axes(curve[-1])
        groups.setdefault(
            ' · '.join(value for key, value in last.items() if key not in ('backbone', 'weights')), []
        ).append(curve)
    legend = svg.legend([(index, without[variant]) for index, variant in enumerate(variants[:COLOURS])])
    rest = len(variants) - COLOURS
    note = element('p', f'Grey: the other {rest}.', class_='note') if rest > 0 else None
    panels = [_panel(title, group, x, y, variants, names) for title, group in groups.items()]
    return markup.escaped([legend, note, element('div', panels, class_='panels' if len(panels) > 1 else None)])


def _variant_names(lines: Sequence[Aggregate]) -> dict:
    """Backbones alone, where each has only one kind of weights."""
    one_each = len({line.variant for line in lines}) == len({line.variant.backbone for line in lines})
    return {line.variant: line.variant.backbone if one_each else line.variant.label for line in lines}


def _panel(title, group, x: Scale, y: Scale, variants, names) -> Markup:
    metric = group[0][0].metric
    plot = Plot(
        f'{metric} against labels, {markup.shown(title)}', x, y,
        description=f'Best with the most labels: {markup.shown(names[id(group[0])])}.',
        x_label='labelled images' if group[0][0].data['train_examples'] else 'share of the labels',
        y_label=f'test {metric} in %', x_format='{:,g}'.format, width=560, height=360,
    )  # fmt: skip
    bands, lines, rows = [], [], []
    for curve in reversed(group):
        place = variants.index(curve[0].variant)
        series = place if place < COLOURS else None
        found = [estimates.estimate(each) for each in curve]
        xs = [_labels(each) for each in curve]
        if all(each.low is not None for each in found) and series is not None:
            lows, highs = zip(*([100 * bound for bound in each.bounds] for each in found), strict=True)
            bands.append(plot.band(xs, lows, highs, series))
        lines.append(plot.line(list(zip(xs, [100 * each.mean for each in found], strict=True)), series))
        for estimate, labels in zip(found, xs, strict=True):
            says = f'{names[id(curve)]}\n{labels:,g} labels: {estimate.text()}'
            if series is not None:
                lines.append(plot.marker(labels, 100 * estimate.mean, series, says, size=4))
            interval = ' – '.join(map(percent, estimate.bounds))
            rows.append([markup.name(names[id(curve)], 60), f'{labels:,g}', percent(estimate.mean), interval])
    numbers = markup.table(['line', 'labels', f'{metric} in %', '95 % interval'], rows, numbers=3)
    return markup.figure(plot.render(bands, lines), element('b', markup.name(title, 60)), numbers)
