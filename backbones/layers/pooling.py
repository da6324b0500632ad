"""Pooling with torch's padding rules."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from backbones.layers.sliding_windows import Padding, gathered, windows_of


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
    padded = (sides[0], sides[1])
    return lax.platform_dependent(
        x,
        cpu=lambda x: _max_pool_by_taps(x, window, stride, padded),
        default=lambda x: _max_pool(x, window, stride, padded),
    )


def _max_pool(x: Array, window: int, stride: int, padding: Padding) -> Array:
    pads = ((0, 0), *padding, (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, window, window, 1), (1, stride, stride, 1), pads)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_pool_by_taps(x: Array, window: int, stride: int, padding: Padding) -> Array:
    """A maximum whose gradient is one loop over the input; what differentiation makes of it takes five times as long.

    Of equal values the first one of a window has the gradient, in the order of rows.
    """
    return _max_pool(x, window, stride, padding)


def _forward(x: Array, window: int, stride: int, padding: Padding) -> tuple[Array, Array]:
    return _max_pool(x, window, stride, padding), x


def _backward(window: int, stride: int, padding: Padding, x: Array, gradient: Array) -> tuple[Array]:
    shape = (window, window)
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=-jnp.inf)
    # The largest so far and the number of its tap, from one on. Values are not compared with the maximum itself, which
    # another part of the program may have rounded otherwise.
    largest, which = jnp.full(gradient.shape, -jnp.inf, x.dtype), jnp.zeros(gradient.shape, jnp.int32)
    for row, column, values in windows_of(padded, shape, stride, 1):
        which = jnp.where(values > largest, 1 + row * window + column, which)
        largest = jnp.maximum(values, largest)
    of_x = gathered(
        lambda row, column, values, tap: jnp.where(tap == 1 + row * window + column, values, 0),
        (gradient.astype(jnp.float32), which), shape, stride, padding, 1, x.shape,
    )  # fmt: skip
    return (of_x.astype(x.dtype),)


_max_pool_by_taps.defvjp(_forward, _backward)


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
