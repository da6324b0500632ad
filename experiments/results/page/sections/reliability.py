"""Reliability diagrams: how often predictions of each confidence are right (DeGroot and Fienberg 1983)."""

import dataclasses
import itertools

import numpy as np

from experiments.results import calibration
from experiments.results.aggregates import Aggregate
from experiments.results.calibration import Reliability
from experiments.results.page import kept, markup
from experiments.results.page.content import Report
from experiments.results.page.estimates import percent
from experiments.results.page.markup import Markup, element
from experiments.results.page.scales import Scale
from experiments.results.page.svg import Plot

_MOST_LINES = 6


def section(report: Report) -> Markup | None:
    """Diagrams before and after temperature scaling; ``None`` if no line has probabilities."""
    options = []
    for place, dataset in enumerate(report.datasets):
        shown, note = kept.lines(report, dataset, _MOST_LINES)
        panels = [
            (name, panel)
            for name, line in zip(kept.names(shown), shown, strict=True)
            if (panel := _panel(line)) is not None
        ]
        if panels:
            extra = element('p', note, class_='note') if note else None
            options.append((dataset, markup.escaped([markup.choice(f'reliability-{place}', 'line', panels), extra])))
    if not options:
        return None
    intro = element(
        'p',
        f'Test {report.noun}s by the probability of their predicted class, in bins of equal width. Of a calibrated '
        'model, as many are right as it is confident: bars end on the diagonal. Below them, how many '
        f'{report.noun}s each bin has, on a logarithmic scale. ECE is the mean distance from the diagonal over the '
        f'{report.noun}s (Guo et al. 2017).',
    )
    return markup.escaped([intro, markup.choice('reliability-of', 'data set', options)])


@dataclasses.dataclass(frozen=True)
class Diagram:
    """The reliability of a line.

    Attributes:
        pooled: the predictions of all seeds together, in bins.
        errors: the expected calibration error of each seed. Their mean is that of the tables; errors of seeds that
            point to different sides cancel in the bins, but not in it.
    """

    pooled: Reliability
    errors: tuple[float, ...]

    @property
    def error(self) -> float:
        """The expected calibration error, averaged over the seeds."""
        return float(np.mean(self.errors))


def bins(line: Aggregate) -> tuple[Diagram | None, Diagram | None, list[float]]:
    """The diagrams of a line: before and after temperature scaling, and the temperature of each seed.

    ``None`` where there are no probabilities, or no scores of the validation split to fit a temperature on.
    """
    before, after, targets, scaled_targets, temperatures = [], [], [], [], []
    for classes, _, each in kept.classified(line):
        own = kept.probabilities(line, each)
        if own is not None:
            before.append(own)
            targets.append(classes)
        held_out = each.validation
        if each.logits is None or each.classes is not None or held_out is None or held_out.targets is None:
            continue
        kind, held_out_scores = kept.kind(line, each), np.asarray(held_out.logits, np.float32)
        if not calibration.are_numbers(held_out_scores):
            continue
        fitted = calibration.temperature(held_out_scores, held_out.targets, kind)
        scaled = calibration.probabilities(np.asarray(each.logits, np.float32), kind, fitted)
        if scaled is None:
            continue
        after.append(scaled)
        scaled_targets.append(classes)
        temperatures.append(fitted)
    return _together(before, targets), _together(after, scaled_targets), temperatures


def _together(probabilities: list[np.ndarray], targets: list[np.ndarray]) -> Diagram | None:
    if not probabilities:
        return None
    errors = tuple(itertools.starmap(calibration.expected_calibration_error, zip(probabilities, targets, strict=True)))
    return Diagram(calibration.reliability(np.concatenate(probabilities), np.concatenate(targets)), errors)


def _panel(line: Aggregate) -> Markup | None:
    before, after, temperatures = bins(line)
    figures = []
    if before is not None:
        figures.append(_figure(before, 'as predicted', line.noun))
    if after is not None:
        low, high = min(temperatures), max(temperatures)
        shown = f'{low:.2f}' if f'{low:.2f}' == f'{high:.2f}' else f'{low:.2f} to {high:.2f}'
        figures.append(_figure(after, f'after temperature scaling, T = {shown}', line.noun))
    return element('div', figures, class_='panels' if len(figures) > 1 else None) if figures else None


def _figure(diagram: Diagram, what: str, noun: str) -> Markup:
    found = diagram.pooled
    edges = np.linspace(0, 1, len(found.counts) + 1)
    total = int(found.counts.sum())
    plot = Plot(
        f'Accuracy by confidence, {what}',
        x=Scale(0, 1), y=Scale(0, 1),
        description=f'Expected calibration error {percent(diagram.error)} %; {total:,} predictions.',
        y_label='accuracy in %', width=440, height=300, bottom=12, x_ticks=(),
        x_format=lambda value: f'{100 * value:.0f}', y_format=lambda value: f'{100 * value:.0f}',
    )  # fmt: skip
    bars, rows = [], []
    for low, high, count, confidence, accuracy in zip(
        edges, edges[1:], found.counts, found.confidence, found.accuracy, strict=False
    ):
        if not count:
            continue
        told = f'{100 * low:.0f} to {100 * high:.0f} % confident: {int(count):,} {noun}s, {percent(accuracy)} % right'
        bars.append(plot.cell(low, high, 0, accuracy, 0.55, told, kind='series0'))
        # From the end of the bar to what would be calibrated.
        bars.append(plot.interval(confidence, *sorted((confidence, accuracy)), series=1, cap=0))
        bars.append(plot.marker(confidence, accuracy, 1, told, size=3.5, shape='circle'))
        rows.append([f'{100 * low:.0f} – {100 * high:.0f}', f'{int(count):,}', percent(confidence), percent(accuracy)])
    most = int(found.counts.max())
    counts = Plot(
        f'{noun.capitalize()}s by confidence, {what}', x=Scale(0, 1), y=Scale(0.7, 1.2 * most, 'log'),
        x_label='confidence in %', y_label=f'{noun}s', width=440, height=140, top=4,
        x_format=lambda value: f'{100 * value:.0f}', y_format=lambda value: f'{value:,.0f}',
    )  # fmt: skip
    columns = [
        counts.cell(low, high, 0.7, count, 0.55, f'{int(count):,} {noun}s', kind='neutral')
        for low, high, count in zip(edges, edges[1:], found.counts, strict=False)
        if count
    ]
    drawn = [
        plot.render(plot.line([(0, 0), (1, 1)], series=None, kind='dashed'), bars),
        counts.render(columns),
    ]
    seeds = len(diagram.errors)
    of_seeds = f' (mean of {seeds} seeds, whose predictions the bins have together)' if seeds > 1 else ''
    caption = [element('b', f'ECE {percent(diagram.error)} %'), f' {what}{of_seeds}']
    table = markup.table(['confidence in %', f'{noun}s', 'mean confidence', 'right in %'], rows, numbers=3)
    return markup.figure(drawn, caption, table)
