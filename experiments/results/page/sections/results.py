"""The table of all lines: to sort, to filter, and with columns to choose."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from experiments.data import nouns
from experiments.results import metric_names, metric_tables
from experiments.results.aggregates import AT_EDGE, Aggregate, tokens_in_words
from experiments.results.failures import Failure
from experiments.results.page import estimates, markup
from experiments.results.page.content import Report
from experiments.results.page.estimates import percent
from experiments.results.page.markup import Child, Markup, element

# A column of text has a filter of its own, and so has that of the labels; with more values, a search is better.
_MOST_VALUES = 60
# What the input of a backbone is, by what an example is called.
_INPUTS = {
    'image': 'height and width of what the backbone sees, in pixels',
    'text': 'the most tokens of a text that the backbone sees',
    'example': 'height and width of what the backbone sees, in pixels, or the most tokens of a text',
}
# Characters of a text in the table; the rest of a longer one is its tooltip.
_LONGEST = 24


@dataclasses.dataclass(frozen=True)
class _Column:
    """A column of the table.

    Attributes:
        title: heading.
        cells: what is shown.
        values: numbers to sort by; ``None`` for a column of text.
        note: what the title means.
        shown: whether it is shown before anything is chosen.
        is_score: whether it is the one by which lines are compared.
    """

    title: str
    cells: Sequence[Child]
    values: Sequence[float | None] | None = None
    note: str = ''
    shown: bool = True
    is_score: bool = False


def section(report: Report) -> Markup:
    """Controls and table; a line has the anchor that ``estimates.anchors`` gives."""
    columns = [column for dataset in report.datasets for column in estimates.columns(report.aggregates, dataset)]
    lines = [line for column in columns for line in column]
    columns = [column for column in _columns(lines) if any(cell not in ('', '–') for cell in column.cells)]
    columns = [_with_failures(column, report.failures) for column in columns]
    return markup.escaped(
        [
            _controls(columns, len(lines) + len(report.failures)),
            _table(columns, [*map(estimates.anchors(report), lines), *([None] * len(report.failures))]),
            _note(lines),
        ]
    )


def _controls(columns: Sequence[_Column], lines: int) -> Markup:
    filters = [
        element(
            'label',
            element('span', column.title),
            element(
                'select',
                element('option', 'all', value=''),
                [element('option', markup.shortened(text, 60), value=text) for text in _distinct(column)],
                data_column=index,
            ),
        )
        for index, column in enumerate(columns)
        if (column.values is None or column.title == 'labels') and 1 < len(_distinct(column)) <= _MOST_VALUES
    ]
    chooser = [
        element(
            'label',
            element('input', type='checkbox', data_column=index, checked=column.shown),
            column.title,
        )
        for index, column in enumerate(columns)
        if index
    ]
    return element(
        'form',
        element('label', element('span', 'search'), element('input', type='search', id='search', autocomplete='off')),
        filters,
        element('button', 'Reset', type='reset'),
        element('details', element('summary', 'Columns'), element('div', chooser), class_='chooser'),
        element('output', f'{lines:,} line{"" if lines == 1 else "s"}', id='shown', role='status'),
        id='controls',
        class_='controls',
        hidden=True,
    )


def _distinct(column: _Column) -> list[str]:
    return list(dict.fromkeys(_plain(column.cells)))


def _plain(cells: Sequence[Child]) -> list[str]:
    return [markup.shown(cell) for cell in cells]


def _table(columns: Sequence[_Column], anchors: Sequence[str | None]) -> Markup:
    head = element(
        'tr',
        [
            element(
                'th', column.title, scope='col', title=column.note or None,
                class_=_class(column), data_sort='text' if column.values is None else 'number',
            )
            for column in columns
        ],
    )  # fmt: skip
    rows = []
    for place, anchor in enumerate(anchors):
        cells = []
        for column in columns:
            cell = column.cells[place]
            value = None if column.values is None else column.values[place]
            shown = _name(cell, columns[0].cells[place]) if column.values is None else cell
            cells.append(
                element(
                    'td' if cells else 'th',
                    shown,
                    class_=_class(column),
                    scope=None if cells else 'row',
                    data_value=None if value is None else f'{value:.10g}',
                )
            )
        rows.append(element('tr', cells, id=anchor))
    table = element('table', element('thead', head), element('tbody', rows), id='lines', class_='sticky')
    return element('div', table, class_='scroll tall', tabindex=0, role='region', aria_label='All lines')


def _name(text: Child, backbone: Child) -> Child:
    """A text of the table; of weights that are named after their backbone, where they come from."""
    whole = markup.shown(text)
    source = next((whole.removesuffix(end) for end in (f':{backbone}', f'/{backbone}') if whole.endswith(end)), whole)
    return element('bdi', source, title=whole) if source != whole else markup.name(text, _LONGEST)


def _class(column: _Column) -> str | None:
    return ' '.join(
        name for name, holds in (('number', column.values is not None), ('off', not column.shown)) if holds
    ) or None  # fmt: skip


def _columns(lines: Sequence[Aggregate]) -> list[_Column]:
    found = [estimates.estimate(each) for each in lines]
    labels = [estimates.axes(each) for each in lines]
    backbone, *others = dict.fromkeys(title for each in labels for title in each)
    several = len({each.metric for each in lines}) > 1
    noun, length = nouns.common(each.noun for each in lines), tokens_in_words(lines)

    def axis(title: str) -> _Column:
        return _Column(title, [each.get(title, '–') for each in labels])

    # The score is second, so that a narrow screen shows it beside the column that stays in place.
    return [
        axis(backbone),
        _Column(
            'score' if several else lines[0].metric,
            [_score(each) for each in lines],
            [each.mean for each in found],
            f'test {"score" if several else lines[0].metric} in per cent, the mean over seeds',
            is_score=True,
        ),
        *([_Column('metric', [each.metric for each in lines])] if several else []),
        _Column('data set', [each.dataset for each in lines], shown=len({each.dataset for each in lines}) > 1),
        # Weights are long, and seldom tell lines apart that the others do not.
        *map(axis, sorted(others, key='weights'.__eq__)),
        _Column(
            'labels',
            [estimates.labelled(each).replace(' labels', '') for each in lines],
            [each.data['train_examples'] or each.fraction for each in lines],
        ),
        _Column(
            '95 % interval',
            [f'{percent(each.low)} – {percent(each.high)}' if each.low is not None else '–' for each in found],
            [None if each.low is None else each.bounds[1] - each.bounds[0] for each in found],
            'sorts by its width',
        ),
        _Column('seeds', [str(len(each.scores)) for each in lines], [len(each.scores) for each in lines],
                shown=len({len(each.scores) for each in lines}) > 1),
        _Column(
            metric_tables.GAP,
            [metric_tables.points(each.gap) for each in lines],
            [each.gap for each in lines],
            metric_tables.meaning('gap', lines),
        ),
        _Column(
            metric_tables.worst_title(lines),
            [_worst(each) for each in lines],
            [each.worst_class[1] if each.worst_class else None for each in lines],
            metric_tables.meaning('worst', lines),
        ),
        *_metric_columns(lines),
        _Column(
            'input',
            ['×'.join(map(str, each.costs.get('input') or ())) or '–' for each in lines],
            [(each.costs.get('input') or [None])[0] for each in lines],
            _INPUTS[noun],
            shown=False,
        ),
        _cost(lines, 'parameters', 'parameters', '{:,.0f}'.format, 'of the backbone'),
        _cost(lines, 'trainable', 'trainable_parameters', '{:,.0f}'.format, 'those that were trained', shown=False),
        _cost(
            lines, f'GFLOP/{noun}', 'flops_per_image', lambda flops: f'{flops / 1e9:.3f}',
            f'of the backbone, forward{length and f", for a text{length}"}; a multiply-add is two', shown=False,
        ),
        _cost(
            lines, f'{noun}s/s', 'images_per_second', '{:,.0f}'.format, 'of the frozen backbone, on this device',
            shown=False,
        ),
    ]  # fmt: skip


def _with_failures(column: _Column, failures: Sequence[Failure]) -> _Column:
    """A column with a cell for each failed cell below: its axes, and its error where the score would be."""
    values = None if column.values is None else [*column.values, *([None] * len(failures))]
    cells = [*column.cells, *(_of_failure(column, each) for each in failures)]
    # Which seed failed is to be seen.
    shown = column.shown or (column.title == 'seeds' and bool(failures))
    return dataclasses.replace(column, cells=cells, values=values, shown=shown)


def _of_failure(column: _Column, failure: Failure) -> Child:
    cell = failure.cell
    if column.is_score:
        return element('span', 'failed: ', markup.name(failure.error, 60), class_='failed')
    share = f'{cell.images_per_class} per class' if cell.images_per_class else f'{100 * cell.fraction:g} %'
    known = {'data set': cell.dataset, 'labels': share, 'seeds': f'seed {cell.seed}'}
    return {**known, **estimates.axes(cell)}.get(column.title, '–')


def _score(line: Aggregate) -> Markup:
    text = percent(estimates.estimate(line).mean)
    score = element('b', text, title='better than every other line of its data set and labels') if line.best else text
    if not line.at_edge:
        return markup.escaped([score])
    names = ', '.join(line.at_edge)
    why = ', '.join(f'{name} for {count} of {len(line.scores)} seeds' for name, count in line.at_edge.items())
    return markup.escaped([score, ' ', element('span', AT_EDGE, ' ', names, class_='edge', title=f'at an edge: {why}')])


def _worst(line: Aggregate) -> Child:
    if line.worst_class is None:
        return '–'
    name, value = line.worst_class
    return markup.escaped([f'{percent(value)} (', markup.name(name, 12), ')'])


def _metric_columns(lines: Sequence[Aggregate]) -> list[_Column]:
    """The other metrics; those of single classes have a place elsewhere."""
    names = dict.fromkeys(name for each in lines for name in each.metrics if '/' not in name)
    metrics = {each.metric for each in lines}
    columns = []
    for name in names:
        values = [each.metrics.get(name) for each in lines]
        if metrics == {name} or all(value is None for value in values):
            continue
        cells = [metric_names.text(name, value) for value in values]
        unit = '' if name in metric_names.NO_SHARES else ', in per cent'
        columns.append(_Column(name.replace('_', ' '), cells, values, f'test, mean over seeds{unit}', shown=False))
    return columns


def _cost(
    lines: Sequence[Aggregate], title: str, key: str, form: Callable[[Any], str], note: str, shown: bool = True
) -> _Column:
    values = [each.costs.get(key) for each in lines]
    return _Column(title, ['–' if value is None else form(value) for value in values], values, note, shown)


def _note(lines: Sequence[Aggregate]) -> Markup:
    marks, noun = [], nouns.common(each.noun for each in lines)
    if any(each.best for each in lines):
        marks.append(
            'Bold: higher than every other line of its data set and labels, by two-sided tests over seeds and test '
            f'{noun}s at 5 %, adjusted by Holm’s method for all comparisons of the highest with the others.'
        )
    if any(each.at_edge for each in lines):
        marks.append(
            f'{AT_EDGE}: for at least one seed, validation selected this hyper-parameter at an edge of its grid, so a '
            'wider grid may do better.'
        )
    marks += [beside] if (beside := metric_tables.note(lines)) else []
    return element('p', ' '.join(marks), class_='note') if marks else Markup()
