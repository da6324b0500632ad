"""The results of one line and column of a table: rows of all seeds together, and which of them is best."""

import dataclasses
import os
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from backbones.errors import UserError
from experiments.data import record
from experiments.results import classification_metrics, metric_names, older_rows
from experiments.results import rows as result_rows
from experiments.results import scores as kept_scores
from experiments.results.axes import PIXELS, Settings, Variant, settings_from_json, settings_in_words
from experiments.results.intervals import (
    apart,
    mean_interval,
    paired_difference_is_significant,
    percentile_interval,
)
from experiments.results.rows import Row

AT_EDGE = '†'


@dataclasses.dataclass(frozen=True)
class Aggregate:
    """All seeds of one variant, regime, data set, fraction and settings.

    Attributes:
        variant: backbone and weights.
        head: that of a dense task.
        regime: how it was trained, followed by its work directory's name if several differ in their configs.
        dataset: its name, followed by the start of its fingerprint if data of the same name differ.
        fraction: share of the training labels.
        shots: labelled images of each class; 0 where the fraction counts.
        metric: the primary metric of the task.
        scores: this metric on the test split, per seed.
        metrics: every metric on the test split, averaged over the seeds; what rows of older versions lack is computed
            from the kept scores.
        validation: the same on the validation split, as far as the rows have it.
        correct: whether the prediction is right, per seed and test example; ``None`` where the metric is no mean over
            examples.
        settings: the values of further axes.
        resampled: where it is none, the metric of bootstrap samples of the test examples, per seed.
        examples: names of the test examples.
        costs: the costs in the rows; images/s is the median.
        data: the data in the rows.
        at_edge: hyper-parameter → number of seeds for which validation selected an edge of its grid.
        choices: numbers of settings that validation chose among, over all seeds.
        depends_on_seed: whether another seed could have given another score.
        best: whether it is better than every other aggregate of its column by more than the intervals.
        members: the row of each seed, with its work directory.
    """

    variant: Variant
    regime: str
    dataset: str
    fraction: float
    metric: str
    scores: tuple[float, ...]
    correct: Bool[np.ndarray, 'seeds test'] | None
    examples: np.ndarray
    costs: Mapping
    data: Mapping
    at_edge: Mapping[str, int] = dataclasses.field(default_factory=dict)
    choices: frozenset[int] = frozenset()
    depends_on_seed: bool = True
    best: bool = False
    head: str = ''
    settings: Settings = ()
    shots: int = 0
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    validation: Mapping[str, float] = dataclasses.field(default_factory=dict)
    resampled: Float[np.ndarray, 'seeds samples'] | None = None
    members: tuple[tuple[Path, Row], ...] = ()

    @property
    def share(self) -> tuple[float, int]:
        """What tells the columns of a table apart, in their order: shots before fractions."""
        return (0.0, self.shots) if self.shots else (self.fraction, 0)

    @property
    def share_in_words(self) -> str:
        """Title of its column."""
        return f'{self.shots} per class' if self.shots else f'{self.fraction:g}'

    @property
    def method(self) -> str:
        """The regime and the settings, as short text."""
        return ' · '.join([self.regime, *settings_in_words(self.settings)])

    @property
    def interval(self) -> tuple[float, float | None]:
        """Mean and half-width over seeds; the latter is ``None`` for a single seed or if the seed changes nothing."""
        if not self.depends_on_seed:
            return self.scores[0], None
        return mean_interval(self.scores)

    @property
    def interval_over_images(self) -> tuple[float, float] | None:
        """95 % interval over test images of the mean over seeds, where the metric was resampled."""
        return None if self.resampled is None else percentile_interval(self.resampled.mean(0))

    @property
    def gap(self) -> float | None:
        """By how much the primary metric is higher on the validation split; ``None`` if it is unknown there."""
        return self.validation[self.metric] - float(np.mean(self.scores)) if self.metric in self.validation else None

    @property
    def worst_class(self) -> tuple[str, float] | None:
        """The class with the lowest recall, IoU or AP, averaged over the seeds, and its value.

        ``None`` where there is none of single classes.
        """
        kind = f'{metric_names.OF_CLASSES.get(self.metric, (self.metric,))[0]}/'
        values = {name.removeprefix(kind): value for name, value in self.metrics.items() if name.startswith(kind)}
        return min(values.items(), key=lambda item: item[1]) if values else None

    def text(self) -> str:
        """Score in per cent."""
        mean, half = self.interval
        text = f'{100 * mean:.1f}' if half is None else f'{100 * mean:.1f} ± {100 * half:.1f}'
        return f'{text} {AT_EDGE}' if self.at_edge else text


