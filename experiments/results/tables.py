"""Tables of results, for the terminal, as Markdown and as CSV."""

import csv
import dataclasses
import io
from collections import Counter
from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from experiments.data import nouns
from experiments.results import markdown_text, metric_tables, robustness_tables
from experiments.results.aggregates import AT_EDGE, Aggregate, tokens_in_words
from experiments.results.axes import Settings, Variant, setting_in_words, settings_in_words
from experiments.results.markdown_text import escaped
from experiments.results.metric_tables import MetricTable


@dataclasses.dataclass(frozen=True)
class View:
    """One table: a data set, its label fractions as columns, and a row per variant, regime and settings, best first.

    Attributes:
        dataset: its name.
        fractions: the columns: label fractions, or shots (``Aggregate.share``).
        rows: per row, the aggregates in the order of ``fractions`` (``None`` where a cell is missing).
    """

    dataset: str
    fractions: tuple[tuple[float, int], ...]
    rows: tuple[tuple[Aggregate | None, ...], ...]

    @property
    def aggregates(self) -> list[Aggregate]:
        """All aggregates that are present."""
        return [aggregate for row in self.rows for aggregate in row if aggregate]

    @property
    def noun(self) -> str:
        """What an example of its data set is called, such as ``'image'``."""
        return nouns.common(aggregate.noun for aggregate in self.aggregates)

    @property
    def labels(self) -> list[str]:
        """Titles of the text columns, which come before the numbers."""
        has_heads = any(aggregate.head for aggregate in self.aggregates)
        settings = differing_settings(self.aggregates)
        return ['backbone', 'weights', *(['head'] if has_heads else []), 'regime', *settings]

    @property
    def _is_resampled(self) -> bool:
        """Whether the score is no mean over examples, so that its interval comes from resampling."""
        return any(aggregate.resampled is not None for aggregate in self.aggregates)

    @property
    def known(self) -> list[Aggregate]:
        """The aggregates of the largest share of the labels, which the other columns and tables are of, best first.

        A row without one has none: results of fewer labels are not compared with those of more.
        """
        return [row[-1] for row in self.rows if row[-1]]

    def further(self) -> list[MetricTable]:
        """The tables after the main one, with the labels of their rows: those with the largest share of the labels."""
        return [
            dataclasses.replace(
                table,
                header=[*self.labels, *table.header],
                rows=[
                    [*label_texts(known, self.labels), *texts]
                    for known, texts in zip(self.known, table.rows, strict=True)
                ],
            )
            for table in (*metric_tables.tables(self.known), *robustness_tables.tables(self.known))
        ]

    @property
    def header(self) -> list[str]:
        """Column titles."""
        titles: dict[tuple[float, int], str] = {}
        for aggregate in self.aggregates:
            examples = aggregate.data['train_examples']
            titles[aggregate.share] = aggregate.share_in_words + (f' ({examples:,} {self.noun}s)' if examples else '')
        scores = [titles[share] for share in self.fractions]
        others = metric_tables.titles_beside(self.known)
        costs = ['input', 'parameters', 'trainable', f'GFLOP/{self.noun}', f'{self.noun}s/s']
        return [*self.labels, *scores, *others, *costs]

    @property
    def least_important(self) -> list[int]:
        """Columns that a narrow terminal may lack, the first to go first: all but the labels and the last score."""
        first = len(self.labels)
        last = first + len(self.fractions) - 1
        return [*range(len(self.header) - 1, last, -1), *range(first, last)]

    def cells(self, row: tuple[Aggregate | None, ...]) -> list[str]:
        """The texts of one row, without marking the best aggregate."""
        any_share = next(aggregate for aggregate in reversed(row) if aggregate)
        costs = any_share.costs

        def shown(key: str, form: str, scale: float = 1) -> str:
            return '–' if costs[key] is None else format(costs[key] / scale, form)

        return [
            *label_texts(any_share, self.labels),
            *(aggregate.text() if aggregate else '' for aggregate in row),
            *metric_tables.texts_beside(row[-1], self.known),
            _size_in_words(costs),
            shown('parameters', ',.0f'),
            shown('trainable_parameters', ',.0f'),
            shown('flops_per_image', '.3f', 1e9),
            shown('images_per_second', ',.0f'),
        ]

    def note(self, says_lengths: bool = True) -> str:
        """The note that explains the numbers.

        Args:
            says_lengths: whether it says at how many tokens the FLOPs of texts are counted.
        """
        length = tokens_in_words(self.aggregates) if says_lengths else ''
        data, metric = self.aggregates[0].data, self.aggregates[0].metric
        sentences = [
            f'Test {metric} in per cent on {data["test_examples"]:,} {self.noun}s'
            + self._intervals()
            + '. Columns are the share of the training labels'
            + (f', or the labelled {self.noun}s per class.' if any(each.shots for each in self.aggregates) else '.'),
            self._selection(),
            self._edges(),
            self._refit(),
            'Bold: higher than every other row of its column; all comparisons of the highest with the others in this '
            f'table are two-sided tests over seeds and test {self.noun}s at 5 %, adjusted by Holm’s method.',
            metric_tables.note(self.known),
            'A multiply-add is two FLOP'
            + self._compiled()
            + (f'; GFLOP/{self.noun} are those of the backbone, without neck and head' if self._is_resampled else '')
            + (f'; GFLOP/{self.noun} are those of a text{length}, and shorter ones take fewer' if length else '')
            + '.',
            f'{data["provenance"]}.',
        ]
        return ' '.join(sentence for sentence in sentences if sentence)

    def _intervals(self) -> str:
        """What the intervals are over, and where they are over less or there is none."""
        found = [aggregate for aggregate in self.aggregates if aggregate.low is not None]
        if not found:
            return ', without an interval'
        seeds = sorted({len(each.scores) for each in found if each.varies_over_seeds})
        over_seeds = f'over {_several(seeds)} seeds (training subset, batch order, random weights)'
        without_seeds = dict.fromkeys(
            'there is one seed' if each.depends_on_seed else 'no seed changes anything'
            for each in found
            if not each.varies_over_seeds
        )
        kinds = []
        if any(each.varies_over_seeds and each.varies_over_images for each in found):
            kinds.append(f'{over_seeds} and test {self.noun}s')
        if without_seeds:
            kinds.append(f'over test {self.noun}s alone where {" or ".join(without_seeds)}')
        if not all(each.varies_over_images for each in found):
            kinds.append(f'{"over seeds" if kinds else over_seeds} alone where single {self.noun}s are unknown')
        text = f': mean and 95 % interval {", ".join(kinds)}'
        if self._is_resampled:
            text += ' (from 1,000 bootstrap samples)'
        return text + (', where there is one' if len(found) < len(self.aggregates) else '')

    def _selection(self) -> str:
        """On what and among how many settings hyper-parameters were selected."""
        sizes: dict[str, set[int]] = {}
        for aggregate in self.aggregates:
            sizes.setdefault(aggregate.regime, set()).update(aggregate.choices)
        counts = [f'{regime} among {_several(sorted(found))}' for regime, found in sorted(sizes.items()) if found]
        validation = next(
            (e.data['validation_examples'] for e in self.aggregates if e.data['validation_examples']), None
        )
        where = f' on {validation:,} validation {self.noun}s' if validation else ''
        return f'Hyper-parameters were selected{where}' + (f' ({", ".join(counts)} settings).' if counts else '.')

    def _edges(self) -> str:
        """Which selected hyper-parameters lie at an edge of their grid."""
        found = Counter()
        for aggregate in self.aggregates:
            for name, count in aggregate.at_edge.items():
                found[aggregate.regime, name] += count
        if not found:
            return ''
        totals = Counter()
        for aggregate in self.aggregates:
            totals[aggregate.regime] += len(aggregate.scores) if aggregate.choices else 0
        counts = [f'{name} of {regime} in {count} of {totals[regime]} cells' for (regime, name), count in found.items()]
        return (
            f'{AT_EDGE}: for at least one seed the selected value lies at an edge of its grid, so a wider grid may do '
            f'better ({", ".join(counts)}).'
        )

    def _refit(self) -> str:
        """What numbers beside the score are of, where heads were fitted again with the validation images."""
        refitted = [each for each in self.aggregates if any(row.config.get('refit') for _, row in each.members)]
        if not refitted:
            return ''
        some = ', of those whose settings say so' if len(refitted) < len(self.aggregates) else ''
        return (
            f'The score is that of heads that were fitted again on training and validation {self.noun}s (refit{some}): '
            f'numbers of {self.noun}s in the titles are of training {self.noun}s alone, and validation scores and '
            'temperatures are of the heads before.'
        )

    def _compiled(self) -> str:
        older = {
            aggregate.variant.label
            for aggregate in self.aggregates
            if aggregate.costs['flops_per_image'] and aggregate.costs['flops_counted_in'] == 'compiled program'
        }
        if not older:
            return ', counted in the traced program'
        return (
            f', counted in the traced program, and by an older version in the compiled one ({", ".join(sorted(older))})'
        )


