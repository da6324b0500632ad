"""The points of a YOLO's maps, and boxes from distances to them.

Source: ultralytics/utils/tal.py, ``make_anchors`` and ``dist2bbox``; ultralytics/nn/modules/block.py, ``DFL``.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True)
class Points:
    """The points of a level, row by row.

    Attributes:
        centres: x and y in pixels, in the middle of each cell.
        stride: width and height of a cell in pixels: the size of the images divided by that of the grid, which is the
            nominal stride wherever that divides the size.
    """

    centres: Float[np.ndarray, 'n 2']
    stride: Float[np.ndarray, '2']


def points_of(grid: Sequence[int], size: Sequence[int]) -> Points:
    """The points of a grid of rows and columns on images of this height and width."""
    down, across = (length / count for count, length in zip(grid, size, strict=True))
    y, x = np.meshgrid((np.arange(grid[0]) + 0.5) * down, (np.arange(grid[1]) + 0.5) * across, indexing='ij')
    centres = np.stack([x, y], axis=-1).reshape(-1, 2)
    return Points(centres.astype(np.float32), np.array([across, down], np.float32))


def centres_of(points: Sequence[Points]) -> Float[np.ndarray, 'n 2']:
    """Those of all levels."""
    return np.concatenate([each.centres for each in points])


def strides_of(points: Sequence[Points]) -> Float[np.ndarray, 'n 4']:
    """What a distance of 1 to left, top, right and bottom is in pixels, for the points of all levels."""
    return np.concatenate([np.broadcast_to(np.tile(each.stride, 2), (len(each.centres), 4)) for each in points])


def distances(raw: Float[Array, '*batch n sides']) -> Float[Array, '*batch n 4']:
    """Distances in strides: as they are, or the expectation over the bins of each."""
    bins = raw.shape[-1] // 4
    if bins == 1:
        return raw
    return jax.nn.softmax(raw.reshape(*raw.shape[:-1], 4, bins)) @ jnp.arange(bins, dtype=raw.dtype)


def decode(raw: Float[Array, '*batch n sides'], points: Sequence[Points]) -> Float[Array, '*batch n 4']:
    """Boxes in pixels, from what is predicted of them at the points of all levels."""
    before, after = jnp.split(distances(raw) * strides_of(points), 2, axis=-1)
    centres = centres_of(points)
    return jnp.concatenate([centres - before, centres + after], axis=-1)
