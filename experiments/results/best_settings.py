"""What a work directory says at a glance: its best setting on each data set, and its scores over the labels.

Settings are compared as in the table of its report: by their means over the seeds.
"""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Literal

from experiments.results.axes import settings_in_words
from experiments.results.lines import Line
from experiments.results.rows import Row


@dataclasses.dataclass(frozen=True)
class Best:
    """The best setting of a run on one data set, selected on validation.

    Attributes:
        dataset: name of the data set.
        metric: the primary metric.
        validation, test: means of its values over the seeds; ``None`` where one is not known.
        label: what gave it, such as backbone and regime.
        seeds: how many the means are over.
    """

    dataset: str
    metric: str
    validation: float | None
    test: float | None
    label: str
    seeds: int = 1


def best(lines: Sequence[Line]) -> tuple[Best, ...]:
    """The line of each data set with the highest validation score, in the order of the lines."""
    by_dataset: dict[str, list[Line]] = {}
    for line in lines:
        by_dataset.setdefault(line.dataset, []).append(line)
    return tuple(_best(max(members, key=_order)) for members in by_dataset.values())


def over_labels(lines: Sequence[Line]) -> tuple[Literal['fractions', 'shots'], tuple[tuple[float, float], ...]]:
    """The test score of the best setting with each share of the labels, of the first data set.

    Returns:
        What x is (shots wherever there are some), and x and y; no points where there is a single share.
    """
    of_first = [line for line in lines if line.dataset == lines[0].dataset]
    of_shots = [line for line in of_first if line.shots]
    by_share: dict[float, list[Line]] = {}
    for line in of_shots or of_first:
        by_share.setdefault(line.shots or line.fraction, []).append(line)
    points = sorted((x, _test(max(members, key=_order))) for x, members in by_share.items())
    return 'shots' if of_shots else 'fractions', tuple(points) if len(points) > 1 else ()


def _best(line: Line) -> Best:
    metric = _rows(line)[0].primary
    return Best(line.dataset, metric, _validation(line), _test(line), _label(line), len(line.members))


def _order(line: Line) -> float:
    # Of those without a validation score, which older results may lack, the first counts.
    score = _validation(line)
    return float('-inf') if score is None else score


def _rows(line: Line) -> list[Row]:
    return [row for _, row in line.members]


def _validation(line: Line) -> float | None:
    values = [row.validation.get(row.primary) for row in _rows(line)]
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def _test(line: Line) -> float:
    return statistics.fmean(row.score for row in _rows(line))


def _label(line: Line) -> str:
    share = f'{line.fraction:.3g} of the labels' if line.fraction < 1 else ''
    if line.shots:
        share = f'{line.shots} per class'
    parts = (line.variant.label, line.head, line.regime, *settings_in_words(line.settings), share)
    return ' · '.join(filter(None, parts))
