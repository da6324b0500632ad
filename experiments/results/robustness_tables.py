"""The tables of robustness: the score with corrupted test images, per severity and per corruption."""

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.data import nouns
from experiments.results import robustness
from experiments.results.aggregates import Aggregate
from experiments.results.metric_tables import MetricTable


def tables(shown: Sequence[Aggregate]) -> list[MetricTable]:
    """One table of severities and one of corruptions; none if no row has them.

    Args:
        shown: an aggregate per row, the best first, all of one share of the labels.
    """
    known = [each for each in shown if each.robustness]
    if not known:
        return []
    levels = sorted({level for each in known for level in robustness.severities(each.robustness)})
    names = list(dict.fromkeys(name for each in known for name in each.robustness))
    metric, baseline = known[0].metric, known[-1]
    noun = nouns.common(each.noun for each in known)
    of_baseline = ' '.join([baseline.variant.label, baseline.method])
    summary = (
        f'{metric} with corrupted test {noun}s, in per cent: the mean over {len(names)} '
        f'corruption{"s" * (len(names) > 1)} and all severities, with its 95 % interval; "drop" is the share of the '
        'score without corruption that is lost; "relative error" is the error as a multiple of that of '
        f'{of_baseline}, averaged over corruptions'
    )
    return [
        MetricTable(
            summary,
            ['not corrupted', 'corrupted', 'drop', 'relative error', *(f'severity {level}' for level in levels)],
            [_summary(each, baseline, levels) for each in shown],
        ),
        MetricTable(
            f'{metric} with each corruption, in per cent: the mean over the severities',
            names,
            [[_percent(robustness.of_corruption(each.robustness).get(name)) for name in names] for each in shown],
            in_terminal=False,
        ),
    ]


def _summary(aggregate: Aggregate, baseline: Aggregate, levels: Sequence[int]) -> list[str]:
    clean, found = float(np.mean(aggregate.scores)), aggregate.robustness
    if not found:
        return [_percent(clean), '–', '–', '–', *('–' for _ in levels)]
    error = robustness.relative_error(found, baseline.robustness)
    at_severity = robustness.at_severity(found)
    return [
        _percent(clean),
        _percent(robustness.mean(found)) + _interval(aggregate.corrupted_interval),
        _percent(robustness.relative_drop(found, clean)),
        '–' if error is None else f'{error:.2f}',
        *(_percent(at_severity.get(level)) for level in levels),
    ]


def _interval(bounds: tuple[float, float] | None) -> str:
    return '' if bounds is None else f' ({100 * bounds[0]:.1f}–{100 * bounds[1]:.1f})'


def _percent(value: float | None) -> str:
    return '–' if value is None else f'{100 * value:.1f}'


def csv_columns(aggregates: Sequence[Aggregate]) -> list[str]:
    """Columns of ``table.csv``: the mean, then every corruption and severity; none if no aggregate has them."""
    found = dict.fromkeys(label for each in aggregates for label in _values(each))
    return list(found)


def csv_values(aggregate: Aggregate, columns: Sequence[str]) -> list[float | None]:
    """The values of these columns."""
    values = _values(aggregate)
    return [values.get(column) for column in columns]


def _values(aggregate: Aggregate) -> Mapping[str, float]:
    if not aggregate.robustness:
        return {}
    each = {
        f'{name}/{severity}': score
        for name, severities in aggregate.robustness.items()
        for severity, score in severities.items()
    }
    return {'corrupted': robustness.mean(aggregate.robustness), **each}
