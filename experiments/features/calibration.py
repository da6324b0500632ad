"""BatchNorm statistics for random weights."""

import flax.linen as nn
import jax
from jaxtyping import Array, Float


def calibrate_statistics(model: nn.Module, variables: dict, images: Float[Array, 'batch height width 3']) -> dict:
    """Set every running statistic to that of the given images, as computed in training mode.

    Without it, a randomly initialised network with BatchNorm would be evaluated with statistics of no data at all.
    """
    if 'batch_stats' not in variables:
        return variables
    collections, rngs = ['batch_stats', 'batch_moments'], {'dropout': jax.random.key(0)}
    _, updates = model.apply(variables, images, train=True, mutable=collections, rngs=rngs)
    moments = jax.tree.map(lambda sown: sown[0], updates['batch_moments'], is_leaf=lambda node: isinstance(node, tuple))
    return {**variables, 'batch_stats': moments}
