"""RoIAlign: the part of a feature map inside a box, interpolated to a small grid of fixed size.

Source: He et al. 2017, "Mask R-CNN", section 3; torchvision/csrc/ops/cpu/roi_align_kernel.cpp with ``aligned=False``,
and torchvision/ops/poolers.py.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from backbones.boxes.iou import area

# Which values of a map along an axis each bin is made of, and their weights.
Taps = tuple[Int[Array, 'n resolution taps'], Float[Array, 'n resolution taps']]

# Up to so many positions of all levels, matrix products over whole maps take less time in training than picking values:
# adding up the gradients of what is picked is slow, above all on a CPU.
_SMALL = 1024
# A box of this side in pixels belongs to the level of this exponent (Lin et al. 2017, "Feature Pyramid Networks").
_CANONICAL_SIDE, _CANONICAL_EXPONENT = 224, 4


def level_of(boxes: Float[Array, 'n 4'], exponents: Sequence[int]) -> Int[Array, 'n']:
    """Which level of a pyramid each box is pooled from: a box of twice the side, one level coarser.

    Args:
        boxes: in pixels of the input.
        exponents: those of the levels, growing; where one is left out, the finer level has its boxes too.

    Returns:
        Indices into ``exponents``.
    """
    side = jnp.sqrt(jnp.maximum(area(boxes), 1e-12))
    exponent = jnp.floor(_CANONICAL_EXPONENT + jnp.log2(side / _CANONICAL_SIDE) + 1e-6)
    return (exponent[:, None] >= jnp.asarray(exponents[1:])).sum(-1, dtype=jnp.int32)


def roi_align(
    maps: Sequence[Float[Array, 'rows columns channels']],
    boxes: Float[Array, 'n 4'],
    level: Int[Array, 'n'],
    size: Sequence[int],
    resolution: int = 7,
    samples: int = 2,
) -> Float[Array, 'n resolution resolution channels']:
    """The maps of one image inside boxes; gradients flow to the maps, not to the boxes.

    A box is divided into bins, each the mean of ``samples`` times ``samples`` values, bilinearly interpolated. Position
    0 is the first value of a map itself, not its corner. A sample more than one step outside a map is 0; nearer ones
    are that of the border. A box has at least the size of one step.

    Args:
        maps: of all levels, with equal channels.
        boxes: in pixels of the input.
        level: the index of each box's map.
        size: height and width of the input, which the maps span.
        resolution: bins on each side.
        samples: samples in a bin along each axis.
    """
    shapes = np.array([each.shape[:2] for each in maps])
    boxes, grid = jax.lax.stop_gradient(boxes), jnp.asarray(shapes)[level]
    scale = jnp.asarray(shapes / np.asarray(size), jnp.float32)[level]
    rows, columns = (
        _taps(boxes[:, axis] * scale[:, each], boxes[:, axis + 2] * scale[:, each], grid[:, each], resolution, samples)
        for each, axis in ((0, 1), (1, 0))
    )
    if shapes.prod(1).sum() <= _SMALL:
        parts = [_as_products(each, rows, columns, level == index) for index, each in enumerate(maps)]
        return functools.reduce(jnp.add, parts)
    first = np.concatenate([[0], np.cumsum(shapes.prod(1))[:-1]])
    positions = jnp.asarray(first)[level][:, None, None] + rows[0] * grid[:, 1, None, None]
    values = jnp.concatenate([each.reshape(-1, each.shape[-1]) for each in maps])
    return _weighted_sums(values, (positions, rows[1]), columns)


def _taps(
    start: Float[Array, 'n'], end: Float[Array, 'n'], count: Int[Array, 'n'], resolution: int, samples: int
) -> Taps:
    """Of boxes between these positions, on axes of so many values."""
    width = jnp.maximum(end - start, 1)[:, None, None] / resolution
    within = (jnp.arange(samples, dtype=jnp.float32) + 0.5) / samples
    where = start[:, None, None] + (jnp.arange(resolution, dtype=jnp.float32)[:, None] + within) * width
    last = count[:, None, None] - 1
    inside = (where >= -1) & (where <= last + 1)
    where = jnp.clip(where, 0, last)
    before = where.astype(jnp.int32)
    share = where - before
    taps = jnp.stack([before, jnp.minimum(before + 1, last)], -1)
    weights = jnp.stack([1 - share, share], -1) * (inside / samples)[..., None]
    flat = len(start), resolution, 2 * samples
    return taps.reshape(flat), weights.reshape(flat)


def _as_products(
    x: Float[Array, 'height width channels'], rows: Taps, columns: Taps, pooled: Bool[Array, 'n']
) -> Float[Array, 'n resolution resolution channels']:
    """The boxes that are pooled from this map; zeros for the others."""
    down, across = (
        (weights[..., None] * (taps[..., None] == jnp.arange(length))).sum(2).astype(x.dtype)
        for (taps, weights), length in ((rows, x.shape[0]), (columns, x.shape[1]))
    )
    lines = jnp.einsum('npy,yxc->npxc', down * pooled[:, None, None], x)
    return jnp.einsum('nqx,npxc->npqc', across, lines)


@jax.custom_vjp
def _weighted_sums(
    values: Float[Array, 'positions channels'], rows: Taps, columns: Taps
) -> Float[Array, 'n resolution resolution channels']:
    """Sums over the pairs of a row's and a column's tap, one pair after the other: all at once would be large."""
    total = jnp.zeros((), jnp.float32)
    for index, weight in _pairs(rows, columns):
        total += values[index].astype(jnp.float32) * weight[..., None]
    return total.astype(values.dtype)


def _pairs(rows: Taps, columns: Taps) -> Iterator[tuple[Array, Array]]:
    for row, column in itertools.product(range(rows[0].shape[-1]), range(columns[0].shape[-1])):
        index = rows[0][:, :, None, row] + columns[0][:, None, :, column]
        yield index, rows[1][:, :, None, row] * columns[1][:, None, :, column]


def _forward(values: Array, rows: Taps, columns: Taps) -> tuple[Array, tuple]:
    return _weighted_sums(values, rows, columns), (values, rows, columns)


def _backward(kept: tuple, cotangent: Array) -> tuple:
    """Added in place, pair by pair; the derivative of a sum of gathers would be a map of zeros for each."""
    values, rows, columns = kept
    gradient, cotangent = jnp.zeros(values.shape, jnp.float32), cotangent.astype(jnp.float32)
    for index, weight in _pairs(rows, columns):
        gradient = gradient.at[index].add(cotangent * weight[..., None])
    return gradient.astype(values.dtype), None, None


_weighted_sums.defvjp(_forward, _backward)
