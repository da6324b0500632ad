"""Score against cost, with the lines that no other one beats at their cost or less (the Pareto front)."""

import dataclasses
import itertools
from collections.abc import Sequence

from experiments.results.aggregates import AT_EDGE, Aggregate, tokens_in_words
from experiments.results.axes import RANDOM
from experiments.results.page import estimates, label_places, markup, svg
from experiments.results.page.content import Report
from experiments.results.page.estimates import Estimate, percent
from experiments.results.page.markup import Markup, element
from experiments.results.page.scales import Scale
from experiments.results.page.svg import Plot

# Regimes of one backbone cost the same: a small shift keeps their bars apart on the logarithmic axis.
_SHIFT = 1.05
_LINE_HEIGHT = 13
# Names of backbones in one plot.
_MOST_NAMES = 12


@dataclasses.dataclass(frozen=True)
class _Cost:
    """A cost: its title, key of ``Aggregate.costs``, unit of the axis, and whether more of it is better.

    Titles and units have a place for the noun of the examples, and units one for the length of texts.
    """

    title: str
    key: str
    label: str
    unit: float = 1
    more_is_better: bool = False

    def named(self, noun: str, length: str) -> '_Cost':
        label = self.label.format(noun=noun, length=length)
        return dataclasses.replace(self, title=self.title.format(noun=noun), label=label)

    def of(self, line: Aggregate) -> float | None:
        value = line.costs.get(self.key)
        return None if value is None else value / self.unit


_COSTS = (
    _Cost('GFLOP', 'flops_per_image', 'GFLOP per {noun}{length} (a multiply-add is two)', 1e9),
    _Cost('parameters', 'parameters', 'parameters of the backbone'),
    _Cost('trainable parameters', 'trainable_parameters', 'trainable parameters'),
    _Cost('{noun}s/s', 'images_per_second', '{noun}s per second, frozen backbone', more_is_better=True),
)


def section(report: Report) -> Markup | None:
    """A plot per data set with its largest share of labels, for each cost that is known; ``None`` if none is."""
    columns = [estimates.columns(report.aggregates, dataset)[0] for dataset in report.datasets]
    costs = [cost.named(report.noun, tokens_in_words(report.aggregates)) for cost in _COSTS]
    costs = [cost for cost in costs if any(cost.of(line) for column in columns for line in column)]
    if not costs:
        return None
    # In the order of the results: that of scores would mix the values of a setting.
    lines = [line for column in columns for line in column]
    shown = {*map(id, lines)}
    kinds = list(dict.fromkeys(_kind(line) for line in report.aggregates if id(line) in shown))
    options = []
    for cost in costs:
        panels = [_panel(report, column, cost, kinds) for column in columns]
        options.append((cost.title, element('div', panels, class_='panels' if len(panels) > 1 else None)))
    intro = element(
        'p',
        'Each point is a line of the table with the largest share of its data set’s labels, and leads to it. The grey '
        'steps are the Pareto front: the lines that no other one beats at the same cost or less. Bars are 95 % '
        f'intervals over seeds and test {report.noun}s.'
        + (f' Hollow: {AT_EDGE}, at an edge of its grid.' if any(line.at_edge for line in lines) else '')
        + (' Pale: random weights.' if any(line.variant.weights == RANDOM for line in lines) else ''),
    )
    # What has no cost anywhere is a level without a mark.
    marked = {_kind(line) for line in lines for cost in costs if (cost.of(line) or 0) > 0}
    entries = [(index, kind) for index, kind in enumerate(kinds) if kind in marked]
    legend = svg.legend(entries) if len(entries) > 1 else None
    return markup.escaped([intro, legend, markup.choice('cost-of', 'cost', options)])


@dataclasses.dataclass(frozen=True, eq=False)  # arrays cannot be compared
class _Point:
    """A line in the plot: its anchor, name, score, cost, the cost at which it is drawn, and its series."""

    line: Aggregate
    anchor: str
    name: str
    score: Estimate
    cost: float
    x: float
    series: int

    @property
    def y(self) -> float:
        return 100 * self.score.mean


def _kind(line: Aggregate) -> str:
    """What has a colour and a shape."""
    return ' · '.join(filter(None, (line.head, line.method)))


def _points(report: Report, column: Sequence[Aggregate], cost: _Cost, kinds: Sequence[str]) -> list[_Point]:
    found, anchor = [], estimates.anchors(report)
    for line, name in zip(column, estimates.names(column), strict=True):
        value = cost.of(line)
        if value is not None:
            series = kinds.index(_kind(line))
            drawn = value * _SHIFT ** (series - (len(kinds) - 1) / 2)
            score = estimates.estimate(line)
            found.append(_Point(line, f'#{anchor(line)}', name, score, value, drawn, series))
    return found


