"""Which anchors and proposals of an image are trained on, where background would outnumber all objects.

Source: torchvision/models/detection/_utils.py, ``BalancedPositiveNegativeSampler``.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from backbones.boxes.assignment import BACKGROUND, BETWEEN


def sample(key: Key[Array, ''], assigned: Int[Array, 'n'], most: int, share: float) -> Int[Array, 'n']:
    """Draw at random, without replacement: first what has an object, then background for the rest.

    Args:
        key: equal keys draw the same.
        assigned: of each anchor, the index of its object, ``BACKGROUND`` or ``BETWEEN``.
        most: how many are drawn, if there are as many.
        share: of these, how many may have an object at most.

    Returns:
        ``assigned``, with ``BETWEEN`` for what was not drawn.
    """
    of_objects, of_background = jax.random.split(key)
    objects = _draw(of_objects, assigned >= 0, int(most * share), most)
    background = _draw(of_background, assigned == BACKGROUND, most - objects.sum(), most)
    return jnp.where(objects | background, assigned, BETWEEN)


def _draw(
    key: Key[Array, ''], candidates: Bool[Array, 'n'], count: int | Int[Array, ''], most: int
) -> Bool[Array, 'n']:
    """Up to ``count`` of the candidates, which is at most ``most``."""
    order = jnp.where(candidates, jax.random.uniform(key, candidates.shape), -1)
    best, indices = jax.lax.top_k(order, min(most, len(candidates)))
    drawn = (best >= 0) & (jnp.arange(len(best)) < count)
    return jnp.zeros_like(candidates).at[indices].set(drawn)
