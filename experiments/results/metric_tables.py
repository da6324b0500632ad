"""What tables say beside the score: whether it can be believed, further metrics, and the single classes."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from experiments.data import nouns
from experiments.results import metric_names
from experiments.results.aggregates import Aggregate

# With more classes than this, those of the lowest values are shown.
MOST_CLASSES = 20
_LONGEST_NAME = 20
# Costs that are shown among the further metrics → titles of their columns.
_BYTES = {'weight_bytes': 'MiB of weights', 'peak_memory_bytes': 'MiB at peak'}
# Title of the column of ``Aggregate.gap``.
GAP = 'val − test'
# What the columns beside the score are, with a place for the noun of the examples.
_MEANINGS = {
    'gap': 'the points by which the score on the validation {noun}s is higher than that on the test {noun}s',
    'worst': 'that of the class with the lowest, averaged over the seeds',
}
# In table.csv and the rows alone.
_LEFT_OUT = frozenset({'loss', 'brier', 'temperature', 'nll_scaled'})


@dataclasses.dataclass(frozen=True)
class MetricTable:
    """A table that comes after the main one, with a row for each of its rows.

    Attributes:
        title: what it shows.
        header: titles of its columns, without those of the labels.
        rows: their texts.
        in_terminal: whether the terminal shows it too.
    """

    title: str
    header: list[str]
    rows: list[list[str]]
    in_terminal: bool = True


def tables(shown: Sequence[Aggregate]) -> list[MetricTable]:
    """Further metrics, then those of single classes; only those that any row has.

    Args:
        shown: an aggregate per row.
    """
    known = dict.fromkeys(name for each in shown for name in each.metrics)
    names = [name for name in known if '/' not in name and name not in {*_LEFT_OUT, shown[0].metric}]
    found = [_with_memory(_table('further metrics', shown, names), shown)] if names else []
    for number, kind in enumerate(_kinds(shown)):
        names = [name for name in known if name.startswith(f'{kind}/')]
        title = f'{kind} of each class'
        if len(names) > MOST_CLASSES:
            title = f'{kind} of the {MOST_CLASSES} classes of {len(names):,} with the lowest mean'
            means = {name: np.mean([each.metrics[name] for each in shown if name in each.metrics]) for name in names}
            names = sorted(names, key=means.__getitem__)[:MOST_CLASSES]
        found.append(dataclasses.replace(_table(title, shown, names), in_terminal=not number))
    return found


def metrics(shown: Sequence[Aggregate]) -> list[str]:
    """Names of all metrics beside the primary ones that are not those of single classes."""
    known = dict.fromkeys(name for each in shown for name in each.metrics)
    return [name for name in known if '/' not in name and name not in {each.metric for each in shown}]


def titles_beside(shown: Sequence[Aggregate]) -> list[str]:
    """Titles of the columns after the score: the gap to validation and the worst class, where any row has them."""
    gap = [GAP] if any(each.gap is not None for each in shown) else []
    return gap + ([worst_title(shown)] if _kinds(shown) else [])


def worst_title(shown: Sequence[Aggregate]) -> str:
    """Title of the column of the worst class, with the metric of single classes of each primary one."""
    firsts = dict.fromkeys(kinds[0] for metric in _metrics(shown) if (kinds := _kinds_of(metric, shown)))
    return f'worst {" or ".join(firsts) or "class"}'


def texts_beside(aggregate: Aggregate | None, shown: Sequence[Aggregate]) -> list[str]:
    """Texts of these columns; – of no aggregate."""
    worst, gap = '–', None if aggregate is None else aggregate.gap
    if aggregate is not None and aggregate.worst_class is not None:
        name, value = aggregate.worst_class
        worst = f'{100 * value:.1f} ({name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"})'
    return [points(gap) if title == GAP else worst for title in titles_beside(shown)]


def points(share: float | None) -> str:
    """A difference of shares in points, with its sign; – if it is not known."""
    if share is None:
        return '–'
    tenths = round(1000 * share)
    return f'{tenths / 10:+.1f}'.replace('-', '−') if tenths else '0.0'


def meaning(column: Literal['gap', 'worst'], shown: Sequence[Aggregate]) -> str:
    """What one of these columns is."""
    return _MEANINGS[column].format(noun=nouns.common(each.noun for each in shown))


def note(shown: Sequence[Aggregate]) -> str:
    """What these columns are, as a sentence."""
    found = [f'"{title}" is {meaning("gap" if title == GAP else "worst", shown)}' for title in titles_beside(shown)]
    return f'{"; ".join(found)}.' if found else ''


def _kinds(shown: Sequence[Aggregate]) -> list[str]:
    """The metrics of single classes that any row has."""
    return list(dict.fromkeys(kind for metric in _metrics(shown) for kind in _kinds_of(metric, shown)))


def _metrics(shown: Sequence[Aggregate]) -> list[str]:
    """The primary metrics, in their order."""
    return list(dict.fromkeys(each.metric for each in shown))


def _kinds_of(metric: str, shown: Sequence[Aggregate]) -> list[str]:
    kinds = metric_names.OF_CLASSES.get(metric, (metric,))
    return [kind for kind in kinds if any(name.startswith(f'{kind}/') for each in shown for name in each.metrics)]


def _title(name: str) -> str:
    """The name of a metric as a heading, whose words may go on the next line."""
    return name.replace('_', ' ')


def _with_memory(table: MetricTable, shown: Sequence[Aggregate]) -> MetricTable:
    """With columns of bytes where any row has them."""
    for key, title in _BYTES.items():
        values = [each.costs.get(key) for each in shown]
        if any(value is not None for value in values):
            texts = ['–' if value is None else f'{value / 2**20:,.1f}' for value in values]
            rows = [[*row, text] for row, text in zip(table.rows, texts, strict=True)]
            table = dataclasses.replace(table, header=[*table.header, title], rows=rows)
    return table


def _table(title: str, shown: Sequence[Aggregate], names: Sequence[str]) -> MetricTable:
    others = [name for name in names if name in metric_names.NO_SHARES]
    unit = f'in per cent except {" and ".join(map(_title, others))}' if others else 'in per cent'
    texts = [[metric_names.text(name, each.metrics.get(name)) for name in names] for each in shown]
    return MetricTable(f'{title}, {unit}', [name.partition('/')[2] or _title(name) for name in names], texts)