def load(*workdirs: Path) -> list[Aggregate]:
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
    lines: dict[tuple[str, Variant, str, str, Settings], list[_Experiment]] = {}
    repetitions: dict[tuple, dict[int, tuple[Path, Row]]] = {}
    several = {
        workdir: {key for each, row in found if each == workdir for key, _ in row.cell.settings} for workdir in workdirs
    }
    elsewhere = {workdir: set().union(*several.values()) - keys for workdir, keys in several.items()}
    for workdir, row in found:
        cell = row.cell
        line = (labels[_data_identity(row)], cell.variant, cell.head, cell.regime, _settings(row, elsewhere[workdir]))
        experiments = lines.setdefault(line, [])
        experiment = next((each for each in experiments if each.takes(workdir, row)), None)
        if experiment is None:
            experiment = _Experiment(workdir, row)
            experiments.append(experiment)
        seeds = repetitions.setdefault((line, cell.fraction, _shots(row), experiments.index(experiment)), {})
        seeds.setdefault(cell.seed, (workdir, row))
    aggregates = []
    for (line, fraction, shots, number), seeds in repetitions.items():
        dataset, variant, head, regime, settings = line
        name = f'{regime} ({lines[line][number].workdir.name})' if len(lines[line]) > 1 else regime
        found_here = _aggregate(list(seeds.values()), variant, name, dataset, fraction)
        aggregates.append(dataclasses.replace(found_here, head=head, settings=settings, shots=shots))
    return [dataclasses.replace(aggregate, best=_is_best(aggregate, aggregates)) for aggregate in aggregates]


# How and where a run computes, and on which label fraction; rows that differ only in these are one experiment.
_NOT_DECISIVE = frozenset(
    {
        'seed', 'fraction', 'shots', 'mesh', 'threads', 'processes', 'prefetch', 'checkpoint_epochs',
        'keep_checkpoints', 'non_finite', 'tensorboard', 'wandb_project', 'bad_files_limit', 'log_steps',
    }
)  # fmt: skip


# What raw pixels do not depend on, though a row of another work directory may name it.
_OF_NETWORKS = frozenset({'image_size', 'image_height', 'strict_weights', 'calibration_images', 'tap'})


def _settings(row: Row, wanted: Set[str]) -> Settings:
    """The row's settings, and its values of the wanted keys, which only other work directories have several of."""
    found = dict(row.cell.settings)
    for key in wanted:
        value: object = row.config
        for name in key.split('.'):
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is not None and not (row.cell.variant.backbone == PIXELS and key in _OF_NETWORKS):
            found[key] = value
    # Shots are columns.
    return settings_from_json({key: found[key] for key in sorted(found) if key != 'shots'})


def _shots(row: Row) -> int:
    return row.config.get('shots', 0)


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
            [os.fsencode(name).decode('utf-8', 'backslashreplace')]  # a path may hold bytes that no font has
            + ([f'[{fingerprint[:6]}]'] if len(prints[name]) > 1 else [])
            + ([f'({metric})'] if len(metrics[name]) > 1 else [])
        )
        for name, fingerprint, metric in identities
    }


