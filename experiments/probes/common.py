"""What all probes share: their input, their outcome, and the standardisation of features."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True)
class ProbeData:
    """Frozen features of one data set, and its validation and test rows.

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
        seed: draws the subset and orders its batches.
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
        trainable_parameters: number of values that the head learned.
        at_edge: names of those hyper-parameters in ``selected`` whose value lies at an end of its grid (``at_edge``):
            a wider grid might have selected another.
        depends_on_seed: whether another seed could give another outcome. False for a deterministic method on all
            training labels: there is no interval over seeds.
        choices: number of settings that validation chose among.
        diagnostics: further values about the selected head, by name; each method documents its own.
    """

    selected: dict[str, float]
    validation_accuracy: float
    test_scores: Float[np.ndarray, 'test classes']
    trainable_parameters: int
    at_edge: tuple[str, ...] = ()
    depends_on_seed: bool = True
    choices: int = 1
    diagnostics: Mapping[str, float] = dataclasses.field(default_factory=dict)


def standardisation(
    features: Float[np.ndarray, 'examples channels'], rows: Int[np.ndarray, ' chosen']
) -> tuple[Float[np.ndarray, ' channels'], Float[np.ndarray, ' channels']]:
    """``(mean, factor)`` of the training subset, so that ``(x - mean) * factor`` has unit deviation per channel.

    The same for every backbone, so that one sweep of learning rates fits features of any scale. A channel that hardly
    varies next to the others is not blown up, because 1 % of the mean variance is added to each.
    """
    chosen = features[rows]
    # NumPy's sums over the first axis are not pairwise, so they would lose digits in float32.
    mean = chosen.mean(0, dtype=np.float64)
    variance = np.square(chosen - mean.astype(np.float32)).mean(0, dtype=np.float64)
    factor = 1 / np.sqrt(variance + 0.01 * variance.mean() + 1e-12)
    return mean.astype(np.float32), factor.astype(np.float32)


def select(accuracies: Sequence[float], losses: Sequence[float]) -> int:
    """Index of the highest accuracy; the lower loss breaks ties."""
    return min(range(len(accuracies)), key=lambda index: (-accuracies[index], losses[index], index))


def at_edge(
    selected: Mapping[str, float], grids: Mapping[str, Sequence[float]], natural: Mapping[str, Sequence[float]] = {}
) -> tuple[str, ...]:
    """Names of the hyper-parameters whose selected value is the smallest or the largest of its grid.

    A grid of one value offers no choice and has no edge.

    Args:
        natural: values by name beyond which there is nothing to select, such as a single neighbour.
    """
    return tuple(
        name
        for name, value in selected.items()
        if len(set(grids[name])) > 1
        and value in (min(grids[name]), max(grids[name]))
        and value not in natural.get(name, ())
    )


def deterministic(outcome_of: Callable[[Subset], Outcome], subsets: Sequence[Subset]) -> list[Outcome]:
    """One outcome per subset, for a method that depends only on the subset's examples, not on seed or order.

    Equal subsets, such as all training labels under several seeds, are computed once.
    """
    computed: dict[bytes, Outcome] = {}
    outcomes = []
    for subset in subsets:
        rows = np.sort(np.asarray(subset.rows, np.int64))
        key = rows.tobytes()
        if key not in computed:
            computed[key] = outcome_of(dataclasses.replace(subset, rows=rows))
        outcomes.append(dataclasses.replace(computed[key], depends_on_seed=subset.fraction < 1))
    return outcomes
