"""Image retrieval by frozen features: each test image asks for the other test images of its class.

Every image is a query once and all others are ranked by cosine similarity, as in GPR1200 (Schall et al. 2022,
"GPR1200: A Benchmark for General-Purpose Content-Based Image Retrieval"), whose metric is the mean average precision
(mAP) of the whole ranking; recall@1 as in Oh Song et al. 2016, "Deep Metric Learning via Lifted Structured Feature
Embedding". It needs no training image, so that it does not depend on the share of the labels or a seed.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

# Similarities that are ranked at once.
_AT_ONCE = 1 << 24


def metrics(features: Float[Array, 'examples channels'], labels: Int[np.ndarray, ' examples']) -> dict[str, float]:
    """Compute the metrics of a gallery whose images are the queries.

    Where similarities are equal, up to the last bit of their mantissa, images of another class come first: features
    that do not tell images apart gain nothing.

    Args:
        features: of unit length.
        labels: classes.

    Returns:
        ``retrieval_mAP``, the mean over the queries of the average precision of the whole ranking, and
        ``retrieval_recall@1``, the share of queries whose nearest image is of their class. A query without another
        image of its class is left out; empty if there is no other.
    """
    examples = len(labels)
    size = max(1, min(examples, _AT_ONCE // examples))
    gallery = jnp.asarray(labels)
    precisions, first = [], []
    for start in range(0, examples, size):
        # The last chunk begins earlier, so that all have one size.
        queries = np.arange(min(start, examples - size), examples)[:size]
        chosen = queries >= start
        relevant = _relevant(features, gallery, jnp.asarray(queries[0]), size)
        average, nearest, count = map(np.asarray, _precisions(relevant))
        known = chosen & (count > 0)
        precisions.append(average[known])
        first.append(nearest[known])
    if not any(map(len, precisions)):
        return {}
    return {
        'retrieval_mAP': float(np.concatenate(precisions).mean(dtype=np.float64)),
        'retrieval_recall@1': float(np.concatenate(first).mean()),
    }


@functools.partial(jax.jit, static_argnames='size')
def _relevant(
    features: Float[Array, 'examples channels'],
    labels: Int[Array, ' examples'],
    start: Int[Array, ''],
    size: int,
) -> Bool[Array, 'size examples']:
    """Whether the images that are ranked by their similarity to each query, the query itself last, are of its class."""
    queries = jax.lax.dynamic_slice_in_dim(features, start, size)
    own = jax.lax.dynamic_slice_in_dim(labels, start, size)
    places = start + jnp.arange(size)[:, None]
    itself = places == jnp.arange(len(labels))
    distance = jnp.where(itself, jnp.inf, -(queries @ features.T))
    # Whole numbers in the order of the distances, the last bit of which says what is relevant: one array of whole
    # numbers is sorted several times faster than pairs of a number and a flag.
    bits = jax.lax.bitcast_convert_type(distance, jnp.int32)
    ordered = jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    relevant = (own[:, None] == labels) & ~itself
    return (jnp.sort((ordered & ~1) | relevant, axis=-1) & 1) > 0


@jax.jit
def _precisions(
    relevant: Bool[Array, 'queries examples'],
) -> tuple[Float[Array, ' queries'], Bool[Array, ' queries'], Int[Array, ' queries']]:
    """Average precision, whether the first is relevant, and the number of relevant ones."""
    count = relevant.sum(-1)
    precision = jnp.cumsum(relevant, axis=-1) / jnp.arange(1, relevant.shape[-1] + 1)
    return (precision * relevant).sum(-1) / jnp.maximum(count, 1), relevant[:, 0], count
