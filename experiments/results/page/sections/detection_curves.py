"""Precision over recall of detectors at an IoU of 0.5, of each class and on average."""

import shlex
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from experiments.data.truth import Boxes
from experiments.results import precision_recall, shards
from experiments.results.aggregates import Aggregate
from experiments.results.detected_boxes import DetectedBoxes
from experiments.results.page import kept, markup, svg
from experiments.results.page.content import Report
from experiments.results.page.estimates import percent
from experiments.results.page.markup import Child, Markup, element
from experiments.results.page.scales import Scale
from experiments.results.page.svg import COLOURS, Plot

_MOST_LINES = 4
# Detections of all lines together: matching them again takes about a second for fifty thousand.
_MOST_DETECTIONS = 100_000
_TRUTH = ('boxes', 'classes', 'crowd', 'difficult', 'area', 'sizes')
_FOUND = ('boxes', 'scores', 'labels', 'found')
_ARRAYS = (*(f'truth_{name}' for name in _TRUTH), *_FOUND)
_RECALLS = np.linspace(0, 1, 101)


def section(report: Report) -> Markup | None:
    """The curves of the best lines of each data set; ``None`` where nothing was detected."""
    options, left = [], _MOST_DETECTIONS
    for place, dataset in enumerate(report.datasets):
        shown, note = kept.lines(report, dataset, _MOST_LINES)
        panels = []
        for name, line in zip(kept.names(shown), shown, strict=True):
            arrays = next(kept.arrays(line, _ARRAYS), None)
            if arrays is None:
                continue
            count = int(np.count_nonzero(arrays['found']))
            panel = _panel(*curves(line, arrays)) if count <= left else _too_many(line, count)
            if panel is not None:
                panels.append((name, panel))
                left -= min(count, left)
        if panels:
            extra = element('p', note, class_='note') if note else None
            options.append((dataset, markup.escaped([markup.choice(f'precision-{place}', 'line', panels), extra])))
    if not options:
        return None
    intro = element(
        'p',
        'A detection is right if it overlaps a free object of its class with an IoU of at least 0.5. Precision is the '
        'highest at this recall or a larger one, as in COCO’s evaluation; the area under a curve is AP50. With the '
        'first seed.',
    )
    return markup.escaped([intro, markup.choice('precision-of', 'data set', options)])


def curves(line: Aggregate, arrays: Mapping[str, np.ndarray]) -> tuple[list[str], Float[np.ndarray, '101 classes']]:
    """Names of the classes with objects, and their precision at 101 recalls.

    Args:
        line: says the names.
        arrays: what is kept of its detections and objects.
    """
    truth = Boxes(**{name: arrays[f'truth_{name}'] for name in _TRUTH})
    detections = DetectedBoxes(*(arrays[name] for name in _FOUND))
    classes = kept.classes(line, int(max(truth.classes.max(), detections.classes.max(), 0)) + 1)
    found = precision_recall.precision_recall(truth, detections, classes)
    points = [curve.interpolated() for curve in found.values()]
    return list(found), np.stack(points, -1) if points else np.zeros((len(_RECALLS), 0))


def _too_many(line: Aggregate, count: int) -> Markup:
    workdir = shards.whole(line.members[0][0])
    command = f'python -m experiments.evaluate --workdir {shlex.quote(str(workdir))}'
    return element(
        'p', f'{count:,} detections are too many to match them again for a page; the classes in numbers: ',
        element('code', command),
    )  # fmt: skip


def _panel(names: Sequence[str], precision: Float[np.ndarray, '101 classes']) -> Markup | None:
    if not names:
        return None
    areas = precision.mean(0)
    order = np.argsort(-areas, kind='stable')
    # The best and the worst classes have a colour, where there are too many for all.
    coloured = list(order) if len(order) <= COLOURS else [*order[: COLOURS // 2], *order[-COLOURS // 2 :]]
    plot = Plot(
        'Precision over recall at an IoU of 0.5', x=Scale(0, 1), y=Scale(0, 1.02),
        description=f'AP50 is {percent(areas.mean())} %; highest for {markup.shown(names[order[0]])}, lowest for '
        f'{markup.shown(names[order[-1]])}.',
        x_label='recall in %', y_label='precision in %', width=600, height=400,
        x_format=lambda value: f'{100 * value:.0f}', y_format=lambda value: f'{100 * value:.0f}',
    )  # fmt: skip
    grey = [plot.line(_points(precision[:, index]), None, 'thin') for index in order if index not in coloured]
    lines = [plot.line(_points(precision[:, index]), place) for place, index in enumerate(coloured)]
    marks = [
        plot.marker(recall, value, place, f'{names[index]}: precision {percent(value)} % at recall {recall:.0%}',
                    size=3.5)
        for place, index in enumerate(coloured)
        for recall, value in zip(_RECALLS[10::20], precision[10::20, index], strict=True)
        if value > 0
    ]  # fmt: skip
    mean = plot.line(_points(precision.mean(1)), None, 'average') if len(names) > 1 else None
    legend = svg.legend(
        [(place, f'{names[index]}, AP50 {percent(areas[index])}') for place, index in enumerate(coloured)]
    )
    rest = len(order) - len(coloured)
    told: list[Child] = [element('b', f'AP50 {percent(areas.mean())} %')]
    told += [' Dashed: the mean over the classes.' if len(names) > 1 else '']
    told += [f' Grey: {rest} further classes.' if rest else '']
    rows = [
        [markup.name(names[index], 40), percent(areas[index]), *map(percent, precision[[20, 50, 80], index])]
        for index in order
    ]
    table = markup.table(['class', 'AP50', *(f'precision at {recall} %' for recall in (20, 50, 80))], rows, numbers=4)
    return markup.escaped([legend, markup.figure(plot.render(grey, lines, mean, marks), told, table)])


def _points(precision: Float[np.ndarray, ' recalls']) -> Sequence[tuple[float, float]]:
    """Where the curve turns, which is all that its path needs; it ends at the highest recall."""
    reached = np.flatnonzero(precision > 0)
    end = int(reached[-1]) if len(reached) else 0
    turns = [
        place
        for place in range(end + 1)
        if place in (0, end) or not precision[place - 1] == precision[place] == precision[place + 1]
    ]
    points = [(float(_RECALLS[place]), float(precision[place])) for place in turns]
    return [*points, (points[-1][0], 0.0)] if end < len(precision) - 1 else points
