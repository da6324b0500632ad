"""Running the cells of an ablation that are not finished yet."""

import dataclasses
import importlib.metadata
import platform as machine
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import ml_collections
import numpy as np

from backbones import cost
from experiments import probes
from experiments.ablation.cells import FROZEN_REGIMES, RANDOM, Cell
from experiments.cli import atomic_files, display, work_directories
from experiments.data.dataset import Dataset
from experiments.features.extractor import Costs, Extractor
from experiments.features.frozen_backbone import FrozenBackbone
from experiments.features.store import Store
from experiments.probes.common import Outcome, ProbeData, Subset
from experiments.training import loop

RESULTS = 'results.jsonl'


def versions() -> dict[str, str]:
    """What the numbers may depend on."""
    packages = ('jax', 'jaxlib', 'flax', 'optax', 'numpy')
    device = jax.devices()[0]
    return {
        'python': machine.python_version(),
        **{package: importlib.metadata.version(package) for package in packages},
        'device': f'{jax.device_count()} x {device.device_kind}',
    }


class Engine:
    """Runs cells and appends each finished one to ``results.jsonl``.

    Args:
        config: of the ablation (``cells.default_config``).
        workdir: where results, predictions and unfinished work are kept.
        load: data set by name; each is loaded at most once, and only if a cell needs it.
        store: of features that are computed already; the default one if ``None``.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        workdir: Path,
        load: Callable[[str], Dataset],
        store: Store | None = None,
    ):
        self._config = config
        self._workdir = workdir
        self._load = load
        self._extract = Extractor(config, store or Store(), workdir)
        self._rows = atomic_files.read_jsonl(workdir / RESULTS)

    def pending(self, cells: Sequence[Cell]) -> list[Cell]:
        """The cells without a result."""
        finished = {Cell.from_json(row['cell']) for row in self._rows}
        return [cell for cell in cells if cell not in finished]

    def run(self, cells: Sequence[Cell]) -> None:
        """Run what is pending, data set by data set and pass by pass.

        Raises:
            UserError: a data set, a weight file or a label fraction does not work out; what is finished is kept.
        """
        pending = self.pending(cells)
        for name in dict.fromkeys(cell.dataset for cell in pending):
            dataset = self._load(name)
            group = [cell for cell in pending if cell.dataset == name]
            subsets = self._subsets(dataset, group)
            frozen = [cell for cell in group if cell.regime in FROZEN_REGIMES]
            by_backbone: dict[FrozenBackbone, list[Cell]] = {}
            for cell in frozen:
                init_seed = cell.seed if cell.variant.weights == RANDOM else 0
                backbone = FrozenBackbone(cell.variant.backbone, cell.variant.weights, init_seed)
                by_backbone.setdefault(backbone, []).append(cell)
            self._run_frozen(dataset, by_backbone, subsets)
            for cell in group:
                if cell.regime not in FROZEN_REGIMES:
                    self._run_training(dataset, cell)

    def _subsets(self, dataset: Dataset, cells: Sequence[Cell]) -> dict[tuple[float, int], Subset]:
        """Every training subset, made before anything is computed, so that an impossible fraction is found at once."""
        return {
            (fraction, seed): Subset(seed, fraction, dataset.fraction(fraction, seed))
            for fraction, seed in dict.fromkeys((cell.fraction, cell.seed) for cell in cells)
        }

    def _run_frozen(
        self, dataset: Dataset, by_backbone: dict[FrozenBackbone, list[Cell]], subsets: dict[tuple[float, int], Subset]
    ) -> None:
        with display.progress() as bar:
            task = bar.add_task(dataset.name, total=len(by_backbone) * len(dataset.targets), note='')
            for backbone, cells in by_backbone.items():
                label = backbone.label
                bar.update(task, note=label)
                extracted, costs = self._extract(backbone, dataset, lambda count: bar.advance(task, count))
                # Without the examples that could not be read.
                seen = extracted.dataset
                readable = {
                    key: dataclasses.replace(subset, rows=extracted.readable(subset.rows))
                    for key, subset in subsets.items()
                }
                data = ProbeData(
                    extracted.values, seen.targets, len(seen.classes), seen.splits['validation'], seen.splits['test']
                )
                for regime in dict.fromkeys(cell.regime for cell in cells):
                    chosen = [cell for cell in cells if cell.regime == regime]
                    outcomes = probes.TABLE[regime](
                        data,
                        [readable[cell.fraction, cell.seed] for cell in chosen],
                        self._config[regime],
                        lambda text, label=label: bar.update(task, note=f'{label}: {text}'),
                    )
                    finished = [
                        self._row(seen, cell, outcome, costs, len(readable[cell.fraction, cell.seed].rows))
                        for cell, outcome in zip(chosen, outcomes, strict=True)
                    ]
                    self._append(finished)

    def _run_training(self, dataset: Dataset, cell: Cell) -> None:
        """Train once per learning rate, select on validation, and read the test split for the selected one only."""
        best: tuple | None = None
        for rate in self._config.training_learning_rates:
            config = self._training_config(cell, rate)
            directory = work_directories.make(self._workdir / 'trainings' / cell.key() / f'{rate:g}')
            trained = loop.fit(config, dataset, directory, tables=False)
            if best is None or trained.validation_score > best[1].validation_score:
                best = (rate, trained)
        assert best is not None, 'the sweep has at least one learning rate'
        rate, trained = best
        outcome = Outcome(
            selected={'learning_rate': rate},
            validation_accuracy=trained.validation_score,
            test_scores=trained.evaluate('test').predictions['logits'],
            trainable_parameters=trained.trainable,
        )
        parameters = sum(leaf.size for leaf in jax.tree.leaves(trained.variables['params']['backbone']))
        costs = Costs(parameters, cost.count_flops(trained.model, trained.preprocessing.size))
        self._append([self._row(dataset, cell, outcome, costs, trained.examples)])

    def _training_config(self, cell: Cell, learning_rate: float) -> ml_collections.ConfigDict:
        config = self._config.training.copy_and_resolve_references()
        config.update(
            dataset=cell.dataset,
            backbone=cell.variant.backbone,
            weights='' if cell.variant.weights == RANDOM else cell.variant.weights,
            regime=cell.regime,
            fraction=cell.fraction,
            seed=cell.seed,
            learning_rate=learning_rate,
            image_size=self._config.image_size,
            fit=self._config.fit,
        )
        return config

    def _row(self, dataset: Dataset, cell: Cell, outcome: Outcome, costs: Costs, examples: int) -> dict:
        """The result of one cell; its predictions are written first, so a row never points to nothing."""
        test = dataset.splits['test']
        predictions = outcome.test_scores.argmax(-1).astype(np.int32)
        file = Path('predictions') / f'{cell.key()}.npz'
        with atomic_files.atomic_write(self._workdir / file, 'wb') as stream:
            np.savez_compressed(
                stream,
                example=np.array([dataset.ids[index] for index in test]),
                label=dataset.targets[test],
                prediction=predictions,
            )
        hyperparameters = self._config[cell.regime] if cell.regime in FROZEN_REGIMES else self._config.training
        return {
            'cell': cell.as_json(),
            'metrics': {
                'test_accuracy': float((predictions == dataset.targets[test]).mean()),
                'validation_accuracy': outcome.validation_accuracy,
                'selected': outcome.selected,
            },
            'costs': {
                'parameters': costs.parameters,
                'trainable_parameters': outcome.trainable_parameters,
                'flops_per_image': costs.flops_per_image,
                'images_per_second': costs.images_per_second,
            },
            'data': {
                'provenance': dataset.provenance,
                'fingerprint': dataset.fingerprint(),
                'train_examples': examples,
                'validation_examples': len(dataset.splits['validation']),
                'test_examples': len(test),
                'skipped_files': len(dataset.skipped),
            },
            'predictions': file.as_posix(),
            'config': {
                **hyperparameters.to_dict(),
                'image_size': self._config.image_size,
                'tap': self._config.tap,
                'calibration_images': self._config.calibration_images,
            },
            'versions': versions(),
        }

    def _append(self, rows: list[dict]) -> None:
        self._rows += rows
        atomic_files.write_jsonl(self._workdir / RESULTS, self._rows)
