"""Tables made from the rows of results."""

import csv
import dataclasses
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from rich.markup import escape
from rich.table import Table

from backbones.errors import UserError
from experiments.results import rows as result_rows
from experiments.results import scores as kept_scores
from experiments.results.axes import Variant
from experiments.results.intervals import apart, mean_interval, paired_difference_is_significant
from experiments.results.rows import Row

AT_EDGE = '†'
_LABELS = 3  # number of text columns before the numeric ones


@dataclasses.dataclass(frozen=True)
class Entry:
    """All seeds of one variant, regime, data set and fraction.

    Attributes:
        variant: backbone and weights.
        regime: how it was trained, followed by its work directory's name if several differ in their configs.
        dataset: its name, followed by the start of its fingerprint if data of the same name differ.
        fraction: share of the training labels.
        metric: the primary metric of the task.
        scores: this metric on the test split, per seed.
        correct: whether the prediction is right, per seed and test example.
        examples: names of the test examples.
        costs: the costs in the rows; images/s is the median.
        data: the data in the rows.
        at_edge: hyper-parameter → number of seeds for which validation selected an edge of its grid.
        choices: numbers of settings that validation chose among, over all seeds.
        depends_on_seed: whether another seed could have given another score.
        best: whether it is better than every other entry of its column by more than the intervals.
    """

    variant: Variant
    regime: str
    dataset: str
    fraction: float
    metric: str
    scores: tuple[float, ...]
    correct: Bool[np.ndarray, 'seeds test']
    examples: np.ndarray
    costs: Mapping
    data: Mapping
    at_edge: Mapping[str, int] = dataclasses.field(default_factory=dict)
    choices: frozenset[int] = frozenset()
    depends_on_seed: bool = True
    best: bool = False

    @property
    def interval(self) -> tuple[float, float | None]:
        """Mean and half-width over seeds; the latter is ``None`` for a single seed or if the seed changes nothing."""
        if not self.depends_on_seed:
            return self.scores[0], None
        return mean_interval(self.scores)

    def text(self) -> str:
        """Score in per cent."""
        mean, half = self.interval
        text = f'{100 * mean:.1f}' if half is None else f'{100 * mean:.1f} ± {100 * half:.1f}'
        return f'{text} {AT_EDGE}' if self.at_edge else text


def load(*workdirs: Path) -> list[Entry]:
    """Read the finished rows of work directories of ``ablate`` and ``train`` and mark the best of each column.

    All rows count, including those that the current config of a work directory no longer asks for. A cell that several
    directories have with the same config and data counts once.

    Raises:
        UserError: a directory has no results, or they cannot be read.
    """
    found: list[tuple[Path, Row]] = []
    for workdir in workdirs:
        rows = result_rows.read(workdir)
        if not rows:
            raise UserError(
                f'there are no results in {str(workdir)!r}; expected {result_rows.RESULTS} from a run of '
                'experiments.ablate or experiments.train'
            )
        found += [(workdir, row) for row in rows]
    labels = _dataset_labels([row for _, row in found])
    # Line of the table → its experiments. An experiment has all fractions of one config, so a directory has one line.
    lines: dict[tuple[str, Variant, str], list[_Experiment]] = {}
    repetitions: dict[tuple, dict[int, tuple[Path, Row]]] = {}
    for workdir, row in found:
        cell = row.cell
        line = (labels[_data_identity(row)], cell.variant, cell.regime)
        experiments = lines.setdefault(line, [])
        experiment = next((each for each in experiments if each.takes(workdir, row)), None)
        if experiment is None:
            experiment = _Experiment(workdir, row)
            experiments.append(experiment)
        seeds = repetitions.setdefault((line, cell.fraction, experiments.index(experiment)), {})
        seeds.setdefault(cell.seed, (workdir, row))
    entries = []
    for (line, fraction, number), seeds in repetitions.items():
        dataset, variant, regime = line
        name = f'{regime} ({lines[line][number].workdir.name})' if len(lines[line]) > 1 else regime
        entries.append(_entry(list(seeds.values()), variant, name, dataset, fraction))
    return [dataclasses.replace(entry, best=_is_best(entry, entries)) for entry in entries]


# How and where a run computes, and on which label fraction; rows that differ only in these are one experiment.
_NOT_DECISIVE = frozenset(
    {
        'seed', 'fraction', 'mesh', 'threads', 'processes', 'prefetch', 'checkpoint_epochs', 'keep_checkpoints',
        'non_finite', 'tensorboard', 'wandb_project', 'bad_files_limit', 'log_steps',
    }
)  # fmt: skip