def _aggregate(
    members: Sequence[tuple[Path, Row]], variant: Variant, regime: str, dataset: str, fraction: float
) -> Aggregate:
    rows = [row for _, row in members]
    kept = [kept_scores.read(workdir / row.predictions) for workdir, row in members]
    # A training run omits unreadable examples, so seeds are compared on the examples that all of them have.
    examples = kept[0].ids
    for other in kept[1:]:
        if not np.array_equal(other.ids, examples):
            examples = np.intersect1d(examples, other.ids)
    correct = [None if each.correct is None else _of_examples(each.correct, each.ids, examples) for each in kept]
    resampled = [each.resampled for each in kept]
    # Samples are drawn by place, so that those of other examples, or in another order, are not paired.
    same = all(np.array_equal(each.ids, kept[0].ids) for each in kept)
    speeds = [row.costs['images_per_second'] for row in rows if row.costs['images_per_second']]
    return Aggregate(
        variant=variant,
        regime=regime,
        dataset=dataset,
        fraction=fraction,
        metric=rows[0].primary,
        scores=tuple(row.score for row in rows),
        metrics=_means(
            [_every_metric(workdir, row, scores) for (workdir, row), scores in zip(members, kept, strict=True)]
        ),
        validation=_means([row.validation for row in rows]),
        correct=_stacked(correct),
        resampled=_stacked(resampled) if same else None,
        examples=examples,
        # An older version counted FLOPs differently, so the newest row is used.
        costs={**rows[-1].costs, 'images_per_second': float(np.median(speeds)) if speeds else None},
        data=rows[-1].data,
        at_edge=Counter(name for row in rows for name in row.at_edge),
        choices=frozenset(row.choices for row in rows if row.choices),
        depends_on_seed=any(row.depends_on_seed for row in rows),
        members=tuple(members),
    )


def _every_metric(workdir: Path, row: Row, kept: kept_scores.Scores) -> dict[str, float]:
    """The metrics of a row's test split, those included that its version did not compute."""
    kind = kept.score_kind or older_rows.score_kind(row.cell.regime)
    return classification_metrics.of_kept(kept, row.test, lambda: record.classes(workdir, row.cell.dataset), kind)


def _stacked(arrays: Sequence[np.ndarray | None]) -> np.ndarray | None:
    present = [array for array in arrays if array is not None]
    return np.stack(present) if len(present) == len(arrays) else None


def _means(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric that all rows have."""
    shared = [name for name in metrics[0] if all(each.get(name) is not None for each in metrics)]
    return {name: float(np.mean([each[name] for each in metrics])) for name in shared}


def _of_examples(values: np.ndarray, ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The values of the wanted examples along the last axis, in the wanted order."""
    if np.array_equal(ids, wanted):
        return values
    order = np.argsort(ids)
    return values[..., order[np.searchsorted(ids, wanted, sorter=order)]]


def _is_best(aggregate: Aggregate, aggregates: Sequence[Aggregate]) -> bool:
    rivals = [
        other
        for other in aggregates
        if other is not aggregate and (other.dataset, other.share) == (aggregate.dataset, aggregate.share)
    ]
    return bool(rivals) and all(
        aggregate.interval[0] > other.interval[0]
        and apart(_known(aggregate), _known(other))
        and _differ_on_images(aggregate, other)
        for other in rivals
    )


def _differ_on_images(one: Aggregate, other: Aggregate) -> bool:
    """Whether two aggregates differ by more than a paired interval over test images."""
    if one.correct is not None and other.correct is not None:
        return paired_difference_is_significant(*_paired(one, other))
    if one.resampled is None or other.resampled is None or not np.array_equal(one.examples, other.examples):
        return False
    bounds = percentile_interval(one.resampled.mean(0) - other.resampled.mean(0))
    return bounds is not None and (bounds[0] > 0 or bounds[1] < 0)


def _known(aggregate: Aggregate) -> tuple[float, float | None]:
    """The interval over seeds, of width 0 if the seed changes nothing."""
    mean, half = aggregate.interval
    return (mean, half) if aggregate.depends_on_seed else (mean, 0.0)


def _paired(one: Aggregate, other: Aggregate) -> tuple[np.ndarray, np.ndarray]:
    """Whether each is right, on the examples that both have."""
    assert one.correct is not None and other.correct is not None
    if np.array_equal(one.examples, other.examples):
        return one.correct, other.correct
    shared = np.intersect1d(one.examples, other.examples)
    return _of_examples(one.correct, one.examples, shared), _of_examples(other.correct, other.examples, shared)


def datasets(aggregates: Sequence[Aggregate]) -> list[str]:
    """Data sets in the order of the results."""
    return list(dict.fromkeys(aggregate.dataset for aggregate in aggregates))
