"""Runs the unfinished cells of an ablation."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path

import jax
import ml_collections
import numpy as np
from rich.progress import Progress

from backbones.errors import AbsentWeightsError, UserError
from backbones.pretrained import sources
from experiments import probes, tasks
from experiments.ablation import growth, left_out, robustness, settings
from experiments.ablation.cell_configs import CellConfigs
from experiments.ablation.cell_rows import CellRows
from experiments.ablation.cells import KEYS, RANDOM, Cell, Variant
from experiments.ablation.dependencies import FROZEN_REGIMES, NOT_OF_TRAINING
from experiments.ablation.journal import Journal
from experiments.ablation.selection import Shard
from experiments.ablation.sweep import sweep
from experiments.ablation.time_limit import TimeLimit
from experiments.cli import display, work_directories
from experiments.cli.atomic_files import DiskError
from experiments.data import texts
from experiments.data.corruptions import Corruption
from experiments.data.dataset import Dataset
from experiments.features.extractor import Costs, Extractor
from experiments.features.frozen_backbone import frozen_backbone
from experiments.features.store import Store
from experiments.features.throughput import Throughputs
from experiments.probes.common import Outcome, ProbeData, Subset, at_edge
from experiments.probes.refit import refit
from experiments.results.axes import Settings, settings_in_words
from experiments.training import loop, own_keys, session

# What precedes the keys of a training's config on the command line.
_TRAINING_KEYS = 'config.training.'
# What ends a run, not only a cell, because it would make all others fail too, such as a full disk.
_OF_ALL = (OSError, DiskError)


# By label fraction and shots, and seed.
Subsets = Mapping[tuple[tuple[float, int], int], Subset]


class Engine:
    """Runs cells and appends each finished one to ``results.jsonl``.

    Args:
        config: the ablation's config (``cells.default_config``).
        workdir: holds results, predictions and unfinished work.
        load: loads a data set by name; called only for those that a cell needs.
        store: feature store; the default one if ``None``.
        accept_changed_data: whether finished cells whose data have changed are computed again.
        root: the work directory that this one is a shard of; what is finished there, or in another shard, is not run.
        limit: on the time of a run.

    Raises:
        UserError: the work directory is not an ablation's, or its finished cells depend on other config values.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        workdir: Path,
        load: Callable[[str], Dataset],
        store: Store | None = None,
        accept_changed_data: bool = False,
        root: Path | None = None,
        limit: TimeLimit | None = None,
    ):
        self._config = config
        self._task = tasks.find(config.training.task)
        self._workdir = workdir
        self._read = load
        self._store = store or Store()
        self._throughputs = Throughputs(workdir, self._store)
        self._accept_changed_data = accept_changed_data
        self._limit = limit or TimeLimit()
        self._journal = Journal(config, workdir, root)
        self._configs = CellConfigs(config, self._journal.axes)
        self._rows = CellRows(self._configs, self._task, workdir)

    def load(self, name: str) -> Dataset:
        """Load a data set of this ablation.

        Raises:
            UserError: it cannot be loaded, or finished cells were computed from other data under this name.
        """
        dataset = self._read(name)
        self._journal.check_data(dataset, self._accept_changed_data)
        return dataset

    def finished(self, cells: Sequence[Cell]) -> list[str]:
        """The data sets of the cells that have a result."""
        planned = set(self._journal.settled(cells))
        return list(dict.fromkeys(row.cell.dataset for row in self._journal.finished if row.cell in planned))

    def claim(self, cells: Sequence[Cell], plan: Sequence[Cell] | None = None, left_out: Iterable[Cell] = ()) -> None:
        """Record this config as the work directory's (``Journal.claim``).

        Raises:
            UserError: weights have changed since cells of the same variant were finished.
        """
        self._journal.claim(cells, plan, left_out)

    def pending(self, cells: Sequence[Cell]) -> list[Cell]:
        """The cells without a result, with the settings that their rows will have."""
        return self._journal.pending(cells)

    def part(self, cells: Sequence[Cell], shard: Shard) -> list[Cell]:
        """The cells of a shard: all heads on every n-th of the features, and every n-th training.

        All shards of a config agree on it, whatever is finished.
        """
        jobs = self._jobs(self._journal.settled(cells))
        self._journal.places = {cell: place for place, cell in enumerate(cell for job in jobs for cell in job)}
        return [cell for job in jobs[shard.number - 1 :: shard.count] for cell in job]

    def _jobs(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        """The cells that are computed together, on the same features or by one training, in the order of a run."""
        jobs: dict[Hashable, list[Cell]] = {}
        for name in dict.fromkeys(cell.dataset for cell in cells):
            group = [cell for cell in cells if cell.dataset == name]
            for cell in group:
                if cell.regime in FROZEN_REGIMES:
                    found = (name, self._extractor(cell), frozen_backbone(cell.variant, cell.seed))
                    jobs.setdefault(found, []).append(cell)
            jobs |= {cell: [cell] for cell in group if cell.regime not in FROZEN_REGIMES}
        return [[cell for heads in _by_head(job).values() for cell in heads] for job in jobs.values()]

    def absent_weights(self, cells: Sequence[Cell]) -> dict[Variant, str]:
        """The variants of pending cells whose published weights are not here and cannot be fetched, each with why.

        Raises:
            UserError: a source that there is not.
        """
        found = {}
        for variant in dict.fromkeys(cell.variant for cell in self.pending(cells)):
            if variant.weights in ('', RANDOM):
                continue
            try:
                sources.resolve(variant.weights)
            except AbsentWeightsError as error:
                found[variant] = str(error)
        return found

    def check_without_data(self, cells: Sequence[Cell]) -> None:
        """Check the weights of the pending cells, by loading them, and the recipes of their trainings.

        Raises:
            UserError: weights cannot be read, do not fit or have changed since cells were finished; or a training
                cannot begin with the config's values on these devices.
        """
        pending = self.pending(cells)
        self._journal.check_weights({cell.variant for cell in pending})
        for extract, backbone in dict.fromkeys(
            (self._extractor(cell), frozen_backbone(cell.variant, 0))
            for cell in pending
            if not growth.has_begun(self._workdir, cell)
        ):
            with own_keys.named():
                extract.check(backbone)
        for cell in _one_each(
            [cell for cell in pending if cell.regime not in FROZEN_REGIMES],
            lambda cell: (cell.variant, cell.regime, cell.head, cell.settings),
        ):
            with _own_keys():
                session.check_without_data(self._configs.training(cell))

    def possible(self, cells: Sequence[Cell]) -> tuple[list[Cell], list[str]]:
        """The cells whose label fraction leaves every class of their data set a training image.

        Finished cells are possible, and their data are not read.

        Returns:
            These cells, and a sentence on each fraction that is left out of a data set.

        Raises:
            UserError: no cell is possible, or a data set cannot be read.
        """
        cells = self._journal.settled(cells)
        pending = set(self.pending(cells))
        impossible: dict[tuple[str, tuple[float, int]], str] = {}
        for name in dict.fromkeys(cell.dataset for cell in cells if cell in pending):
            shares = [self._configs.share(cell) for cell in cells if cell in pending and cell.dataset == name]
            dataset = self.load(name)
            few = left_out.too_few(dataset, [shots for _, shots in shares if shots])
            small = left_out.too_small(dataset, [fraction for fraction, shots in shares if not shots])
            impossible |= {(name, (1.0, shots)): sentence for shots, sentence in few.items()}
            impossible |= {(name, (fraction, 0)): sentence for fraction, sentence in small.items()}
        kept = [
            cell for cell in cells if cell not in pending or (cell.dataset, self._configs.share(cell)) not in impossible
        ]
        if not kept:
            raise UserError(f'no cell of the ablation can be run; {"; ".join(impossible.values())}')
        return kept, list(impossible.values())

    def check_with_data(self, cells: Sequence[Cell]) -> None:
        """Trace the trainings of the pending cells, and compare the largest with the memory that there is.

        Raises:
            UserError: a training cannot be run on its data.
        """
        sessions = []
        for cell in self.pending(cells):
            if cell.regime not in FROZEN_REGIMES and not growth.has_begun(self._workdir, cell):
                config, dataset = self._configs.training(cell), self.load(cell.dataset)
                with _own_keys():
                    made = session.Session(config, dataset, self._workdir, keys=_TRAINING_KEYS)
                    if all(made.programs is not other.programs for other in sessions):
                        made.trace()
                        sessions.append(made)
        if sessions:
            # The others are compiled, and compared, when they begin.
            largest = max(sessions, key=lambda each: each.programs.computed_bytes())
            with display.console.status('compiling the largest training'):
                for phase in range(len(largest.phase_names)):
                    largest.train_step(phase)

    def is_stored(self, cell: Cell, dataset: Dataset) -> bool:
        """Whether the frozen backbone of a cell need not run, because its features are stored."""
        return self._extractor(cell).is_stored(frozen_backbone(cell.variant, cell.seed), dataset)

    def _extractor(self, cell: Cell) -> Extractor:
        return self._extractor_at(settings.of_features(cell.settings), probes.TAPS_OF_POSITIONS.get(cell.regime))

    @functools.cache  # noqa: B019 an engine lives as long as its command
    def _extractor_at(self, chosen: Settings, tap: str | None) -> Extractor:
        shared = self._extractor_of_all_taps(settings.of_passes(chosen))
        return shared.at(tap or settings.resolved(self._config, KEYS, chosen).tap, in_memory=tap is None)

    @functools.cache  # noqa: B019 see above
    def _extractor_of_all_taps(self, chosen: Settings) -> Extractor:
        config = settings.resolved(self._config, KEYS, chosen)
        return Extractor(config, self._store, self._workdir, throughputs=self._throughputs)

    def run(self, cells: Sequence[Cell]) -> None:
        """Run the pending cells, one data set and one pass at a time.

        Raises:
            UserError: a data set or a label fraction cannot be used; finished cells are kept.
            CellsFailed: some cells failed, and all others are finished.
            Preempted: the time limit would be passed, or the process was asked to stop.
        """
        pending = self.pending(cells)
        for variant in dict.fromkeys(cell.variant for cell in pending):
            self._rows.weights_digest(variant)  # before they are loaded: a training that is still running replaces them
        for name in dict.fromkeys(cell.dataset for cell in pending):
            dataset = self.load(name)
            group = [cell for cell in pending if cell.dataset == name]
            subsets = self._subsets(dataset, group)
            jobs = self._jobs(group)
            self._run_frozen(dataset, [job for job in jobs if job[0].regime in FROZEN_REGIMES], subsets)
            for cell in (job[0] for job in jobs if job[0].regime not in FROZEN_REGIMES):
                self._attempt([cell], cell.regime, functools.partial(self._run_training, dataset, cell))
        self._journal.raise_if_failed(cells)

    def _attempt(self, cells: Sequence[Cell], kind: str, compute: Callable[[], object]) -> bool:
        """Compute cells within the time limit; if that fails, record it and go on.

        Args:
            kind: what this is among things that take equally long.

        Returns:
            Whether it has not failed.
        """
        with self._limit.work(kind, len(self.pending(cells))):
            try:
                compute()
            except _OF_ALL:
                raise
            except Exception as error:
                self._journal.note_failure(cells, error)
                return False
        return True

    def _subsets(self, dataset: Dataset, cells: Sequence[Cell]) -> Subsets:
        """Draw every training subset up front, so that an impossible one is found at once."""
        found = {}
        for share, seed in dict.fromkeys((self._configs.share(cell), cell.seed) for cell in cells):
            rows = dataset.labelled(*share, seed)
            used = len(rows) / len(dataset.splits['train']) if share[1] else share[0]
            found[share, seed] = Subset(seed, used, rows)
        return found

    def _run_frozen(
        self,
        dataset: Dataset,
        passes: Sequence[Sequence[Cell]],
        subsets: Subsets,
    ) -> None:
        if not passes:
            return
        with display.progress() as bar:
            total = sum(len(dataset.targets) + self._corrupted_examples(dataset, cells) for cells in passes)
            task = bar.add_task(f'{texts.inputs_of(dataset)} of {dataset.name}', total=total, note='')
            for siblings in _by_network(passes):
                backbone = frozen_backbone(siblings[0][0].variant, siblings[0][0].seed)
                if len(siblings) > 1 and not self._attempt(
                    [cell for cells in siblings for cell in cells],
                    'pass for several taps',
                    functools.partial(self._hold, dataset, siblings, bar),
                ):
                    continue
                for number, cells in enumerate(siblings):
                    label = ' · '.join([backbone.label, *settings_in_words(settings.of_features(cells[0].settings))])
                    bar.update(task, note=label)
                    compute = functools.partial(
                        self._run_pass, dataset, cells, subsets, bar, label, siblings[number + 1 :]
                    )
                    self._attempt(cells, 'pass', compute)

    def _hold(self, dataset: Dataset, siblings: Sequence[Sequence[Cell]], bar: Progress) -> None:
        """Get the features of one backbone at several taps, from one pass as far as they are not stored.

        Args:
            siblings: the cells of each tap.
        """
        (task,) = bar.task_ids
        first = siblings[0][0]
        backbone = frozen_backbone(first.variant, first.seed)
        names = [self._extractor(cells[0]).tap for cells in siblings]
        words = settings_in_words(settings.of_passes(first.settings))
        bar.update(task, note=' · '.join([backbone.label, *words, f'{len(names)} taps']))
        self._extractor(first).hold(backbone, dataset, names, lambda count: bar.advance(task, count))

    def _corrupted_examples(self, dataset: Dataset, cells: Sequence[Cell]) -> int:
        """How many corrupted test images the heads of a pass are applied to."""
        return len(self._conditions(cells)) * len(dataset.splits['test'])

    def _conditions(self, cells: Sequence[Cell]) -> list[Corruption]:
        """The corruptions that the heads of a pass are applied under, one head after the other."""
        heads = [chosen[0].settings for chosen in _by_head(cells).values()]
        return [condition for chosen in heads for condition in robustness.conditions(self._configs.at(chosen))]

    def _run_pass(
        self,
        dataset: Dataset,
        cells: Sequence[Cell],
        subsets: Subsets,
        bar: Progress,
        label: str,
        to_come: Sequence[Sequence[Cell]],
    ) -> None:
        """Get the features of one backbone, and fit all heads on them.

        Args:
            label: of the pass.
            to_come: the cells of other taps of the same backbone.
        """
        (task,) = bar.task_ids
        of_positions = cells[0].regime in probes.TAPS_OF_POSITIONS
        extract, backbone = self._extractor(cells[0]), frozen_backbone(cells[0].variant, cells[0].seed)
        extracted, costs = extract(backbone, dataset, lambda count: bar.advance(task, count))
        # Unreadable examples are left out.
        seen = extracted.dataset
        readable = {
            key: dataclasses.replace(subset, rows=extracted.readable(subset.rows)) for key, subset in subsets.items()
        }
        data = ProbeData(
            extracted.values if of_positions else extracted.values.reshape(len(seen.targets), -1),
            seen.targets,
            len(seen.classes),
            seen.splits['validation'],
            seen.splits['test'],
            self._score,
            padded=texts.are_texts(dataset),
        )

        def fit(chosen: Sequence[Cell]) -> None:
            regime, config = chosen[0].regime, self._configs.at(chosen[0].settings)
            normalised = data.normalised(config.normalisation) if regime in probes.NORMALISED else data
            selecting = seen.with_validation(config.validation_images)
            given = dataclasses.replace(normalised, validation=selecting.splits['validation'])
            mine = [readable[self._configs.share(cell), cell.seed] for cell in chosen]

            def tell(text: str) -> None:
                bar.update(task, note=f'{label}: {text}')

            outcomes = probes.TABLE[regime](given, mine, config[regime], tell)
            if config.refit:
                outcomes = refit(probes.TABLE[regime], given, mine, outcomes, config[regime], tell)
            found = robustness.of_heads(
                outcomes,
                robustness.conditions(config),
                functools.partial(
                    robustness.features,
                    extract,
                    backbone,
                    dataset,
                    seen,
                    given,
                    advance=lambda count: bar.advance(task, count),
                    beside=lambda condition: [
                        self._extractor(other[0]).tap for other in to_come if condition in self._conditions(other)
                    ],
                ),
                functools.partial(robustness.scored, self._task, targets=seen.targets[seen.splits['test']]),
                tell,
                lambda: self._limit.work('corruption', len(self.pending(chosen))),
            )
            self._journal.append(
                [
                    self._rows.make(dataset, selecting, cell, outcome, costs, len(subset.rows), corrupted)
                    for cell, outcome, subset, corrupted in zip(chosen, outcomes, mine, found, strict=True)
                ]
            )

        def fit_those_that_can_be(chosen: Sequence[Cell]) -> None:
            try:
                fit(chosen)
            except _OF_ALL:
                raise
            except Exception:
                if len(chosen) == 1:
                    raise
                # One of them may be at fault.
                for cell in chosen:
                    bar.update(task, total=(bar.tasks[0].total or 0) + self._corrupted_examples(dataset, [cell]))
                    self._attempt([cell], f'one {cell.regime}', functools.partial(fit, [cell]))

        for chosen in _by_head(cells).values():
            self._attempt(chosen, chosen[0].regime, functools.partial(fit_those_that_can_be, chosen))

    def _score(self, scores: np.ndarray, labels: np.ndarray) -> float:
        """The task's primary metric of a probe's scores."""
        return self._task.score({'logits': scores}, labels)[self._task.primary]

    def _run_training(self, dataset: Dataset, cell: Cell) -> None:
        """Train once per learning rate, select on validation, and evaluate only the selected one on the test split."""
        self._journal.check_weights({cell.variant})
        begun = growth.begin_trainings(self._workdir, cell, dataset)

        def train(rate: float) -> loop.Trained:
            directory = work_directories.make(begun / f'{rate:g}')
            config, label = self._configs.training(cell, rate), f'{cell.label} · learning rate {rate:g}'
            return loop.fit(config, dataset, directory, tables=False, keys=_TRAINING_KEYS, label=label)

        config = self._configs.at(cell.settings)
        with _own_keys():
            rate, trained, rates = sweep(config.training_learning_rates, config.training_extra_learning_rates, train)
        validation, test = trained.evaluate('validation'), trained.evaluate('test')
        outcome = Outcome(
            selected={'learning_rate': rate},
            validation_score=trained.validation_score,
            predictions=test.predictions,
            validation_predictions=validation.predictions,
            trainable_parameters=trained.trainable,
            at_edge=at_edge({'learning_rate': rate}, {'learning_rate': rates}),
            choices=len(rates),
        )
        parameters = sum(leaf.size for leaf in jax.tree.leaves(trained.variables['params']['backbone']))
        size = trained.task.preprocessing.size
        costs = Costs(parameters, input_size=size, weight_bytes=trained.backbone_bytes)
        reasons = dict((*validation.bad, *test.bad))
        evaluated = np.concatenate([dataset.splits['validation'], dataset.splits['test']])
        bad = {int(index): reasons[dataset.ids[index]] for index in evaluated if dataset.ids[index] in reasons}
        seen = dataset.without(bad)
        found = robustness.of_training(
            lambda data: trained.evaluate('test', dataset=data).predictions['logits'],
            seen,
            robustness.conditions(config),
            functools.partial(robustness.scored, self._task, targets=seen.targets[seen.splits['test']]),
            lambda: self._limit.work(f'corruption, {cell.regime}', len(self.pending([cell]))),
        )
        self._journal.append([self._rows.make(dataset, seen, cell, outcome, costs, trained.examples, found)])


def _own_keys() -> contextlib.AbstractContextManager[None]:
    """Name keys of a training as those of the ablation."""

    def own(key: str) -> str:
        if key == 'learning_rate':
            return 'training_learning_rates'
        return key if key in NOT_OF_TRAINING else f'training.{key}'

    return own_keys.named(own)


def _by_head(cells: Sequence[Cell]) -> dict[tuple[str, Settings], list[Cell]]:
    """The cells of each regime and settings, whose heads are fitted together."""
    found: dict[tuple[str, Settings], list[Cell]] = {}
    for cell in cells:
        found.setdefault((cell.regime, cell.settings), []).append(cell)
    return found


def _by_network(passes: Sequence[Sequence[Cell]]) -> list[list[Sequence[Cell]]]:
    """The passes over a data set that differ in their taps alone, which one pass can give."""
    found: dict[Hashable, list[Sequence[Cell]]] = {}
    for cells in passes:
        key = settings.of_passes(cells[0].settings), frozen_backbone(cells[0].variant, cells[0].seed)
        found.setdefault(key, []).append(cells)
    return list(found.values())


def _one_each(cells: Sequence[Cell], kind: Callable[[Cell], Hashable]) -> list[Cell]:
    """The first cell of each kind."""
    return list({kind(cell): cell for cell in reversed(cells)}.values())[::-1]