def differing_settings(aggregates: Sequence[Aggregate]) -> list[str]:
    """The further axes that have several values in these aggregates, sorted."""
    found: dict[str, set] = {}
    for key, value in (each for aggregate in aggregates for each in aggregate.settings):
        found.setdefault(key, set()).add(value)
    return sorted(key for key, values in found.items() if len(values) > 1)


def label_texts(aggregate: Aggregate, labels: Sequence[str]) -> list[str]:
    """What an aggregate has in the text columns of these titles."""
    values = {'backbone': aggregate.variant.backbone, 'weights': aggregate.variant.weights or '–'}
    values |= {'head': aggregate.head, 'regime': aggregate.regime}
    values |= {key: setting_in_words(value) for key, value in aggregate.settings}
    return [values.get(label, '–') for label in labels]


def view(aggregates: Sequence[Aggregate], dataset: str) -> View:
    """Arrange the aggregates of one data set."""
    mine = [aggregate for aggregate in aggregates if aggregate.dataset == dataset]
    fractions = tuple(sorted({aggregate.share for aggregate in mine}))
    by_row: dict[tuple[Variant, str, str, Settings], dict[tuple[float, int], Aggregate]] = {}
    for aggregate in mine:
        line = (aggregate.variant, aggregate.head, aggregate.regime, aggregate.settings)
        by_row.setdefault(line, {})[aggregate.share] = aggregate
    rows = [tuple(found.get(fraction) for fraction in fractions) for found in by_row.values()]
    rows.sort(key=lambda row: [-(aggregate.mean if aggregate else 0) for aggregate in reversed(row)])
    return View(dataset, fractions, tuple(rows))


