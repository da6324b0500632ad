"""Pooling with torch's padding rules."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def max_pool(
    x: Float[Array, 'batch height width channels'], window: int, stride: int, padding: int
) -> Float[Array, 'batch rows columns channels']:
    """Maximum over square windows, padded with minus infinity, sizes rounded down (torch's default)."""
    pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, window, window, 1), (1, stride, stride, 1), pads)


def global_average_pool(x: Float[Array, 'batch height width channels']) -> Float[Array, 'batch channels']:
    """Mean over all positions, accumulated in float32."""
    return x.mean((1, 2), dtype=jnp.float32).astype(x.dtype)