@dataclasses.dataclass
class _Experiment:
    """Rows of one config, with different seeds and fractions.

    Attributes:
        workdir: the work directory of the first row.
        first: the first row.
    """

    workdir: Path
    first: Row

    def takes(self, workdir: Path, row: Row) -> bool:
        """Whether a row belongs to it: same work directory, or equal values for all keys that both rows have."""
        if workdir == self.workdir:
            return True  # ``ablation.growth`` ensures that cells of one ablation differ in nothing decisive
        kinds = [('training' in each.config, row.cell.regime in each.config) for each in (self.first, row)]
        mine, theirs = _decisive(self.first), _decisive(row)
        return kinds[0] == kinds[1] and all(mine[key] == theirs[key] for key in {*mine} & {*theirs})


def _decisive(row: Row) -> dict[str, object]:
    config = {**row.config, **row.config.get('training', {})}
    return {key: value for key, value in config.items() if key not in {*_NOT_DECISIVE, *row.selected}}


def _data_identity(row: Row) -> tuple[str, str, str]:
    return row.cell.dataset, row.data['fingerprint'], row.primary


def _dataset_labels(rows: Sequence[Row]) -> dict[tuple[str, str, str], str]:
    """A label for each data identity: the data set's name, extended if it would be ambiguous."""
    identities = list(dict.fromkeys(map(_data_identity, rows)))
    prints = {name: {other[1] for other in identities if other[0] == name} for name, _, _ in identities}
    metrics = {name: {other[2] for other in identities if other[0] == name} for name, _, _ in identities}
    return {
        (name, fingerprint, metric): ' '.join(
            [name]
            + ([f'[{fingerprint[:6]}]'] if len(prints[name]) > 1 else [])
            + ([f'({metric})'] if len(metrics[name]) > 1 else [])
        )
        for name, fingerprint, metric in identities
    }


def _entry(members: Sequence[tuple[Path, Row]], variant: Variant, regime: str, dataset: str, fraction: float) -> Entry:
    rows = [row for _, row in members]
    kept = [kept_scores.read(workdir / row.predictions) for workdir, row in members]
    # A training run omits unreadable examples, so seeds are compared on the examples that all of them have.
    examples = kept[0].ids
    for other in kept[1:]:
        if not np.array_equal(other.ids, examples):
            examples = np.intersect1d(examples, other.ids)
    correct = np.stack([_of_examples(each.correct, each.ids, examples) for each in kept])
    speeds = [row.costs['images_per_second'] for row in rows if row.costs['images_per_second']]
    return Entry(
        variant=variant,
        regime=regime,
        dataset=dataset,
        fraction=fraction,
        metric=rows[0].primary,
        scores=tuple(row.score for row in rows),
        correct=correct,
        examples=examples,
        # An older version counted FLOPs differently, so the newest row is used.
        costs={**rows[-1].costs, 'images_per_second': float(np.median(speeds)) if speeds else None},
        data=rows[-1].data,
        at_edge=Counter(name for row in rows for name in row.at_edge),
        choices=frozenset(row.choices for row in rows if row.choices),
        depends_on_seed=any(row.depends_on_seed for row in rows),
    )


