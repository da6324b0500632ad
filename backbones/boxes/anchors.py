"""Anchors: the same boxes at every position of a level's grid. They are constants, made by numpy while tracing.

Source: torchvision/models/detection/anchor_utils.py, ``AnchorGenerator``.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float] = (1.0,)) -> Float[np.ndarray, 'anchors 4']:
    """Boxes around the origin, with coordinates that are rounded (half to even).

    Args:
        sizes: square roots of the areas, in pixels.
        ratios: of height to width; all sizes of the first ratio come first.
    """
    heights = np.sqrt(np.asarray(ratios, np.float32))
    widths = 1 / heights
    sides = np.asarray(sizes, np.float32)
    across, down = (np.outer(each, sides).ravel() for each in (widths, heights))
    return np.round(np.stack([-across, -down, across, down], axis=1) / 2)


def grid_anchors(
    cells: Float[np.ndarray, 'anchors 4'], grid: Sequence[int], size: Sequence[int]
) -> Float[np.ndarray, 'rows columns anchors 4']:
    """The cell's anchors at every position of a grid.

    The first position is at pixel 0, and the others follow at the whole part of ``size / grid`` pixels, in each axis on
    its own: at a height of 800, the 13 rows of p6 are 61 pixels apart and not 64.

    Args:
        cells: see ``cell_anchors``.
        grid: rows and columns.
        size: height and width in pixels of the images that the grid was computed from.
    """
    down, across = (
        np.arange(count, dtype=np.float32) * (length // count) for count, length in zip(grid, size, strict=True)
    )
    down, across = np.meshgrid(down, across, indexing='ij')
    shifts = np.stack([across, down, across, down], axis=-1)
    return shifts[:, :, None] + cells
