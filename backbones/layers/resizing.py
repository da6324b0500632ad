"""Resizing maps as torch's ``interpolate`` does, without antialiasing."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from backbones.errors import unknown

# The name of this program in others, by which ``cost`` knows it.
INTERPOLATION = 'interpolation'


def linear_matrix(old: int, new: int) -> np.ndarray:
    """Torch's linear interpolation of one axis (``align_corners=False``) as a matrix ``[new, old]``.

    Every new value is made of two old ones, also where the axis shrinks; the border is repeated.
    """
    centre = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    first = np.floor(centre).astype(int)
    matrix = np.zeros((new, old))
    np.add.at(matrix, (np.arange(new), first), 1 - (centre - first))
    np.add.at(matrix, (np.arange(new), np.minimum(first + 1, old - 1)), centre - first)
    return matrix


def resize(
    x: Float[Array, 'batch height width channels'],
    size: Sequence[int],
    method: Literal['linear', 'nearest'] = 'linear',
) -> Float[Array, 'batch rows columns channels']:
    """Bring a map to a height and width.

    Args:
        x: the map.
        size: height and width.
        method: ``'linear'`` in both axes (torch's ``bilinear`` with ``align_corners=False``), computed in float32; or
            ``'nearest'``, where pixel i comes from ``floor(i * old / new)``.

    Raises:
        UserError: another method.
    """
    if method not in ('linear', 'nearest'):
        raise unknown('method of resizing', method, ('linear', 'nearest'))
    dtype = x.dtype
    for axis, new in zip((1, 2), size, strict=True):
        old = x.shape[axis]
        if old == new:
            continue
        if method == 'nearest':
            x = jnp.take(x, np.arange(new) * old // new, axis=axis)
        else:
            x = interpolation(x.astype(jnp.float32), new, axis)
    return x.astype(dtype)


@partial(jax.jit, static_argnames=('new', 'axis'))
def interpolation(
    x: Float[Array, 'batch height width channels'], new: int, axis: int
) -> Float[Array, 'batch rows columns channels']:
    """Linear interpolation of one axis, as a product with a matrix: the gradient of gathers would be a scatter."""
    matrix = jnp.asarray(linear_matrix(x.shape[axis], new), x.dtype)
    product = 'nh,bhwc->bnwc' if axis == 1 else 'nw,bhwc->bhnc'
    return jnp.einsum(product, matrix, x, precision=lax.Precision.HIGHEST)