def _of_examples(values: np.ndarray, ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The values of the wanted examples along the last axis, in the wanted order."""
    if np.array_equal(ids, wanted):
        return values
    order = np.argsort(ids)
    return values[..., order[np.searchsorted(ids, wanted, sorter=order)]]


def _is_best(entry: Entry, entries: Sequence[Entry]) -> bool:
    rivals = [
        other
        for other in entries
        if other is not entry and (other.dataset, other.fraction) == (entry.dataset, entry.fraction)
    ]
    return bool(rivals) and all(
        entry.interval[0] > other.interval[0]
        and apart(_known(entry), _known(other))
        and paired_difference_is_significant(*_paired(entry, other))
        for other in rivals
    )


def _known(entry: Entry) -> tuple[float, float | None]:
    """The interval over seeds, of width 0 if the seed changes nothing."""
    mean, half = entry.interval
    return (mean, half) if entry.depends_on_seed else (mean, 0.0)


def _paired(one: Entry, other: Entry) -> tuple[np.ndarray, np.ndarray]:
    """Whether each is right, on the examples that both have."""
    if np.array_equal(one.examples, other.examples):
        return one.correct, other.correct
    shared = np.intersect1d(one.examples, other.examples)
    return _of_examples(one.correct, one.examples, shared), _of_examples(other.correct, other.examples, shared)


def datasets(entries: Sequence[Entry]) -> list[str]:
    """Data sets in the order of the results."""
    return list(dict.fromkeys(entry.dataset for entry in entries))


@dataclasses.dataclass(frozen=True)
class View:
    """One table: a data set, its label fractions as columns, and a row per variant and regime, best first.

    Attributes:
        dataset: its name.
        fractions: the columns.
        rows: per row, the entries in the order of ``fractions`` (``None`` where a cell is missing).
    """

    dataset: str
    fractions: tuple[float, ...]
    rows: tuple[tuple[Entry | None, ...], ...]

    @property
    def entries(self) -> list[Entry]:
        """All entries that are present."""
        return [entry for row in self.rows for entry in row if entry]

    @property
    def header(self) -> list[str]:
        """Column titles."""
        examples = {
            entry.fraction: entry.data['train_examples'] for entry in self.entries if entry.data['train_examples']
        }
        scores = [
            f'{fraction:g} ({examples[fraction]:,} images)' if fraction in examples else f'{fraction:g}'
            for fraction in self.fractions
        ]
        return ['backbone', 'weights', 'regime', *scores, 'parameters', 'trainable', 'GFLOP/image', 'images/s']

    def cells(self, row: tuple[Entry | None, ...]) -> list[str]:
        """The texts of one row, without marking the best entry."""
        known = next(entry for entry in reversed(row) if entry)
        costs = known.costs

        def shown(key: str, form: str, scale: float = 1) -> str:
            return '–' if costs[key] is None else format(costs[key] / scale, form)

        return [
            known.variant.backbone,
            known.variant.weights or '–',
            known.regime,
            *(entry.text() if entry else '' for entry in row),
            shown('parameters', ',.0f'),
            shown('trainable_parameters', ',.0f'),
            shown('flops_per_image', '.3f', 1e9),
            shown('images_per_second', ',.0f'),
        ]

    def note(self) -> str:
        """The note that explains the numbers."""
        data, metric = self.entries[0].data, self.entries[0].metric
        sentences = [
            f'Test {metric} in per cent on {data["test_examples"]:,} images'
            + self._seeds()
            + '. Columns are the share of the training labels.',
            self._selection(),
            self._edges(),
            'Bold: better than every other row beyond both the intervals over seeds and the paired interval over test '
            'images'
            + (
                f' (an accuracy of 90 % alone is known to ± {self._half_width():.1f} from so many images)'
                if metric == 'accuracy'
                else ''
            )
            + '.',
            'A multiply-add is two FLOP' + self._compiled() + '.',
            f'{data["provenance"]}.',
        ]
        return ' '.join(sentence for sentence in sentences if sentence)

    def _half_width(self) -> float:
        return 196 * np.sqrt(0.9 * 0.1 / self.entries[0].data['test_examples'])

    def _seeds(self) -> str:
        """What the intervals are taken over, and where there is none."""
        several = sorted({len(entry.scores) for entry in self.entries if entry.interval[1] is not None})
        if not several:
            return ', without an interval over seeds'
        text = (
            f': mean ± half width of the 95 % t interval over {" or ".join(map(str, several))} seeds (training subset, '
            'batch order, and the draw of random weights)'
        )
        without = [
            why
            for why, holds in (
                ('no seed changes anything', any(not entry.depends_on_seed for entry in self.entries)),
                ('there is one seed', any(entry.depends_on_seed and len(entry.scores) == 1 for entry in self.entries)),
            )
            if holds
        ]
        return text + (f', without ± where {" or where ".join(without)}' if without else '')

    def _selection(self) -> str:
        """On what and among how many settings hyper-parameters were selected."""
        sizes: dict[str, set[int]] = {}
        for entry in self.entries:
            sizes.setdefault(entry.regime, set()).update(entry.choices)
        counts = [f'{regime} among {_several(sorted(found))}' for regime, found in sorted(sizes.items()) if found]
        validation = next((e.data['validation_examples'] for e in self.entries if e.data['validation_examples']), None)
        where = f' on {validation:,} validation images' if validation else ''
        return f'Hyper-parameters were selected{where}' + (f' ({", ".join(counts)} settings).' if counts else '.')

    def _edges(self) -> str:
        """Which selected hyper-parameters lie at an edge of their grid."""
        found = Counter()
        for entry in self.entries:
            for name, count in entry.at_edge.items():
                found[entry.regime, name] += count
        if not found:
            return ''
        totals = Counter()
        for entry in self.entries:
            totals[entry.regime] += len(entry.scores) if entry.choices else 0
        counts = [f'{name} of {regime} in {count} of {totals[regime]} cells' for (regime, name), count in found.items()]
        return (
            f'{AT_EDGE}: for at least one seed the selected value lies at an edge of its grid, so a wider grid may do '
            f'better ({", ".join(counts)}).'
        )

    def _compiled(self) -> str:
        older = {
            entry.variant.label
            for entry in self.entries
            if entry.costs['flops_per_image'] and entry.costs['flops_counted_in'] == 'compiled program'
        }
        if not older:
            return ', counted in the traced program'
        return (
            f', counted in the traced program, and by an older version in the compiled one ({", ".join(sorted(older))})'
        )


def view(entries: Sequence[Entry], dataset: str) -> View:
    """Arrange the entries of one data set."""
    mine = [entry for entry in entries if entry.dataset == dataset]
    fractions = tuple(sorted({entry.fraction for entry in mine}))
    by_row: dict[tuple[Variant, str], dict[float, Entry]] = {}
    for entry in mine:
        by_row.setdefault((entry.variant, entry.regime), {})[entry.fraction] = entry
    rows = [tuple(found.get(fraction) for fraction in fractions) for found in by_row.values()]
    rows.sort(key=lambda row: [-(entry.interval[0] if entry else 0) for entry in reversed(row)])
    return View(dataset, fractions, tuple(rows))


def _several(numbers: Sequence[int]) -> str:
    return ' or '.join(map(str, numbers)) if len(numbers) < 3 else f'{numbers[0]} to {numbers[-1]}'


def rich_table(shown: View) -> Table:
    """Format a table for the terminal."""
    table = Table(
        title=escape(shown.dataset), title_justify='left', caption=escape(shown.note()), caption_justify='left'
    )
    for index, title in enumerate(shown.header):
        table.add_column(title, justify='left' if index < _LABELS else 'right', overflow='fold')
    for row in shown.rows:
        texts = [escape(text) for text in shown.cells(row)]
        for index, entry in enumerate(row, _LABELS):
            if entry and entry.best:
                texts[index] = f'[bold green]{texts[index]}[/]'
        table.add_row(*texts)
    return table


def markdown(shown: View) -> str:
    """Format a table for ``table.md``."""
    header = shown.header
    numbers = len(header) - _LABELS
    lines = [
        f'### {shown.dataset}',
        '',
        f'| {" | ".join(header)} |',
        f'|{"---|" * _LABELS}{"---:|" * numbers}',
    ]
    for row in shown.rows:
        texts = shown.cells(row)
        for index, entry in enumerate(row, _LABELS):
            if entry and entry.best:
                texts[index] = f'**{texts[index]}**'
        lines.append(f'| {" | ".join(texts)} |')
    return '\n'.join([*lines, '', shown.note(), ''])


_CSV_COLUMNS = (
    'dataset', 'backbone', 'weights', 'regime', 'fraction', 'train_examples', 'seeds', 'metric', 'score', 'half_width',
    'best', 'depends_on_seed', 'at_edge', 'choices', 'parameters', 'trainable_parameters', 'flops_per_image',
    'images_per_second',
)  # fmt: skip


def csv_text(entries: Sequence[Entry]) -> str:
    """Format ``table.csv``: a line per variant, regime, data set and fraction, unrounded; unknown values are empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator='\n')
    writer.writerow(_CSV_COLUMNS)
    for entry in entries:
        mean, half = entry.interval
        costs = entry.costs
        writer.writerow(
            [
                entry.dataset, entry.variant.backbone, entry.variant.weights, entry.regime, entry.fraction,
                entry.data['train_examples'], len(entry.scores), entry.metric, mean, half, int(entry.best),
                int(entry.depends_on_seed), ' '.join(f'{name}:{count}' for name, count in entry.at_edge.items()),
                ' '.join(map(str, sorted(entry.choices))), costs['parameters'], costs['trainable_parameters'],
                costs['flops_per_image'], costs['images_per_second'],
            ]
        )  # fmt: skip
    return stream.getvalue()
