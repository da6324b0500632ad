"""Scores of corrupted test images: over the severities, and of each corruption."""

from collections.abc import Sequence

from experiments.results import robustness
from experiments.results.aggregates import Aggregate
from experiments.results.page import estimates, kept, markup, svg
from experiments.results.page.content import Report
from experiments.results.page.estimates import percent
from experiments.results.page.markup import Child, Markup, element
from experiments.results.page.scales import Scale
from experiments.results.page.svg import COLOURS, Plot


def section(report: Report) -> Markup | None:
    """Curves of the best lines of each data set, and the corruptions of each; ``None`` where none was asked for."""
    options = []
    for place, dataset in enumerate(report.datasets):
        lines = [each for each in estimates.columns(report.aggregates, dataset)[0] if each.robustness][:COLOURS]
        if lines:
            names = kept.names(lines)
            panels = [(name, _matrix(line)) for name, line in zip(names, lines, strict=True)]
            choice = markup.choice(f'corruptions-{place}', 'line', panels)
            options.append((dataset, markup.escaped([_curves(lines, names), choice])))
    if not options:
        return None
    intro = element(
        'p',
        f'The score on the test {report.noun}s with each corruption, from severity 1 to 5 (Hendrycks and Dietterich '
        f'2019); severity 0 are the {report.noun}s as they are. The curves are means over the corruptions.',
    )
    return markup.escaped([intro, markup.choice('corruptions-of', 'data set', options)])


def _curve(line: Aggregate) -> list[tuple[int, float]]:
    """Severity and score."""
    return [(0, estimates.estimate(line).mean), *sorted(robustness.at_severity(line.robustness).items())]


def _curves(lines: Sequence[Aggregate], names: Sequence[str]) -> Markup:
    curves = [_curve(line) for line in lines]
    metric, last = lines[0].metric, max(severity for curve in curves for severity, _ in curve)
    steepest = min(range(len(lines)), key=lambda index: curves[index][-1][1] - curves[index][0][1])
    plot = Plot(
        f'{metric} over severities', x=Scale(-0.15, last + 0.15),
        y=Scale.covering([100 * score for curve in curves for _, score in curve], within=(0, 100)),
        description=f'It falls most for {markup.shown(names[steepest])}.',
        x_label='severity', y_label=f'test {metric} in %', width=600, height=360,
        x_ticks=[(severity, str(severity)) for severity in range(last + 1)],
    )  # fmt: skip
    drawn = [plot.line([(x, 100 * y) for x, y in curve], series) for series, curve in enumerate(curves)]
    marks = [
        plot.marker(x, 100 * y, series, f'{names[series]}\nseverity {x}: {percent(y)} %')
        for series, curve in enumerate(curves)
        for x, y in curve
    ]
    rows = []
    for name, curve in zip(names, curves, strict=True):
        scores = dict(curve)
        rows.append([markup.name(name), *(percent(scores.get(severity)) for severity in range(last + 1))])
    table = markup.table(['line', *(f'severity {severity}' for severity in range(last + 1))], rows, numbers=last + 1)
    legend = svg.legend(list(enumerate(names))) if len(names) > 1 else None
    return markup.escaped([legend, markup.figure(plot.render(drawn, marks), f'Mean {metric} over corruptions', table)])


def _matrix(line: Aggregate) -> Markup:
    """A field per corruption and severity; its colour is the share of the clean score that is lost."""
    clean = estimates.estimate(line).mean
    means = robustness.of_corruption(line.robustness)
    severities = sorted({severity for each in line.robustness.values() for severity in each})
    heads = [element('th', str(severity), scope='col') for severity in severities]
    head = element('tr', element('td', 'severity', class_='corner'), heads, element('th', 'mean', scope='col'))
    rows = []
    for name in sorted(means, key=lambda name: -means[name]):
        cells: list[Child] = [element('th', markup.name(name.replace('_', ' ')), scope='row')]
        for score in (*(line.robustness[name].get(severity) for severity in severities), means[name]):
            lost = 0.0 if score is None or clean <= 0 else min(max(1 - score / clean, 0.0), 1.0)
            # The style sheet is made for the fields of confusion matrices, of which few have more than 40 %.
            strong = 'strong' if lost > 0.6 else None
            cells.append(element('td', percent(score), style=f'--s:{0.4 * lost:.2f}', class_=strong))
        rows.append(element('tr', cells))
    table = element('table', element('thead', head), element('tbody', rows), class_='matrix wide')
    note = element(
        'p', f'Of {percent(clean)} % without corruption; the colour is the share that is lost.', class_='note'
    )
    scrolling = element('div', table, class_='scroll', tabindex=0, role='region', aria_label='Scores of corruptions')
    return element('div', scrolling, note)
