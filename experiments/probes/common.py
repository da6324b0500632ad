"""Shared by all probes: their input, their outcome, and the normalisation of features."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from experiments.results.scores import ScoreKind

# How the features of learned heads are normalised; 'standardise' and 'centre' take their statistics from the training
# subset, 'l2' and 'layer_norm' from each example alone.
NORMALISATIONS = ('standardise', 'centre', 'none', 'l2', 'layer_norm')


Head = Callable[[Float[np.ndarray, 'examples *features']], Float[np.ndarray, 'examples classes']]


@dataclasses.dataclass(frozen=True)
class ProbeData:
    """Frozen features of one data set, with labels and splits.

    Attributes:
        features: ``float32[examples, channels]`` of all examples; for heads of positions, ``float32[examples,
            positions, channels]``, an array or ``StoredFeatures``.
        labels: ``int32[examples]``.
        num_classes: number of classes.
        validation, test: row indices of these splits.
        score: the task's primary metric of some examples' scores (one per class) and labels; higher is better.
        normalisation: one of ``NORMALISATIONS``; what it asks of each example alone is done (``normalised``), except
            for features of positions.
        padded: whether positions that are NaN are padding, of texts that are shorter than others.
        retrieves: whether nearest neighbours also rank the test examples among themselves.
    """

    features: Float[np.ndarray, 'examples *rest']
    labels: Int[np.ndarray, ' examples']
    num_classes: int
    validation: Int[np.ndarray, ' validation']
    test: Int[np.ndarray, ' test']
    score: Callable[[Float[np.ndarray, 'examples classes'], Int[np.ndarray, ' examples']], float]
    normalisation: str = 'standardise'
    retrieves: bool = True
    padded: bool = False

    def normalised(self, how: str) -> 'ProbeData':
        """The data for heads whose features are normalised in a given way."""
        # Those of positions stay on disk, and are normalised where they are read.
        features = self.features if len(self.features.shape) > 2 else each_normalised(self.features, how)
        return dataclasses.replace(self, features=features, normalisation=how)


def each_normalised(
    features: Float[np.ndarray, 'examples channels'], how: str
) -> Float[np.ndarray, 'examples channels']:
    """What a normalisation asks of each example alone.

    Args:
        how: one of ``NORMALISATIONS``.
    """
    if how == 'layer_norm':
        features = features - features.mean(1, keepdims=True)
    if how in ('l2', 'layer_norm'):
        norm = np.linalg.norm(features, axis=1, keepdims=True)
        # A deviation of 1, as of a layer normalisation without parameters (Ba et al. 2016), or a length of 1.
        length = np.sqrt(features.shape[1]) if how == 'layer_norm' else 1
        features = (features * (length / np.maximum(norm, 1e-12))).astype(np.float32)
    return features


@dataclasses.dataclass(frozen=True)
class Subset:
    """The labelled examples that one group of heads trains on.

    Attributes:
        seed: draws the subset and the order of its batches.
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
        validation_score: the task's primary metric on validation, by which it was selected.
        predictions: of the test examples, as ``Task.predict`` names them; heads on stored features have ``'logits'``, a
            score per class.
        validation_predictions: the same of the validation examples.
        trainable_parameters: number of learned values.
        at_edge: hyper-parameters in ``selected`` whose value lies at an end of its grid (``at_edge``): a wider grid
            might have selected another.
        depends_on_seed: whether another seed could give another outcome. It is false for a deterministic method on
            all training labels, which has no interval over seeds.
        choices: number of settings that validation chose from.
        score_kind: what the scores are, which says how probabilities are made of them.
        test_metrics: metrics of the test split that do not follow from the predictions; each method documents its own.
        apply: the selected head: features of any examples → a score per class, as for the test examples; ``None`` where
            there is no head on stored features.
    """

    selected: dict[str, float]
    validation_score: float
    predictions: Mapping[str, np.ndarray]
    validation_predictions: Mapping[str, np.ndarray]
    trainable_parameters: int
    at_edge: tuple[str, ...] = ()
    depends_on_seed: bool = True
    choices: int = 1
    score_kind: ScoreKind = 'logits'
    test_metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    apply: Head | None = None

    @property
    def test_scores(self) -> Float[np.ndarray, 'test classes']:
        """A classifier's score per test example and class; the largest is the prediction."""
        return self.predictions['logits']


def standardisation(
    features: Float[np.ndarray, 'examples channels'], rows: Int[np.ndarray, ' chosen'], how: str = 'standardise'
) -> tuple[Float[np.ndarray, ' channels'], Float[np.ndarray, ' channels']]:
    """``(mean, factor)`` of the training subset, so that ``(x - mean) * factor`` has unit deviation per channel.

    It makes one sweep of hyper-parameters fit features of any scale. Adding 1 % of the mean variance to each channel
    keeps those that hardly vary from being amplified.

    Args:
        how: one of ``NORMALISATIONS``; for all but ``'standardise'`` the factor is 1, and for all but ``'centre'``
            besides, the mean is 0.
    """
    if how not in ('standardise', 'centre'):
        return np.zeros(features.shape[1], np.float32), np.ones(features.shape[1], np.float32)
    chosen = features[rows]
    # NumPy does not sum pairwise over the first axis, so float32 would lose digits.
    mean = chosen.mean(0, dtype=np.float64)
    if how == 'centre':
        return mean.astype(np.float32), np.ones(features.shape[1], np.float32)
    variance = np.square(chosen - mean.astype(np.float32)).mean(0, dtype=np.float64)
    return mean.astype(np.float32), standardising_factor(variance).astype(np.float32)


def standardising_factor(variance: Float[np.ndarray, ' channels']) -> Float[np.ndarray, ' channels']:
    """The factor of ``standardisation`` for channels of some variances."""
    return 1 / np.sqrt(variance + 0.01 * variance.mean() + 1e-12)


def select(scores: Sequence[float], losses: Sequence[float]) -> int:
    """Index of the highest score; ties are broken by the lower loss."""
    return min(range(len(scores)), key=lambda index: (-scores[index], losses[index], index))


def at_edge(
    selected: Mapping[str, float], grids: Mapping[str, Sequence[float]], natural: Mapping[str, Sequence[float]] = {}
) -> tuple[str, ...]:
    """Names of the hyper-parameters whose selected value is the smallest or the largest of its grid.

    A grid of one value offers no choice and has no edge.

    Args:
        natural: by name, values beyond which there is nothing to try, such as a single neighbour.
    """
    return tuple(
        name
        for name, value in selected.items()
        if len(set(grids[name])) > 1
        and value in (min(grids[name]), max(grids[name]))
        and value not in natural.get(name, ())
    )


def deterministic(outcome_of: Callable[[Subset], Outcome], subsets: Sequence[Subset]) -> list[Outcome]:
    """One outcome per subset, for a method that depends only on the subset's examples, not on their order or a seed.

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
