"""The row and the scores of a finished cell."""

import functools
from collections.abc import Mapping
from pathlib import Path

import backbones
from backbones import cost
from experiments.ablation import growth, robustness
from experiments.ablation.cell_configs import CellConfigs
from experiments.ablation.cells import RANDOM, Cell, Variant
from experiments.cli.versions import versions
from experiments.data import texts
from experiments.data.corruptions import Corruption
from experiments.data.dataset import Dataset
from experiments.features.extractor import Costs
from experiments.probes.common import Outcome
from experiments.results import rows as result_rows
from experiments.results import scores
from experiments.results.axes import BASELINES
from experiments.results.corrupted_scores import CorruptedScores
from experiments.results.rows import Row
from experiments.tasks.task import Task


class CellRows:
    """Makes rows, and writes the scores that they refer to.

    Args:
        configs: those of the cells.
        task: what the ablation's heads are for.
        workdir: holds the scores.
    """

    def __init__(self, configs: CellConfigs, task: type[Task], workdir: Path):
        self._configs = configs
        self._task = task
        self._workdir = workdir

    def make(
        self,
        dataset: Dataset,
        seen: Dataset,
        cell: Cell,
        outcome: Outcome,
        costs: Costs,
        examples: int,
        found: Mapping[Corruption, CorruptedScores],
    ) -> Row:
        """The row of one cell; its scores are written first, so that no row refers to a missing file.

        Args:
            dataset: the data set of the cell.
            seen: the data set without the examples that could not be read.
            cell: what was computed.
            outcome: what came of it.
            costs: those of the backbone.
            examples: number of training examples.
            found: its scores for corrupted test examples.
        """
        task, file = self._task, Path('predictions') / f'{cell.key()}.npz'
        test, validation = (
            scores.Predicted([dataset.ids[index] for index in indices], dataset.targets_of(indices), predictions)
            for indices, predictions in (
                (seen.splits['test'], outcome.predictions),
                (seen.splits['validation'], outcome.validation_predictions),
            )
        )
        resampled = scores.resampled(task, test.predictions, test.targets)
        corrupted_correct = {condition.label: each.correct for condition, each in found.items()}
        scores.write(self._workdir / file, *test, resampled, outcome.score_kind, validation, corrupted_correct)
        metrics_of = functools.partial(result_rows.metrics, task, dataset.classes, score_kind=outcome.score_kind)
        return Row(
            cell=cell,
            task=task.name,
            primary=task.primary,
            config=self._configs.recorded(cell, outcome),
            validation={**metrics_of(validation), task.primary: outcome.validation_score},
            test={**metrics_of(test, validation=validation), **outcome.test_metrics},
            selected=outcome.selected,
            at_edge=outcome.at_edge,
            choices=outcome.choices,
            # Random weights depend on the seed even where the head does not.
            depends_on_seed=cell.variant.weights == RANDOM or outcome.depends_on_seed,
            costs={
                'parameters': costs.parameters,
                'trainable_parameters': outcome.trainable_parameters,
                'flops_per_image': self._flops_per_image(cell.variant.backbone, costs.input_size),
                'flops_counted_in': 'traced program',
                'images_per_second': costs.images_per_second,
                'input': list(costs.input_size) if costs.input_size else None,
                'weight_bytes': costs.weight_bytes,
                'peak_memory_bytes': costs.peak_memory_bytes,
            },
            data={
                'provenance': seen.provenance,
                'fingerprint': dataset.fingerprint(),
                'train_examples': examples,
                'validation_examples': len(seen.splits['validation']),
                'test_examples': len(test.ids),
                'skipped': len(seen.skipped),
                'inputs': texts.inputs_of(dataset),
            },
            versions=versions(),
            predictions=file.as_posix(),
            weights_digest=self.weights_digest(cell.variant),
            robustness=robustness.as_row(found, task.primary),
        )

    @functools.cache  # noqa: B019 they live as long as their command
    def _flops_per_image(self, backbone: str, size: tuple[int, ...] | None) -> int:
        """Those of the backbone as it is created, whatever the tap, and without a head or adapters."""
        if backbone in BASELINES:
            return 0
        assert size is not None
        return cost.count_flops(backbones.create(backbone), size)

    @functools.cache  # noqa: B019
    def weights_digest(self, variant: Variant) -> str | None:
        """Digest of the weights of a variant, when it was first asked for."""
        return growth.weights_digest(variant)
