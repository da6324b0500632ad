"""Exact evaluation: every example once, for any number of examples, devices and processes."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable

import jax
import ml_collections
import numpy as np
from jaxtyping import Int

from experiments.data import corrupted, pipeline
from experiments.data.dataset import Dataset
from experiments.training.programs import Programs

_BATCH_SIZE = 256


class GivenUp(Exception):
    """An evaluation was asked to stop before it had finished."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The predictions and metrics for some examples.

    Attributes:
        indices: the examples that could be read, in the order of the predictions.
        predictions: name → array, what the task keeps of each example.
        metrics: ``loss`` (the mean over the examples) and every metric of the task.
        primary: the metric used for selection.
        bad: id and reason of each example that could not be read.
    """

    indices: Int[np.ndarray, ' count']
    predictions: dict[str, np.ndarray]
    metrics: dict[str, float]
    primary: str
    bad: tuple[tuple[str, str], ...]

    @property
    def count(self) -> int:
        """Number of examples."""
        return len(self.indices)

    @property
    def score(self) -> float:
        """The primary metric."""
        return self.metrics[self.primary]


def batch_size(examples: int, programs: Programs) -> int:
    """Examples per call of the compiled program; no more than necessary, because the last batch is padded.

    Dense heads keep large maps of every image, so a call takes no more images than a micro-batch of the training.
    """
    devices = programs.device_mesh.devices
    most = _BATCH_SIZE
    if programs.task.is_dense:
        most = min(most, programs.batch_size // programs.options['accumulation'])
    return min(-(-most // devices), -(-examples // devices)) * devices


def evaluate(
    programs: Programs,
    variables: dict,
    dataset: Dataset,
    split: str,
    config: ml_collections.ConfigDict,
    advance: Callable[[int], None] = lambda count: None,
    stops: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Evaluate a split; every process takes part and gets the whole result.

    Args:
        programs: the programs of the run.
        variables: arrays on the mesh.
        dataset: contains the split.
        split: its name.
        config: the config of the run (how data are read).
        advance: called after each batch with its number of examples.
        stops: called after each batch; whether to give up. It must return the same in all processes.

    Raises:
        GivenUp: ``stops`` returned ``True``.
        UserError: the split is empty, or more examples than the limit cannot be read.
    """
    indices, device_mesh = dataset.splits[split], programs.device_mesh
    size = batch_size(len(indices), programs)
    rows = device_mesh.rows(size)
    # Summed in float64, so that the number of batches does not matter.
    loss, count = 0.0, 0
    predictions, seen, bad = [], [], []
    reading = pipeline.evaluation_batches(
        dataset,
        indices,
        size,
        rows=rows,
        threads=config.threads,
        prefetch=config.prefetch,
        bad_files_limit=config.bad_files_limit,
    )
    with contextlib.closing(reading):
        for host in reading:
            place = functools.partial(device_mesh.batch_arrays, rows=rows, batch_size=size)
            batch = corrupted.on_devices(place(host.arrays), dataset, host.ids, place)
            outputs = programs.evaluation_step(variables, batch)
            loss += float(outputs['loss'])
            count += int(outputs['count'])
            valid = np.asarray(outputs['valid'])
            members = np.resize(indices[host.step * size : (host.step + 1) * size], size)
            predictions.append({name: np.asarray(array)[valid] for name, array in outputs['predictions'].items()})
            seen.append(members[valid])
            bad += host.bad
            advance(min(size, len(indices) - host.step * size))
            if stops():
                raise GivenUp
    read = np.concatenate(seen)
    kept = jax.tree.map(lambda *parts: np.concatenate(parts), *predictions)
    task = programs.task
    metrics = {'loss': loss / max(count, 1), **task.score(kept, dataset.targets_of(read), dataset.classes)}
    return Evaluation(read, kept, metrics, task.primary, tuple(bad))
