"""Ranks of lines over data sets, and family against family."""

from collections.abc import Sequence

from experiments.results import families, family_tables
from experiments.results.families import AcrossDatasets, Comparison
from experiments.results.family_tables import TextTable
from experiments.results.page import markup, svg
from experiments.results.page.content import Report
from experiments.results.page.estimates import percent
from experiments.results.page.markup import Child, Markup, element
from experiments.results.page.scales import Scale
from experiments.results.page.svg import Plot

# Pixels: height of a data set's row; from its middle down to its points; half of the distance between them.
_STEP, _DOWN, _APART = 42, 8, 5


def section(report: Report) -> Markup | None:
    """Families first, then the lines of each regime; ``None`` unless a regime has several data sets."""
    found = families.across_datasets(report.aggregates)
    if found is None:
        return None
    parts: list[Child] = []
    if found.comparisons:
        too_few = family_tables.too_few(found.comparisons)
        parts += [
            element('h3', 'Family against family'),
            element('p', too_few) if too_few else None,
            _table(family_tables.comparisons(found.comparisons), 'Families of backbones over data sets'),
            element('p', family_tables.note_on_comparisons(found.comparisons), class_='note'),
        ]
    left_out = family_tables.left_out(found)
    parts += [element('p', left_out, class_='note')] if left_out else []
    if found.comparisons:
        parts += [_figures(found), element('h3', 'Lines')]
    parts.append(element('p', family_tables.ABOUT_LINES))
    options = []
    for ranking in found.rankings:
        table = _table(family_tables.lines(ranking), f'Ranks of {ranking.name}') if ranking.lines else None
        options.append((ranking.name, [table, element('p', family_tables.note_on_lines(ranking), class_='note')]))
    parts.append(markup.choice('across-lines', 'regime', options))
    return markup.escaped(parts)


def _table(table: TextTable, label: str) -> Markup:
    texts = len(table.labels)
    rows = [[*(markup.name(text, 60) for text in row[:texts]), *row[texts:]] for row in table.rows]
    return markup.table([*table.labels, *table.numbers], rows, numbers=len(table.numbers), aria_label=label)


def _figures(found: AcrossDatasets) -> Markup:
    """A choice of regime, settings and pair of families; pretrained and random weights are in one figure."""
    groups: dict[tuple[str, str], list[Comparison]] = {}
    for each in found.comparisons:
        groups.setdefault((each.kind.method, family_tables.versus(each)), []).append(each)
    several = len({pair for _, pair in groups}) > 1
    options = [
        (f'{method}, {pair}' if several else method, _figure(method, members))
        for (method, pair), members in groups.items()
    ]
    return markup.choice('across-families', 'regime', options)


def _figure(method: str, found: Sequence[Comparison]) -> Markup:
    """The difference on each data set, largest first, as points left and right of zero."""
    one, other = found[0].families
    datasets = found[0].datasets
    order = sorted(range(len(datasets)), key=lambda index: -found[0].differences[index])
    most = max(abs(float(value)) for each in found for value in each.differences) or 1.0
    finding = ' '.join(map(_finding, found))
    plot = Plot(
        f'{family_tables.versus(found[0])} on {len(datasets)} data sets, {method}',
        x=Scale(-1.15 * most, 1.15 * most),
        y=Scale(-0.5, len(datasets) - 0.5),
        description=finding,
        x_label=f'difference of logits, {family_tables.versus(found[0])}',
        y_ticks=[(place - 0.5, '') for place in range(1, len(datasets))],
        x_format=lambda value: f'{value:g}'.replace('-', '−'),
        width=600,
        height=30 + 50 + _STEP * len(datasets),
        left=16,
        right=16,
        top=30,
        bottom=50,
        y_down=True,
    )
    top = plot.y.low
    marks: list[Child] = [
        plot.line([(0, top), (0, plot.y.high)], None, 'front'),
        plot.text(0, top, f'{other} better', dx=-12, dy=-10, kind='label end'),
        plot.text(0, top, f'{one} better', dx=12, dy=-10, kind='label'),
    ]
    for place, index in enumerate(order):
        marks.append(plot.text(plot.x.low, place, datasets[index], dx=4, dy=-7, kind='name'))
        for number, each in enumerate(found):
            series, difference = _series(each), float(each.differences[index])
            down = place + (_DOWN + (2 * number - len(found) + 1) * _APART) / _STEP
            marks.append(plot.line([(0, down), (difference, down)], series))
            marks.append(plot.marker(difference, down, series, _words(each, index)))
    header = ['data set', *(f'{family}, {each.kind.weights}' for each in found for family in (one, other))]
    rows = []
    for index in order:
        scores = [family_tables.signed(float(each.differences[index])) for each in found]
        rows.append([markup.name(datasets[index], 60), *(s for each in found for s in _scores(each, index)), *scores])
    header += [f'difference, {each.kind.weights}' for each in found]
    numbers = markup.table(header, rows, numbers=len(header) - 1)
    legend = svg.legend([(_series(each), f'{each.kind.weights} weights') for each in found])
    caption = [
        element('b', markup.name(method, 60)),
        f': mean log odds of {one} less those of {other} on each data set, with a permutation test over data sets. ',
        finding,
    ]
    return markup.figure([legend if len(found) > 1 else None, plot.render(marks)], caption, numbers)


def _series(comparison: Comparison) -> int:
    """The same colour and shape in all figures."""
    return int(comparison.kind.is_random)


def _finding(comparison: Comparison) -> str:
    """On how many data sets each family is better, and whether that may be chance."""
    (one, other), (wins, losses) = comparison.families, comparison.wins
    text = f'{comparison.kind.weights.capitalize()}: {one} is better on {wins}, {other} on {losses} of '
    text += f'{len(comparison.datasets)} data sets'
    if not comparison.can_be_significant:
        return f'{text}, too few for significance.'
    value = family_tables.p_text(comparison.p_adjusted)
    return f'{text}, adjusted p {value if value.startswith("<") else f"= {value}"}.'


def _scores(comparison: Comparison, index: int) -> list[str]:
    """The score of each family on a data set: the mean over its lines, taken on the logit scale."""
    return [percent(families.statistics.share_of_logit(float(logit))) for logit in comparison.logits[:, index]]


def _words(comparison: Comparison, index: int) -> str:
    scores = _scores(comparison, index)
    return '\n'.join(
        [
            f'{markup.shown(comparison.datasets[index])}, {comparison.kind.weights}',
            *(f'{family}: {score} %' for family, score in zip(comparison.families, scores, strict=True)),
            f'difference of logits {family_tables.signed(float(comparison.differences[index]))}',
        ]
    )
