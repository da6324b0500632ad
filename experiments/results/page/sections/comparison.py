"""Scores with their intervals, one below the other, and which differences are significant."""

from collections.abc import Callable, Sequence

from experiments.results.aggregates import AT_EDGE, Aggregate
from experiments.results.page import estimates, markup, svg
from experiments.results.page.content import Report
from experiments.results.page.estimates import percent
from experiments.results.page.markup import Markup, element
from experiments.results.page.scales import Scale
from experiments.results.page.svg import Plot

# Lines of one matrix; fewer where there are many matrices, so that the page stays small.
MOST, MOST_OF_MANY, MANY = 40, 20, 8
# Levels of significance, and the strength of the colour with none to all of them passed.
LEVELS = (0.05, 0.01, 0.001)
_STRENGTHS = (0.03, 0.25, 0.55, 0.95)
_LEGEND = (('p ≥ 0.05', 0.03), ('< 0.05', 0.25), ('< 0.01', 0.55), ('< 0.001', 0.95))


def intervals(report: Report) -> Markup | None:
    """A forest plot for each data set and share of labels."""
    intro = element(
        'p',
        f'Points are scores, bars their 95 % intervals over other seeds and other test {report.noun}s. Two intervals '
        'may overlap although the difference is significant: it is paired, and the next section tests it.'
        + (f' Hollow: {AT_EDGE}, at an edge of its grid.' if any(line.at_edge for line in report.aggregates) else ''),
    )
    return markup.escaped([intro, _choices(report, 'intervals', lambda column: _forest(report, column))])


def significance(report: Report) -> Markup | None:
    """A matrix of adjusted p for each data set and share of labels; ``None`` if nothing can be compared."""
    columns = [column for dataset in report.datasets for column in estimates.columns(report.aggregates, dataset)]
    most = MOST if len(columns) <= MANY else MOST_OF_MANY
    matrices = {id(column[0]): _matrix(column, most) for column in columns}
    if not any(matrices.values()):
        return None
    intro = element(
        'p',
        'A field says by how many points the line below it is better than the line on its left, and its colour how '
        f'sure that is: p of the paired difference, over other seeds and other test {report.noun}s, adjusted by Holm’s '
        'method for all pairs of the matrix. A field is empty where p is unknown: a score depends on the seed, and '
        'there is only one.',
    )
    nothing = element('p', 'There is nothing to compare.', class_='note')
    return markup.escaped([intro, _choices(report, 'significance', lambda column: matrices[id(column[0])] or nothing)])


def _choices(report: Report, key: str, build: Callable[[Sequence[Aggregate]], Markup]) -> Markup:
    """A choice of the data set, and within it of the share of labels."""
    options = []
    for number, dataset in enumerate(report.datasets):
        columns = estimates.columns(report.aggregates, dataset)
        inner = [(estimates.labelled(column[0]), build(column)) for column in columns]
        options.append((dataset, markup.choice(f'{key}-{number}-labels', 'labels', inner)))
    return markup.choice(f'{key}-of', 'data set', options)


def _forest(report: Report, column: Sequence[Aggregate]) -> Markup:
    found = [estimates.estimate(line) for line in column]
    names = estimates.names(column)
    numbers = markup.table(
        ['line', f'{column[0].metric} in %', '95 % interval', 'seeds'],
        [
            [markup.name(name, 60), percent(each.mean), ' – '.join(map(percent, each.bounds)), len(line.scores)]
            for line, name, each in zip(column, names, found, strict=True)
        ],
        numbers=3,
    )
    caption = [element('b', markup.name(column[0].dataset, 60)), f', {estimates.labelled(column[0])}']
    drawings = [
        element('div', _forest_drawing(report, column, names, narrow), class_='on-narrow' if narrow else 'on-wide')
        for narrow in (False, True)
    ]
    return markup.figure(drawings, caption, numbers)