def _several(numbers: Sequence[int]) -> str:
    return ' or '.join(map(str, numbers)) if len(numbers) < 3 else f'{numbers[0]} to {numbers[-1]}'


def rich_table(shown: View) -> Table:
    """Format a table for the terminal."""
    table = Table(
        title=escape(shown.dataset), title_justify='left', caption=escape(shown.note()), caption_justify='left'
    )
    for index, title in enumerate(shown.header):
        table.add_column(title, justify='left' if index < len(shown.labels) else 'right', overflow='fold')
    for row in shown.rows:
        texts = [escape(text) for text in shown.cells(row)]
        for index, aggregate in enumerate(row, len(shown.labels)):
            if aggregate and aggregate.best:
                texts[index] = f'[bold green]{texts[index]}[/]'
        table.add_row(*texts)
    return table


def markdown(shown: View) -> str:
    """Format a table for ``table.md``."""
    labels, rows = len(shown.labels), [marked(shown, row) for row in shown.rows]
    lines = [f'### {escaped(shown.dataset)}', '', *markdown_text.table(shown.header, rows, labels)]
    lines += ['', escaped(shown.note()), '']
    for table in shown.further():
        of = ', with the largest share of the labels' if len(shown.fractions) > 1 else ''
        lines += [f'Test split{of}: {escaped(table.title)}:', '']
        lines += [*markdown_text.table(table.header, table.rows, labels), '']
    return '\n'.join(lines)


