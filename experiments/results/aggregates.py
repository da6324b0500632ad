"""The results of one line and column of a table: rows of all seeds together, and which of them is best."""

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from backbones.errors import UserError
from experiments.data import nouns, record
from experiments.results import classification_metrics, lines, metric_names, older_rows, robustness, seeds_and_images
from experiments.results import rows as result_rows
from experiments.results import scores as kept_scores
from experiments.results.axes import Settings, Variant, settings_in_words
from experiments.results.robustness import Robustness
from experiments.results.rows import Row
from experiments.results.seeds_and_images import Estimate, Repeated
from experiments.results.statistics import holm

AT_EDGE = '†'
# Of the tests behind bold type.
LEVEL = 0.05
# Of a metric: its per cent is still a number.
_LARGEST = 1e300


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
        best: whether it is better than every other aggregate of its column (``_marked``).
        p_best: adjusted p-value of its difference from the one with the highest mean of its column; of that one, from
            its nearest rival. ``None`` if it is unknown.
        members: the row of each seed, with its work directory, that of its shard where it has one.
        robustness: corruption → severity → the primary metric on the test split with it, averaged over the seeds; empty
            where it was not asked for (``results.robustness`` sums it up).
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
    p_best: float | None = None
    robustness: Robustness = dataclasses.field(default_factory=dict)

    @property
    def share(self) -> tuple[float, int]:
        """What tells the columns of a table apart, in their order: shots before fractions."""
        return (0.0, self.shots) if self.shots else (self.fraction, 0)

    @property
    def noun(self) -> str:
        """What an example of its data set is called, such as ``'image'``."""
        return nouns.of_data(self.data)

    @property
    def share_in_words(self) -> str:
        """Title of its column."""
        return f'{self.shots} per class' if self.shots else f'{self.fraction:g}'

    @property
    def method(self) -> str:
        """The regime and the settings, as short text."""
        return ' · '.join([self.regime, *settings_in_words(self.settings)])

    @property
    def mean(self) -> float:
        """The score, averaged over the seeds."""
        return float(np.mean(self.scores))

    @property
    def low(self) -> float | None:
        """Lower bound of the 95 % interval; see ``high``."""
        return None if self._bounds is None else self._bounds[0]

    @property
    def high(self) -> float | None:
        """Upper bound of the 95 % interval over other seeds and other test images (``Repeated.interval``).

        It is over images alone where no seed changes anything or there is only one (``varies_over_seeds``), and over
        seeds alone where nothing is known of single images (``varies_over_images``). ``None`` where neither is known.
        """
        return None if self._bounds is None else self._bounds[1]

    @functools.cached_property
    def _bounds(self) -> tuple[float, float] | None:
        found = self._repeated()
        if found is None:
            if not self.varies_over_seeds or min(self.scores) == max(self.scores):
                return None
            found = Repeated(np.array(self.scores), np.zeros((len(self.scores), 1)), 1, self._seeds)
        low, high = found.interval()
        # Of seeds that could not read the same images, the interval is of those that all could.
        return min(float(low), self.mean), max(float(high), self.mean)

    @property
    def varies_over_seeds(self) -> bool:
        """Whether the interval is over seeds."""
        return self.depends_on_seed and len(self.scores) > 1

    @property
    def varies_over_images(self) -> bool:
        """Whether the interval is over test images."""
        return self._repeated() is not None

    @property
    def _seeds(self) -> tuple[int, ...]:
        return tuple(row.cell.seed for _, row in self.members) or tuple(range(len(self.scores)))

    def _repeated(self, examples: np.ndarray | None = None) -> Repeated | None:
        """The scores and what they owe to single images; on some of the examples, if the metric is a mean over them."""
        if self.correct is not None:
            correct = _of_examples(self.correct, self.examples, self.examples if examples is None else examples)
            return Repeated.of_examples(correct, self._seeds, self.depends_on_seed) if correct.shape[1] else None
        if self.resampled is None or np.isnan(self.resampled).any(0).all():
            return None
        return Repeated.of_samples(self.scores, self.resampled, len(self.examples), self._seeds, self.depends_on_seed)

    @functools.cached_property
    def corrupted_interval(self) -> tuple[float, float] | None:
        """95 % interval, like ``low`` and ``high``, of the mean over corruptions and severities; ``None``: unknown.

        Read when it is asked for: a file of scores has a bit for each image, corruption and severity.

        Raises:
            UserError: the scores of a seed cannot be read.
        """
        values = []
        for workdir, row in self.members:
            ids, correct = kept_scores.read_corrupted(workdir / row.predictions)
            found = robustness.of_examples(self.robustness, correct)
            if found is None:
                return None
            values.append(_of_examples(found, ids, self.examples))
        if not values:
            return None
        low, high = Repeated.of_examples(np.stack(values), self._seeds, self.depends_on_seed).interval()
        mean = robustness.mean(self.robustness)
        return min(float(low), mean), max(float(high), mean)

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
        """Score in per cent, and its interval."""
        text = f'{100 * self.mean:.1f}'
        if self.low is not None and self.high is not None:
            text += f' ({100 * self.low:.1f}–{100 * self.high:.1f})'
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
    return _marked([_aggregate(line) for line in lines.of_rows(found)])


