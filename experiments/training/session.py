"""A training with its data: what is read, where it is computed, and what a person sees before it starts."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import jax
import ml_collections
from rich.table import Table

from backbones import freezing
from backbones.errors import UserError
from experiments.cli import atomic_files, display
from experiments.data import pipeline, sampling
from experiments.data.dataset import Dataset
from experiments.data.random_augment import random_augment
from experiments.training import mesh
from experiments.training.evaluation import Evaluation, evaluate
from experiments.training.monitor import Monitor
from experiments.training.setup import Setup

_EVALUATION_BATCH = 256


class Session:
    """A training with its data; ``loop.fit`` runs it.

    Args:
        config: see ``config.default_config``.
        dataset: what to train on.
        directory: for checkpoints and metrics.
        devices: all by default.

    Raises:
        UserError: a value of the config does not fit.
    """

    def __init__(self, config: ml_collections.ConfigDict, dataset: Dataset, directory: Path, devices=None):
        self.config, self.dataset, self.directory = config, dataset, directory
        self.device_mesh = mesh.make(config.mesh.data, config.mesh.fsdp, devices)
        classes = len(dataset.classes)
        self.indices = dataset.fraction(config.fraction, config.seed)
        batch_size = self._batch_size(len(self.indices))
        self.sampler = sampling.Sampler(config.sampler, config.seed, self.indices, dataset.targets, batch_size)
        weights = ()
        if config.class_weights != 'none':
            weights = tuple(
                map(float, sampling.class_weights(config.class_weights, dataset.targets, self.indices, classes))
            )
        height, width, channels = dataset.images.shape[1:]
        self.setup = Setup(
            config,
            classes,
            (height, width, channels),
            batch_size,
            self.sampler.steps_per_epoch,
            self.device_mesh,
            weights,
        )
        self.setup.check()
        self.rows = self.device_mesh.rows(batch_size)
        self.is_main_process = jax.process_index() == 0
        self._evaluation_step = self.setup.evaluation_step()

    def _batch_size(self, examples: int) -> int:
        """What the config says, or all examples where those are fewer, in equal shares."""
        if examples >= self.config.batch_size > 0:
            return self.config.batch_size
        unit = self.device_mesh.devices * max(self.config.accumulation, 1)
        if examples < unit:
            raise UserError(f'{examples} training examples are too few for batches of {unit}: one per device and part')
        return examples // unit * unit

    @property
    def keeps_best(self) -> bool:
        """Whether the result is the best epoch, not the last one."""
        return self.config.keep_best or self.config.early_stopping_epochs > 0

    @property
    def phase_names(self) -> list[str]:
        """As the regime calls them; the only phase has the regime's own name, numbers included."""
        regime = self.setup.regime
        return [phase.name for phase in regime.phases] if len(regime.phases) > 1 else [regime.name]

    def freeze_tables(self) -> list[Table]:
        """What trains, one table per phase."""
        params, tables = self.setup.abstract_variables['params'], []
        for phase, name in enumerate(self.phase_names):
            title = f'{self.config.backbone} · {name} · {self.dataset.name} · {self.setup.phase_steps(phase):,} steps'
            tables.append(display.freeze_table(title, freezing.table(params, self.setup.rules(phase))))
        return tables

    def save_freeze_tables(self) -> None:
        """The same, as ``parameters.json``."""
        params = self.setup.abstract_variables['params']
        phases = [
            {
                'phase': name,
                'rules': [dataclasses.asdict(row) for row in freezing.table(params, self.setup.rules(phase))],
            }
            for phase, name in enumerate(self.phase_names)
        ]
        atomic_files.write_json(self.directory / 'parameters.json', phases)

    def introduce(self) -> None:
        """Show what trains and where."""
        for table in self.freeze_tables():
            display.console.print(table)
        display.console.print(f'{self.device_mesh.describe()}, {self.setup.batch_size} images per step')

    def batches(self, first: int, end: int) -> pipeline.Batches:
        """This process's rows of the batches of steps ``first`` to ``end``."""
        config = self.config
        transform = None
        if config.rand_augment_layers:
            transform = functools.partial(
                random_augment, layers=config.rand_augment_layers, magnitude=config.rand_augment_magnitude
            )
        return pipeline.training_batches(
            self.dataset,
            self.sampler,
            first,
            end,
            rows=self.rows,
            transform=transform,
            seed=config.seed,
            threads=config.threads,
            processes=config.processes,
            prefetch=config.prefetch,
            bad_files_limit=config.bad_files_limit,
        )

    def place(self, host: pipeline.HostBatch) -> dict:
        """A batch on the devices."""
        return self.device_mesh.batch_arrays(host.arrays, self.rows, self.setup.batch_size)

    def evaluate(
        self,
        variables: dict,
        split: str,
        monitor: Monitor | None = None,
        stops: Callable[[], bool] = lambda: False,
    ) -> Evaluation:
        """Evaluate a split with variables that lie on the devices (``TrainState.variables``).

        Raises:
            GivenUp: see ``evaluation.evaluate``.
        """
        examples = len(self.dataset.splits[split])
        # No larger than need be: the last batch is filled up.
        unit = self.device_mesh.devices
        batch_size = min(-(-_EVALUATION_BATCH // unit), -(-examples // unit)) * unit
        task = monitor.task(split, examples) if monitor else None
        try:
            return evaluate(
                self._evaluation_step,
                variables,
                self.dataset,
                split,
                batch_size,
                self.device_mesh,
                self.config,
                (lambda count: monitor.advance(task, by=count)) if monitor else (lambda count: None),
                stops,
            )
        finally:
            if monitor:
                monitor.done(task)
