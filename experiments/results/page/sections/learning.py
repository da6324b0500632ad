"""Learning curves: training loss and validation score of every training over its epochs."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from experiments.results import curves, metric_names, shards
from experiments.results.axes import settings_in_words
from experiments.results.curves import Curve
from experiments.results.page import markup, svg
from experiments.results.page.content import Report
from experiments.results.page.markup import Markup, element
from experiments.results.page.scales import Scale
from experiments.results.page.svg import COLOURS, Plot
from experiments.results.rows import Row

# Of a data set; further trainings are left out, those that were not selected first.
_MOST = 60
# Evaluations of a training that are drawn.
_MOST_POINTS = 150


@dataclasses.dataclass(frozen=True)
class _Training:
    """A training that a row came from, or one at a learning rate that was not selected for it."""

    curve: Curve
    row: Row
    workdir: Path
    selected: bool
    keep_best: bool

    @property
    def parts(self) -> dict[str, str]:
        """What tells it from others, in words."""
        cell, config = self.row.cell, self.row.config.get('training', self.row.config)
        share = f'{100 * cell.fraction:g} % of the labels'
        rate = self.curve.directory.name if self.curve.cell else config.get('learning_rate', '')
        return {
            'directory': shards.whole(self.workdir.resolve()).name,
            'backbone': cell.variant.backbone,
            'weights': cell.variant.weights,
            'head': cell.head,
            'regime': cell.regime,
            'settings': ' · '.join(settings_in_words(each for each in cell.settings if each[0] != 'shots')),
            'labels': f'{cell.images_per_class} per class' if cell.images_per_class else share,
            'rate': f'learning rate {rate}',
            'seed': f'seed {cell.seed}',
        }


def section(report: Report) -> Markup | None:
    """Both curves for each data set; ``None`` if nothing was trained with more than one evaluation."""
    options, unselected = [], False
    for dataset in report.datasets:
        rows = [member for line in report.aggregates if line.dataset == dataset for member in line.members]
        found = _trainings(rows)
        if any(len(training.curve.epochs) > 1 for training in found):
            options.append((dataset, _figures(found)))
            unselected |= any(not training.selected for training in found)
    if not options:
        return None
    intro = element(
        'p',
        'Means of the training loss over each epoch, and the score on the validation split after it. A larger mark is '
        'the epoch that was kept.' + ' Grey: at learning rates that were not selected.' * unselected,
    )
    return markup.escaped([intro, markup.choice('learning-of', 'data set', options)])


def _trainings(members: Sequence[tuple[Path, Row]]) -> list[_Training]:
    read: dict[Path, list[Curve]] = {}
    found = []
    for workdir, row in members:
        if workdir not in read:
            try:
                read[workdir] = curves.read(workdir)
            except OSError:
                read[workdir] = []
        config = row.config.get('training', row.config)
        for curve in read[workdir]:
            if curve.cell in ('', row.key) and curve.epochs:
                selected = curves.selected(curve, [row]) is not None
                found.append(_Training(curve, row, workdir, selected, bool(config.get('keep_best', False))))
    found.sort(key=lambda training: (not training.selected, -training.row.score))
    return found[:_MOST]


def _figures(trainings: Sequence[_Training]) -> Markup:
    names = _names(trainings)
    # Seeds of one setting have one colour, whatever rate was selected for each.
    kinds = _names(trainings, without=frozenset({'seed', 'rate'}))
    groups = list(dict.fromkeys(kind for kind, each in zip(kinds, trainings, strict=True) if each.selected))
    colours = {kind: place if place < COLOURS else None for place, kind in enumerate(groups)}
    series = [colours[kind] if each.selected else None for kind, each in zip(kinds, trainings, strict=True)]
    legend = svg.legend([(place, name or 'the training') for name, place in colours.items() if place is not None])
    rest = len(groups) - COLOURS
    metric = trainings[0].row.primary
    losses = [_points(each.curve, each.curve.train.get('loss', ())) for each in trainings]
    scores = [_points(each.curve, each.curve.validation.get(metric, ())) for each in trainings]
    share = metric not in metric_names.NO_SHARES
    panels = [
        _figure('training loss', losses, trainings, names, series, share=False),
        _figure(f'validation {metric}', scores, trainings, names, series, share),
    ]
    note = element('p', f'Thin: {rest} more.', class_='note') if rest > 0 else None
    return markup.escaped([legend if len(groups) > 1 else None, note, element('div', panels, class_='panels')])


def _names(trainings: Sequence[_Training], without: frozenset[str] = frozenset()) -> list[str]:
    """What the selected trainings do not have in common; the learning rate of one that was not selected, too."""
    parts = [training.parts for training in trainings]
    chosen = [each for each, training in zip(parts, trainings, strict=True) if training.selected] or parts
    differing = [key for key in parts[0] if len({each[key] for each in chosen}) > 1 and key not in without]
    pairs = {(each['backbone'], each['weights']) for each in chosen}
    if len(pairs) == len({backbone for backbone, _ in pairs}) and 'weights' in differing:
        differing.remove('weights')  # the backbone tells them
    others = [key for key in differing if key != 'directory']
    if len({tuple(each[key] for key in others) for each in chosen}) == len(
        {tuple(each[key] for key in differing) for each in chosen}
    ):
        differing = others  # nor is a directory needed where something else tells them
    return [
        ' · '.join(
            each[key] for key in each if each[key] and (key in differing or (key == 'rate' and not training.selected))
        )
        for each, training in zip(parts, trainings, strict=True)
    ]


def _points(curve: Curve, values: Sequence[float | None]) -> list[tuple[float, float, int]]:
    """Epoch, value and number of each evaluation that has one."""
    found = [
        (epoch, value, index)
        for index, (epoch, value) in enumerate(zip(curve.epochs, values, strict=False))
        if value is not None
    ]
    step = -(-len(found) // _MOST_POINTS)
    return found[::-1][:: step or 1][::-1]


def _figure(
    what: str,
    points: Sequence[Sequence[tuple[float, float, int]]],
    trainings: Sequence[_Training],
    names: Sequence[str],
    series: Sequence[int | None],
    share: bool,
) -> Markup | None:
    values = [value for each in points for _, value, _ in each]
    if not values:
        return None
    # A loss that falls by more than a power of ten would hide its end on a linear scale.
    kind = 'log' if not share and min(values) > 0 and max(values) > 10 * min(values) else 'linear'
    factor = 100 if share else 1
    within = (0.0, 100.0) if share else (float('-inf'), float('inf'))
    last = max(each.curve.epochs[-1] for each in trainings)
    best = max(range(len(trainings)), key=lambda index: trainings[index].selected * trainings[index].row.score)
    plot = Plot(
        f'{what} over epochs', x=Scale(0, last),
        y=Scale.covering([factor * value for value in values], kind, within=within),
        description=f'The training with the best test score is {markup.shown(names[best]) or "the only one"}.',
        x_label='epochs', y_label=f'{what} in %' if share else f'{what}{" (logarithmic)" if kind == "log" else ""}',
        width=540, height=340,
    )  # fmt: skip
    under, over, rows = [], [], []
    for index in reversed(range(len(trainings))):
        training, line, place, name = trainings[index], points[index], series[index], names[index]
        marks = over if place is not None else under
        marks.append(plot.line([(x, factor * y) for x, y, _ in line], place, '' if training.selected else 'thin'))
        kept = training.curve.kept(training.row.primary, training.keep_best)
        for x, y, number in line if training.selected else ():
            if place is None:
                break
            shown = f'{factor * y:.3g}' if not share else f'{factor * y:.1f} %'
            is_kept = number == kept
            title = f'{name}\nepoch {x:g}: {shown}{", kept" if is_kept else ""}'.lstrip('\n')
            marks.append(plot.marker(x, factor * y, place, title, size=5 if is_kept else 2.2))
        if line and training.selected:
            x, y, _ = line[-1]
            epoch = f'{training.curve.epochs[kept]:g}' if kept is not None else '–'
            rows.append([markup.name(name or 'the training'), f'{x:g}', f'{factor * y:.4g}', epoch])
    table = markup.table(['training', 'epochs', f'last {what}', 'epoch kept'], rows[::-1], numbers=3)
    return markup.figure(plot.render(under, over), element('b', what[0].upper() + what[1:]), table)
