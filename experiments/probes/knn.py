"""Weighted nearest neighbours on frozen features.

Cosine similarity, votes weighted by exp(similarity / temperature), as in DINO (Caron et al. 2021) after Wu et al.
2018; the number of neighbours is selected on validation.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array, Float, Int

from experiments.probes import retrieval
from experiments.probes.common import Outcome, ProbeData, Subset, at_edge, deterministic, select

# Values of the ballots that are counted at once.
_BALLOTS_AT_ONCE = 1 << 24


def normalise(features: Float[Array, 'examples channels']) -> Float[Array, 'examples channels']:
    """Scale every example to unit length."""
    return features / jnp.maximum(jnp.linalg.norm(features, axis=-1, keepdims=True), 1e-12)


# A separate program: if anything follows in the same one, the CPU compiler sorts all keys instead.
@functools.partial(jax.jit, static_argnames='count')
def nearest(
    queries: Float[Array, 'queries channels'], keys: Float[Array, 'keys channels'], count: int
) -> tuple[Float[Array, 'queries count'], Int[Array, 'queries count']]:
    """Similarity and index of the ``count`` nearest keys, nearest first; queries and keys have unit length."""
    return jax.lax.top_k(queries @ keys.T, count)


@functools.partial(jax.jit, static_argnames=('neighbours', 'num_classes'))
def votes(
    similarity: Float[Array, 'queries count'],
    labels: Int[Array, 'queries count'],
    neighbours: tuple[int, ...],
    num_classes: int,
    temperature: float,
) -> Float[Array, 'choices queries classes']:
    """Share of the votes per class, for each number of neighbours; inputs are nearest first."""
    # Relative to the nearest neighbour, so that exp never underflows to all zeros.
    weights = jnp.exp((similarity - similarity[:, :1]) / temperature)
    ballots = jax.nn.one_hot(labels, num_classes) * weights[..., None]
    # One product with a triangle of ones: a cumulative sum takes quadratic time on the CPU.
    counted = (jnp.arange(similarity.shape[1]) < jnp.asarray(neighbours)[:, None]).astype(ballots.dtype)
    totals = jnp.einsum('nk,qkc->nqc', counted, ballots)
    return totals / totals.sum(-1, keepdims=True)


def _all_votes(
    queries: Array, keys: Array, labels: Array, neighbours: tuple[int, ...], num_classes: int, temperature: float
) -> Float[np.ndarray, 'choices queries classes']:
    """``votes`` of the nearest keys in chunks of one size, the last one padded."""
    size = max(1, min(len(queries), 1024, _BALLOTS_AT_ONCE // (max(neighbours) * num_classes)))
    parts = []
    for start in range(0, len(queries), size):
        chunk = queries[start : start + size]
        padded = jnp.pad(chunk, ((0, size - len(chunk)), (0, 0)))
        similarity, index = nearest(padded, keys, max(neighbours))
        shares = votes(similarity, labels[index], neighbours, num_classes, temperature)
        parts.append(np.asarray(shares)[:, : len(chunk)])
    return np.concatenate(parts, axis=1)


def run(
    data: ProbeData, subsets: Sequence[Subset], config: ml_collections.ConfigDict, report: Callable[[str], None]
) -> list[Outcome]:
    """One outcome per subset: the number of neighbours with the best validation score, applied to the test set.

    ``test_metrics`` are those of ``retrieval``, the same for all subsets.
    """
    features = normalise(jnp.asarray(data.features))
    retrieved = {}
    if data.retrieves:
        report(f'retrieval among {len(data.test):,}')
        retrieved = retrieval.metrics(features[data.test], data.labels[data.test])

    def outcome_of(subset: Subset) -> Outcome:
        neighbours = tuple(count for count in config.neighbours if count <= len(subset.rows)) or (1,)
        report(f'nearest neighbours among {len(subset.rows):,}')
        keys, key_labels = features[subset.rows], jnp.asarray(data.labels[subset.rows])
        arguments = (keys, key_labels, neighbours, data.num_classes, config.temperature)
        shares = _all_votes(features[data.validation], *arguments)
        labels = data.labels[data.validation]
        validated = [data.score(each, labels) for each in shares]
        likelihood = shares[:, np.arange(len(labels)), labels]
        best = select(validated, (-likelihood.mean(-1)).tolist())
        selected = {'neighbours': neighbours[best]}

        def vote(queries: Float[Array, 'examples channels']) -> Float[np.ndarray, 'examples classes']:
            return _all_votes(queries, *arguments)[best]

        return Outcome(
            selected=selected,
            validation_score=validated[best],
            predictions={'logits': vote(features[data.test])},
            validation_predictions={'logits': shares[best]},
            score_kind='probabilities',
            trainable_parameters=0,
            # There cannot be fewer than one neighbour or more than all examples.
            at_edge=at_edge(selected, {'neighbours': neighbours}, {'neighbours': (1, len(subset.rows))}),
            choices=len(neighbours),
            test_metrics=retrieved,
            apply=lambda queries: vote(normalise(jnp.asarray(queries))),
        )

    return deterministic(outcome_of, subsets)
