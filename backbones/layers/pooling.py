"""Pooling with torch's padding rules."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float


def _ceil_padding(size: int, window: int, stride: int, padding: int) -> int:
    """Padding that torch's ``ceil_mode`` adds at the right or bottom so that the last, incomplete window counts."""
    steps = -(-(size + 2 * padding - window) // stride)
    # A window that would start in the right-hand padding is left out.
    if steps * stride >= size + padding:
        steps -= 1
    return steps * stride + window - size - padding


def max_pool(
    x: Float[Array, 'batch height width channels'], window: int, stride: int, padding: int = 0, ceil: bool = False
) -> Float[Array, 'batch rows columns channels']:
    """Maximum over square windows, padded with minus infinity.

    Args:
        window, stride, padding: sizes in pixels.
        ceil: round the output's size up (torch's ``ceil_mode``) rather than down.
    """
    sides = [(padding, padding)] * 2
    if ceil:
        sides = [(padding, max(_ceil_padding(size, window, stride, padding), 0)) for size in x.shape[1:3]]
    pads = ((0, 0), *sides, (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, window, window, 1), (1, stride, stride, 1), pads)


def _bins(size: int, count: int) -> np.ndarray:
    """A matrix ``[count, size]`` that averages over each of ``count`` bins, bounded as in torch."""
    matrix = np.zeros((count, size))
    for index in range(count):
        first, last = index * size // count, -(-(index + 1) * size // count)
        matrix[index, first:last] = 1 / (last - first)
    return matrix


def adaptive_average_pool(
    x: Float[Array, 'batch height width channels'], size: int
) -> Float[Array, 'batch size size channels']:
    """Means over ``size`` by ``size`` bins of nearly equal extent (torch's ``AdaptiveAvgPool2d``)."""
    if x.shape[1:3] == (size, size):
        return x
    rows, columns = (jnp.asarray(_bins(extent, size), jnp.float32) for extent in x.shape[1:3])
    values = x.astype(jnp.float32)
    pooled = jnp.einsum('rh,cw,bhwd->brcd', rows, columns, values, precision=lax.Precision.HIGHEST)
    return pooled.astype(x.dtype)


def global_average_pool(x: Float[Array, 'batch height width channels']) -> Float[Array, 'batch channels']:
    """Mean over all positions, accumulated in float32."""
    return x.mean((1, 2), dtype=jnp.float32).astype(x.dtype)