def _aggregate(line: lines.Line) -> Aggregate:
    members = tuple(itertools.starmap(result_rows.held, line.members))
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
        variant=line.variant,
        head=line.head,
        regime=line.regime,
        settings=line.settings,
        dataset=line.dataset,
        fraction=line.fraction,
        shots=line.shots,
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
        members=members,
        robustness=robustness.of_rows(rows),
    )


def _every_metric(workdir: Path, row: Row, kept: kept_scores.Scores) -> dict[str, float]:
    """The metrics of a row's test split, those included that its version did not compute."""
    kind = kept.score_kind or older_rows.score_kind(row.cell.regime)
    return classification_metrics.of_kept(kept, row.test, lambda: record.classes(workdir, row.cell.dataset), kind)


def _stacked(arrays: Sequence[np.ndarray | None]) -> np.ndarray | None:
    present = [array for array in arrays if array is not None]
    return np.stack(present) if len(present) == len(arrays) else None


def _means(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric that all rows have, as a number that a table can show."""
    # The loss of a training that diverged is none.
    shared = [name for name in metrics[0] if all(_is_shown(each.get(name)) for each in metrics)]
    return {name: float(np.mean([each[name] for each in metrics])) for name in shared}


def _is_shown(value: float | None) -> bool:
    return value is not None and abs(value) < _LARGEST  # false for those that are no numbers


def _of_examples(values: np.ndarray, ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The values of the wanted examples along the last axis, in the wanted order."""
    if np.array_equal(ids, wanted):
        return values
    order = np.argsort(ids)
    return values[..., order[np.searchsorted(ids, wanted, sorter=order)]]


def p_value(one: Aggregate, other: Aggregate) -> float | None:
    """Two-sided p-value of the difference of two scores, over other seeds and other test images.

    ``None`` where it is unknown: on other data, or where a score depends on the seed and there is one seed only.
    """
    found = _difference(one, other)
    return None if found is None else float(found.p_value())


def _difference(one: Aggregate, other: Aggregate) -> Estimate | None:
    if (one.dataset, one.metric) != (other.dataset, other.metric):
        return None
    examples = one.examples
    if not np.array_equal(examples, other.examples):
        # Samples are drawn by place, so those of other examples are not paired.
        if one.correct is None or other.correct is None:
            return None
        examples = np.intersect1d(examples, other.examples)
    first, second = (each._repeated(examples) for each in (one, other))
    return None if first is None or second is None else seeds_and_images.difference(first, second)


def _marked(aggregates: Sequence[Aggregate]) -> list[Aggregate]:
    """Compare the highest mean of each column with all others, and mark it where each of them differs at 5 %.

    A table is the columns (label fractions, or shots) of a data set. All comparisons that it makes are adjusted
    together by Holm's method, so that in 5 % of tables at most a mark is there by chance.
    """
    result = list(aggregates)
    for dataset in datasets(aggregates):
        columns: dict[tuple[float, int], list[int]] = {}
        for index, aggregate in enumerate(aggregates):
            if aggregate.dataset == dataset:
                columns.setdefault(aggregate.share, []).append(index)
        pairs = []
        for column in columns.values():
            best = max(column, key=lambda index: aggregates[index].mean)
            pairs += [(best, rival) for rival in column if rival != best]
        found = [_difference(aggregates[best], aggregates[rival]) for best, rival in pairs]
        # What is unknown counts as equal, and so does what is worse on those seeds or examples that both have.
        values = [1.0 if each is None or each.mean < 0 else float(each.p_value()) for each in found]
        adjusted: dict[int, list[float | None]] = {}
        for pair, difference, value in zip(pairs, found, holm(values), strict=True):
            for index in pair:
                adjusted.setdefault(index, []).append(None if difference is None else float(value))
        for best, others in adjusted.items():
            known = [value for value in others if value is not None]
            p_best = max(known) if len(known) == len(others) else None
            leads = any(best == pair[0] for pair in pairs)
            result[best] = dataclasses.replace(
                aggregates[best], p_best=p_best, best=leads and p_best is not None and p_best < LEVEL
            )
    return result


def tokens_in_words(aggregates: Iterable[Aggregate]) -> str:
    """The lengths for which FLOPs of texts are counted, after their noun: ``' of 64 tokens'``; empty for images."""
    inputs = (aggregate.costs.get('input') or () for aggregate in aggregates)
    return nouns.of_lengths(size[0] for size in inputs if len(size) == 1)


def datasets(aggregates: Sequence[Aggregate]) -> list[str]:
    """Data sets in the order of the results."""
    return list(dict.fromkeys(aggregate.dataset for aggregate in aggregates))
