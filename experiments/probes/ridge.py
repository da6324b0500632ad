"""Ridge regression of frozen features on one-hot labels: every penalty from one eigendecomposition.

The primal form (channels × channels) where a subset has more examples than channels, the dual form (examples ×
examples) otherwise; both give the same weights.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array, Float

from experiments.probes.common import Outcome, ProbeData, Subset, at_edge, deterministic, select, standardisation


@jax.jit
def solve(
    x: Float[Array, 'chosen channels'], targets: Float[Array, 'chosen classes'], penalties: Float[Array, ' penalties']
) -> Float[Array, 'penalties channels classes']:
    """Weights for every penalty, where the loss is ``|x w - targets|² / trace + penalty |w|² / rank``."""
    examples, channels = x.shape
    primal = examples > channels
    gram = x.T @ x if primal else x @ x.T
    values, vectors = jnp.linalg.eigh(gram)
    values = jnp.maximum(values, 0)
    projected = vectors.T @ (x.T @ targets if primal else targets)
    shift = penalties * values.mean()
    weights = vectors @ (projected / (values[:, None] + shift[:, None, None]))
    return weights if primal else jnp.einsum('nc,pnk->pck', x, weights)


def run(
    data: ProbeData, subsets: Sequence[Subset], config: ml_collections.ConfigDict, report: Callable[[str], None]
) -> list[Outcome]:
    """One outcome per subset: the penalty with the best validation score, applied to the test examples."""
    features, labels = data.features, data.labels
    grid = np.geomspace(config.smallest_penalty, config.largest_penalty, config.penalties)

    def outcome_of(subset: Subset) -> Outcome:
        report(f'ridge, {len(grid)} penalties')
        rows = subset.rows
        mean, factor = standardisation(features, rows, data.normalisation)
        targets = np.eye(data.num_classes, dtype=np.float32)[labels[rows]]
        offset = targets.mean(0)
        weights = np.asarray(solve((features[rows] - mean) * factor, targets - offset, jnp.asarray(grid, jnp.float32)))
        x, wanted = (features[data.validation] - mean) * factor, labels[data.validation]
        validated, errors = [], []
        for each in weights:
            scores = x @ each + offset
            validated.append(data.score(scores, wanted))
            errors.append(float(np.square(scores - np.eye(data.num_classes, dtype=np.float32)[wanted]).mean()))
        best = select(validated, errors)

        def apply(
            features: Float[np.ndarray, 'examples channels'],
            weights: Float[np.ndarray, 'channels classes'] = weights[best],
        ) -> Float[np.ndarray, 'examples classes']:
            return ((features - mean) * factor) @ weights + offset

        selected = {'penalty': float(grid[best])}
        return Outcome(
            selected=selected,
            validation_score=validated[best],
            predictions={'logits': apply(features[data.test])},
            validation_predictions={'logits': x @ weights[best] + offset},
            score_kind='values',
            trainable_parameters=(features.shape[1] + 1) * data.num_classes,
            at_edge=at_edge(selected, {'penalty': grid.tolist()}),
            choices=len(grid),
            apply=apply,
        )

    return deterministic(outcome_of, subsets)
