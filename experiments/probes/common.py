"""What all probes share: their input, their outcome, and the standardisation of features."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


@dataclasses.dataclass(frozen=True)
class ProbeData:
    """Frozen features of one data set and who may see what.

    Attributes:
        features: ``float32[examples, channels]`` of all examples.
        labels: ``int32[examples]``.
        num_classes: number of classes.
        validation, test: row indices.
    """

    features: Float[np.ndarray, 'examples channels']
    labels: Int[np.ndarray, ' examples']
    num_classes: int
    validation: Int[np.ndarray, ' validation']
    test: Int[np.ndarray, ' test']


@dataclasses.dataclass(frozen=True)
class Subset:
    """The labelled examples that one group of heads trains on.

    Attributes:
        seed: seed of the group: it drew the subset and orders its batches.
        fraction: share of the training labels.
        rows: row indices of the training examples.
    """

    seed: int
    fraction: float
    rows: Int[np.ndarray, ' chosen']


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The head that validation selected for a subset.

    Attributes:
        selected: its hyper-parameters.
        validation_accuracy: the accuracy that it was selected by.
        test_scores: one score per test example and class; the largest is the prediction.
        trainable_parameters: number of values the head learned.
    """

    selected: dict[str, float]
    validation_accuracy: float
    test_scores: Float[np.ndarray, 'test classes']
    trainable_parameters: int


def standardisation(
    features: Float[Array, 'examples channels'], rows: Int[Array, ' chosen']
) -> tuple[Float[Array, ' channels'], Float[Array, ' channels']]:
    """``(mean, factor)`` of the training subset, so that ``(x - mean) * factor`` has unit deviation per channel.

    The same for every backbone, so that one sweep of learning rates fits features of any scale. A channel that hardly
    varies next to the others is not blown up: 1 % of the mean variance is added to each.
    """
    chosen = features[rows]
    mean = chosen.mean(0)
    variance = jnp.square(chosen - mean).mean(0)
    return mean, jax.lax.rsqrt(variance + 0.01 * variance.mean() + 1e-12)


def select(accuracies: Sequence[float], losses: Sequence[float]) -> int:
    """Index of the highest accuracy; the lower loss decides between equals."""
    return min(range(len(accuracies)), key=lambda index: (-accuracies[index], losses[index], index))
