"""Exact evaluation: sums over every example once, for any number of examples, devices and processes."""

import contextlib
import dataclasses
from collections.abc import Callable

import ml_collections
import numpy as np
from jaxtyping import Float, Int

from experiments.data import pipeline
from experiments.data.dataset import Dataset
from experiments.training.mesh import DeviceMesh


class GivenUp(Exception):
    """An evaluation was asked to end before its end."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Of some examples, read and predicted.

    Attributes:
        indices: the examples that could be read, in the order of ``logits``.
        logits: of each of them.
        loss: sum of the cross-entropies.
        correct: number of examples whose largest logit is their label's.
        count: number of examples.
        bad: id and reason of each example that could not be read.
    """

    indices: Int[np.ndarray, ' count']
    logits: Float[np.ndarray, 'count classes']
    loss: float
    correct: int
    count: int
    bad: tuple[tuple[str, str], ...]

    @property
    def accuracy(self) -> float:
        """Share of the examples."""
        return self.correct / max(self.count, 1)

    @property
    def mean_loss(self) -> float:
        """Cross-entropy per example."""
        return self.loss / max(self.count, 1)


def evaluate(
    step: Callable[[dict, dict], dict],
    variables: dict,
    dataset: Dataset,
    split: str,
    batch_size: int,
    device_mesh: DeviceMesh,
    config: ml_collections.ConfigDict,
    advance: Callable[[int], None] = lambda count: None,
    stops: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Evaluate a split; every process takes part and gets the whole result.

    Args:
        step: ``Setup.evaluation_step``.
        variables: laid over the devices.
        batch_size: examples per call on all devices; the last batch is filled up with examples of no weight.
        config: of the training (how data are read).
        advance: is told the number of examples after each batch.
        stops: is asked after each batch whether to give up; all processes must get the same answer.

    Raises:
        GivenUp: ``stops`` said so.
    """
    indices = dataset.splits[split]
    rows = device_mesh.rows(batch_size)
    # Exact whole numbers and a float64 sum, whatever the number of batches.
    loss, correct, count = 0.0, 0, 0
    logits, seen, bad = [], [], []
    reading = pipeline.evaluation_batches(
        dataset,
        indices,
        batch_size,
        rows=rows,
        threads=config.threads,
        prefetch=config.prefetch,
        bad_files_limit=config.bad_files_limit,
    )
    with contextlib.closing(reading):
        for host in reading:
            sums = step(variables, device_mesh.batch_arrays(host.arrays, rows, batch_size))
            loss += float(sums['loss'])
            correct += int(sums['correct'])
            count += int(sums['count'])
            valid = np.asarray(sums['valid'])
            members = np.resize(indices[host.step * batch_size : (host.step + 1) * batch_size], batch_size)
            logits.append(np.asarray(sums['logits'])[valid])
            seen.append(members[valid])
            bad += host.bad
            advance(min(batch_size, len(indices) - host.step * batch_size))
            if stops():
                raise GivenUp
    return Evaluation(np.concatenate(seen), np.concatenate(logits), loss, correct, count, tuple(bad))