def _panel(report: Report, column: Sequence[Aggregate], cost: _Cost, kinds: Sequence[str]) -> Markup:
    points = _points(report, column, cost, kinds)
    costly = [point for point in points if point.cost > 0]
    front = _front(points, cost.more_is_better)
    metric, alone = column[0].metric, len(report.datasets) == 1
    plot = Plot(
        f'{metric} against {cost.title} on {markup.shown(column[0].dataset)}',
        x=_scale([point.x for point in costly]),
        y=Scale.covering(
            [100 * bound for point in points for bound in point.score.bounds], margin=0.08, within=(0, 100)
        ),
        description=f'On the Pareto front: {", ".join(markup.shown(point.name) for point in front)}.',
        x_label=cost.label,
        y_label=f'test {metric} in %',
        x_format=_short_number,
        # Wider ones would not fit a narrow screen.
        width=600 if alone else 560,
        height=380 if alone else 360,
        links=True,
    )
    steps = _steps(plot, front, cost.more_is_better)
    marks: list[Markup] = _levels(plot, [point for point in points if point.cost <= 0])
    marks.append(plot.line(steps, None, 'front'))
    for point in costly:
        if point.score.low is not None:
            low, high = point.score.bounds
            marks.append(plot.interval(point.x, 100 * low, 100 * high, point.series))
    for point in costly:
        marks.append(
            plot.marker(
                point.x, point.y, point.series,
                f'{point.name}\n{point.score.text()}\n{_short_number(point.cost)} {cost.title}',
                size=5, hollow=bool(point.line.at_edge), href=point.anchor, data_order=f'{plot.across(point.x):.1f}',
                class_='control' if point.line.variant.weights == RANDOM else None,
            )
        )  # fmt: skip
    unknown = len(column) - len(points)
    caption = [
        element('b', markup.name(column[0].dataset, 60)), f', {estimates.labelled(column[0])}',
        f'; {unknown} of {len(column)} lines are left out, as their cost is not known' if unknown else None,
    ]  # fmt: skip
    return markup.figure(
        plot.render(marks, _names(plot, front, costly, steps)), caption, _numbers(points, front, cost, metric)
    )


def _numbers(points: Sequence[_Point], front: Sequence[_Point], cost: _Cost, metric: str) -> Markup:
    rows = [
        [
            markup.name(point.name, 60), f'{point.cost:,.6g}', percent(point.score.mean),
            ' – '.join(map(percent, point.score.bounds)), 'yes' if point in front else '',
        ]
        for point in points
    ]  # fmt: skip
    return markup.table(['line', cost.title, f'{metric} in %', '95 % interval', 'on the front'], rows, numbers=4)


def _front(points: Sequence[_Point], more_is_better: bool) -> list[_Point]:
    """The points that no other one beats at the same cost or less, the cheapest first."""
    front: list[_Point] = []
    for point in sorted(points, key=lambda each: (-each.cost if more_is_better else each.cost, -each.y)):
        if not front or point.y > front[-1].y:
            front.append(point)
    return front


def _steps(plot: Plot, front: Sequence[_Point], more_is_better: bool) -> list[tuple[float, float]]:
    """The corners of the front."""
    corners: list[tuple[float, float]] = []
    for point in front:
        corners += [(point.x, corners[-1][1])] if corners else []
        corners.append((point.x, point.y))
    return [*corners, (plot.x.low if more_is_better else plot.x.high, corners[-1][1])] if corners else []


def _levels(plot: Plot, points: Sequence[_Point]) -> list[Markup]:
    """Lines without cost, as raw pixels are, have no place on a logarithmic axis: each is a level across the plot."""
    marks, taken = [], {'left': float('-inf'), 'right': float('-inf')}
    for point in sorted(points, key=lambda each: -each.y):
        marks.append(plot.line([(plot.x.low, point.y), (plot.x.high, point.y)], None, 'dashed front'))
        # Names of close levels stand at both ends; where neither has room, the numbers of the figure have the name.
        down = plot.down(point.y)
        side = next((side for side, last in taken.items() if down - last >= _LINE_HEIGHT), None)
        if side is None:
            continue
        taken[side] = down
        x, dx, kind = (plot.x.low, 6, 'name tick') if side == 'left' else (plot.x.high, -6, 'name tick end')
        marks.append(plot.text(x, point.y, f'{point.name}, no cost', dx=dx, dy=-4, kind=kind))
    return marks


def _names(
    plot: Plot, front: Sequence[_Point], points: Sequence[_Point], steps: Sequence[tuple[float, float]]
) -> list[Markup]:
    """Names of the backbones, those on the front first."""
    places = [(plot.across(point.x), plot.down(point.y)) for point in points]
    corners = [(plot.across(x), plot.down(y)) for x, y in steps]
    obstacles = [(x - 5, y - 5, x + 5, y + 5) for x, y in places]
    for point in points:
        x, low, high = plot.across(point.x), *(plot.down(100 * bound) for bound in point.score.bounds)
        obstacles.append((x - 3, high, x + 3, low))
    obstacles += [
        (min(a, c) - 1, min(b, d) - 1, max(a, c) + 1, max(b, d) + 1) for (a, b), (c, d) in itertools.pairwise(corners)
    ]
    # A level has a name already. Beyond the front, each backbone that it lacks is named at its best point.
    front = [point for point in front if point.cost > 0]
    named = {point.line.variant.backbone for point in front}
    for point in sorted(points, key=lambda each: -each.y):
        if point.line.variant.backbone not in named and len(named) < _MOST_NAMES:
            named.add(point.line.variant.backbone)
            front.append(point)
    marks = [(plot.across(point.x), plot.down(point.y)) for point in front]
    texts = [markup.shortened(point.line.variant.backbone, 22) for point in front]
    frame = (plot.left, 2.0, plot.width - 4, plot.height - plot.bottom)
    found = label_places.beside(marks, texts, obstacles, frame)
    return [
        plot.text(point.x, point.y, text, dx=place[0], dy=place[1], kind='name')
        for point, text, place in zip(front, texts, found, strict=True)
        if place
    ]


def _scale(costs: Sequence[float]) -> Scale:
    """At least a decade, so that about equal costs look so."""
    scale = Scale.covering(costs, 'log', 0.08)
    if scale.high >= 10 * scale.low:
        return scale
    middle, half = (scale.low * scale.high) ** 0.5, 10**0.5
    return Scale(middle / half, middle * half, 'log')


def _short_number(value: float) -> str:
    for size, letter in ((1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
        if value >= size:
            return f'{value / size:.3g} {letter}'
    return f'{value:.3g}'
