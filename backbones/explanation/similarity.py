"""Images that a backbone takes for similar: their pooled features point in the same direction."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def nearest(
    queries: Float[Array, 'queries channels'], candidates: Float[Array, 'candidates channels'], count: int
) -> tuple[Int[Array, 'queries count'], Float[Array, 'queries count']]:
    """The candidates with the greatest cosine similarity to each query, most similar first, and those similarities.

    Features of zeros are similar to nothing (0). Of equally similar candidates the first comes first.

    Args:
        queries: pooled features.
        candidates: pooled features of the images to choose from.
        count: at most the number of candidates.
    """
    similarities, indices = jax.lax.top_k(_unit(queries) @ _unit(candidates).T, count)
    return indices, similarities


def _unit(features: Float[Array, 'rows channels']) -> Float[Array, 'rows channels']:
    features = jnp.asarray(features, jnp.float32)
    length = jnp.linalg.norm(features, axis=-1, keepdims=True)
    return features / jnp.where(length > 0, length, 1)