def _forest_drawing(report: Report, column: Sequence[Aggregate], names: Sequence[str], narrow: bool) -> Markup:
    """With the names on the left, or, for narrow screens, each above its interval; the style sheet shows one."""
    found = [estimates.estimate(line) for line in column]
    bounds = [100 * bound for each in found for bound in each.bounds]
    step, left = (44, 16.0) if narrow else (22, min(300.0, 30 + 6.6 * max(len(name[:44]) for name in names)))
    plot = Plot(
        f'{column[0].metric} with 95 % intervals on {markup.shown(column[0].dataset)}',
        x=Scale.covering(bounds, within=(0, 100)),
        y=Scale(-0.7, len(column) - 0.3),
        description=f'Best: {markup.shown(names[0])} with {found[0].text()}.',
        x_label=f'test {column[0].metric} in %',
        y_ticks=[(index, '' if narrow else name) for index, name in enumerate(names)],
        width=560 if narrow else 760,
        height=60 + step * len(column),
        left=left,
        right=80 if narrow else 60,
        y_down=True,
        links=True,
    )
    marks, anchor = [], estimates.anchors(report)
    for index, (line, name, each) in enumerate(zip(column, names, found, strict=True)):
        series = 0 if line.best else None
        if each.low is not None:
            low, high = each.bounds
            marks.append(plot.interval(index, 100 * low, 100 * high, series, horizontal=True))
        marks.append(
            plot.marker(
                100 * each.mean, index, 0, f'{name}\n{each.text()}', shape='diamond' if line.best else 'circle',
                hollow=bool(line.at_edge), href=f'#{anchor(line)}', data_order=index,
            )
        )  # fmt: skip
        edge = f' {AT_EDGE}' if line.at_edge else ''
        marks.append(plot.text(plot.x.high, index, percent(each.mean) + edge, dx=10, dy=4, kind='tick'))
        if narrow:
            marks.append(plot.text(plot.x.low, index, name, dx=4, dy=-12, kind='name', most=52))
    return plot.render(marks)


def _matrix(column: Sequence[Aggregate], most: int) -> Markup | None:
    shown = column[:most]
    values = estimates.adjusted_p_values(shown)
    if not values:
        return None
    names = estimates.names(shown)
    short = [markup.shortened(name, 30) for name in names]
    count = len(shown)
    # Numbers fit into the fields of a small matrix.
    across, down = (36, 24) if count <= 24 else (18, 18)
    left = min(240.0, 24 + 6.6 * max(map(len, short)))
    bottom = min(210.0, 24 + 6.4 * max(map(len, short)))
    significant = sum(value < LEVELS[0] for value in values.values())
    plot = Plot(
        f'Significance of differences on {markup.shown(column[0].dataset)}',
        x=Scale(-0.5, count - 1.5),
        y=Scale(0.5, count - 0.5),
        description=f'{significant} of {len(values)} pairs differ at 5 %.',
        x_ticks=list(enumerate(short[:-1])),
        y_ticks=list(enumerate(short))[1:],
        width=left + across * (count - 1) + 16,
        height=12 + down * (count - 1) + bottom,
        left=left,
        bottom=bottom,
        x_rotated=True,
        y_down=True,
        grid=False,
    )
    marks, rows = [], []
    for (better, worse), value in sorted(values.items()):
        points = 100 * (estimates.estimate(shown[better]).mean - estimates.estimate(shown[worse]).mean)
        marks.append(
            plot.cell(
                better - 0.5, better + 0.5, worse - 0.5, worse + 0.5, _STRENGTHS[_level(value)],
                f'{short[better]}\n{points:.1f} points better than\n{short[worse]}\n{_p(value)}',
                f'{points:.1f}' if count <= 24 else None,
            )
        )  # fmt: skip
        rows.append([markup.name(names[better], 60), markup.name(names[worse], 60), f'{points:.1f}', _p(value)])
    left_out = f'; the best {most} of {len(column)} lines' if len(column) > most else ''
    caption = [
        element('b', markup.name(column[0].dataset, 60)),
        f', {estimates.labelled(column[0])}{left_out}: {significant} of {len(values)} pairs differ at 5 %',
    ]
    numbers = markup.table(['line', 'is better than', 'by points', 'p, adjusted'], rows, numbers=2)
    return markup.figure([svg.shades(_LEGEND), plot.render(marks)], caption, numbers)


def _level(value: float) -> int:
    return sum(value < bound for bound in LEVELS)


def _p(value: float) -> str:
    return 'p < 0.001' if value < 0.001 else f'p = {value:.2g}'
