"""From the rows of ``results.jsonl`` to the tables that people read."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from backbones.errors import UserError
from experiments.ablation.cells import Cell, Variant
from experiments.ablation.engine import RESULTS
from experiments.cli import atomic_files
from experiments.results.intervals import apart, mean_interval, paired_difference_is_significant


@dataclasses.dataclass(frozen=True)
class Entry:
    """All seeds of one variant, regime, data set and fraction.

    Attributes:
        accuracies: test accuracy per seed.
        correct: ``bool[seeds, test examples]``.
        costs: as they stand in the results.
        data: as it stands in the results.
        best: whether it is better than every other entry of its column beyond the intervals.
    """

    variant: Variant
    regime: str
    dataset: str
    fraction: float
    accuracies: tuple[float, ...]
    correct: np.ndarray
    costs: dict
    data: dict
    best: bool = False

    @property
    def interval(self) -> tuple[float, float | None]:
        """Mean and half width over seeds."""
        return mean_interval(self.accuracies)

    def text(self) -> str:
        """Accuracy in per cent."""
        mean, half = self.interval
        return f'{100 * mean:.1f}' if half is None else f'{100 * mean:.1f} ± {100 * half:.1f}'


def load(workdir: Path) -> list[Entry]:
    """Read the results of a work directory and mark the best of each column.

    Raises:
        UserError: there are no results.
    """
    rows = atomic_files.read_jsonl(workdir / RESULTS)
    if not rows:
        raise UserError(f'there are no results in {str(workdir)!r}; expected {RESULTS} of a run of experiments.ablate')
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        cell = Cell.from_json(row['cell'])
        groups.setdefault((cell.dataset, cell.fraction, cell.variant, cell.regime), []).append(row)
    entries = []
    for (dataset, fraction, variant, regime), members in groups.items():
        correct = []
        for row in members:
            with np.load(workdir / row['predictions']) as predictions:
                correct.append(predictions['prediction'] == predictions['label'])
        accuracies = tuple(row['metrics']['test_accuracy'] for row in members)
        costs = dict(members[0]['costs'])
        costs['images_per_second'] = float(np.median([row['costs']['images_per_second'] for row in members]))
        entries.append(
            Entry(variant, regime, dataset, fraction, accuracies, np.stack(correct), costs, members[0]['data'])
        )
    return [dataclasses.replace(entry, best=_is_best(entry, entries)) for entry in entries]


def _is_best(entry: Entry, entries: Sequence[Entry]) -> bool:
    rivals = [
        other
        for other in entries
        if other is not entry and (other.dataset, other.fraction) == (entry.dataset, entry.fraction)
    ]
    return bool(rivals) and all(
        entry.interval[0] > other.interval[0]
        and apart(entry.interval, other.interval)
        and paired_difference_is_significant(entry.correct, other.correct)
        for other in rivals
    )


def datasets(entries: Sequence[Entry]) -> list[str]:
    """Data sets in the order of the results."""
    return list(dict.fromkeys(entry.dataset for entry in entries))


@dataclasses.dataclass(frozen=True)
class View:
    """One table: a data set, its label fractions as columns, and a row per variant and regime, best first.

    Attributes:
        rows: per row, the entries in the order of ``fractions`` (``None`` where a cell is missing).
    """

    dataset: str
    fractions: tuple[float, ...]
    rows: tuple[tuple[Entry | None, ...], ...]

    @property
    def header(self) -> list[str]:
        """Column titles."""
        examples = {entry.fraction: entry.data['train_examples'] for row in self.rows for entry in row if entry}
        accuracies = [f'{fraction:g} ({examples[fraction]:,} images)' for fraction in self.fractions]
        return ['backbone', 'weights', 'regime', *accuracies, 'parameters', 'trainable', 'GFLOP/image', 'images/s']

    def cells(self, row: tuple[Entry | None, ...]) -> list[str]:
        """The texts of one row, without marks."""
        known = next(entry for entry in reversed(row) if entry)
        costs = known.costs
        return [
            known.variant.backbone,
            known.variant.weights or '–',
            known.regime,
            *(entry.text() if entry else '' for entry in row),
            f'{costs["parameters"]:,}',
            f'{costs["trainable_parameters"]:,}',
            f'{costs["flops_per_image"] / 1e9:.3f}',
            f'{costs["images_per_second"]:,.0f}' if costs['images_per_second'] else '–',
        ]

    def note(self) -> str:
        """What the numbers mean."""
        known = [entry for row in self.rows for entry in row if entry]
        seeds = sorted({len(entry.accuracies) for entry in known})
        tested = known[0].data['test_examples']
        half = 1.96 * np.sqrt(0.9 * 0.1 / tested)
        return (
            f'Test accuracy in per cent on {tested:,} images: mean ± half width of the 95 % t interval over '
            f'{" or ".join(map(str, seeds))} seeds (training subset, batch order, and the draw of random weights). '
            f'Columns are the share of the training labels. Hyper-parameters were selected on '
            f'{known[0].data["validation_examples"]:,} validation images. Bold: better than every other row beyond '
            f'both the intervals over seeds and the paired interval over test images (an accuracy of 90 % alone is '
            f'known to ± {100 * half:.1f} from so many images). {known[0].data["provenance"]}.'
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


def rich_table(shown: View) -> Table:
    """For the terminal."""
    table = Table(title=shown.dataset, title_justify='left', caption=shown.note(), caption_justify='left')
    for index, title in enumerate(shown.header):
        table.add_column(title, justify='left' if index < 3 else 'right', overflow='fold')
    for row in shown.rows:
        texts = shown.cells(row)
        for index, entry in enumerate(row):
            if entry and entry.best:
                texts[3 + index] = f'[bold green]{texts[3 + index]}[/]'
        table.add_row(*texts)
    return table


def markdown(shown: View) -> str:
    """For ``table.md``."""
    header = shown.header
    lines = [f'### {shown.dataset}', '', f'| {" | ".join(header)} |', f'|{"---|" * 3}{"---:|" * (len(header) - 3)}']
    for row in shown.rows:
        texts = shown.cells(row)
        for index, entry in enumerate(row):
            if entry and entry.best:
                texts[3 + index] = f'**{texts[3 + index]}**'
        lines.append(f'| {" | ".join(texts)} |')
    return '\n'.join([*lines, '', shown.note(), ''])


_CSV_COLUMNS = (
    'dataset', 'backbone', 'weights', 'regime', 'fraction', 'train_examples', 'seeds', 'accuracy', 'half_width', 'best',
    'parameters', 'trainable_parameters', 'flops_per_image', 'images_per_second',
)  # fmt: skip


def csv_text(entries: Sequence[Entry]) -> str:
    """For ``table.csv``: one line per variant, regime, data set and fraction, unrounded."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator='\n')
    writer.writerow(_CSV_COLUMNS)
    for entry in entries:
        mean, half = entry.interval
        costs = entry.costs
        writer.writerow(
            [
                entry.dataset, entry.variant.backbone, entry.variant.weights, entry.regime, entry.fraction,
                entry.data['train_examples'], len(entry.accuracies), mean, '' if half is None else half,
                int(entry.best), costs['parameters'], costs['trainable_parameters'], costs['flops_per_image'],
                costs['images_per_second'],
            ]
        )  # fmt: skip
    return stream.getvalue()