def marked(shown: View, row: tuple[Aggregate | None, ...]) -> list[str]:
    """The texts of one row for Markdown, the best aggregates in bold type."""
    texts = shown.cells(row)
    for index, aggregate in enumerate(row, len(shown.labels)):
        if aggregate and aggregate.best:
            texts[index] = markdown_text.bold(texts[index])
    return texts


def rich_tables_further(shown: View) -> list[Table]:
    """The tables after the main one, for the terminal."""
    tables = []
    for further in [each for each in shown.further() if each.in_terminal]:
        table = Table(title=escape(f'{shown.dataset}: {further.title}'), title_justify='left')
        for index, each in enumerate(further.header):
            table.add_column(escape(each), justify='left' if index < len(shown.labels) else 'right', overflow='fold')
        for row in further.rows:
            table.add_row(*map(escape, row))
        tables.append(table)
    return tables


def _size_in_words(costs: Mapping) -> str:
    size = costs.get('input')
    return '–' if not size else f'{_size(costs)} {"px" if len(size) > 1 else "tokens"}'


def _size(costs: Mapping) -> str:
    """The input of a model, as height x width, or the length of texts in tokens; empty if unknown."""
    return 'x'.join(map(str, costs.get('input') or ()))


_CSV_COLUMNS = (
    'dataset', 'backbone', 'weights', 'head', 'regime', 'settings', 'fraction', 'shots', 'train_examples', 'seeds',
    'metric', 'score', 'low', 'high', 'best', 'p_best', 'depends_on_seed', 'at_edge', 'choices', 'parameters',
    'trainable_parameters', 'flops_per_image', 'images_per_second', 'input', 'weight_bytes', 'peak_memory_bytes',
    'validation_score', 'worst_class', 'score_of_worst_class',
)  # fmt: skip


def csv_text(aggregates: Sequence[Aggregate]) -> str:
    """Format ``table.csv``: a line per variant, regime, data set and fraction, unrounded; unknown values are empty.

    After the fixed columns, every metric that any line has, and every corruption of the test images.
    """
    metrics = metric_tables.metrics(aggregates)
    corrupted = robustness_tables.csv_columns(aggregates)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator='\n')
    writer.writerow([*_CSV_COLUMNS, *metrics, *corrupted])
    for aggregate in aggregates:
        costs = aggregate.costs
        writer.writerow(
            [
                aggregate.dataset, aggregate.variant.backbone, aggregate.variant.weights, aggregate.head,
                aggregate.regime, '; '.join(settings_in_words(aggregate.settings)),
                '' if aggregate.shots else aggregate.fraction, aggregate.shots or '',
                aggregate.data['train_examples'], len(aggregate.scores), aggregate.metric,
                aggregate.mean, aggregate.low, aggregate.high, int(aggregate.best), aggregate.p_best,
                int(aggregate.depends_on_seed),
                ' '.join(f'{name}:{count}' for name, count in aggregate.at_edge.items()),
                ' '.join(map(str, sorted(aggregate.choices))), costs['parameters'], costs['trainable_parameters'],
                costs['flops_per_image'], costs['images_per_second'], _size(costs),
                costs.get('weight_bytes'), costs.get('peak_memory_bytes'),
                aggregate.validation.get(aggregate.metric), *(aggregate.worst_class or ('', '')),
                *(aggregate.metrics.get(name) for name in metrics),
                *robustness_tables.csv_values(aggregate, corrupted),
            ]
        )  # fmt: skip
    return stream.getvalue()
