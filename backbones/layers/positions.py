"""Resampling learned positions to another grid, each way as the implementation that trained them does it.

A resampling of one axis is a matrix ``[new, old]``, computed in numpy while a program is traced, so that the same code
serves a file that is being loaded and a map inside the model.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from backbones.errors import UserError, unknown


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel."""
    x = np.abs(distance)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def bicubic_matrix(old: int, new: int, *, antialias: bool, scale: float | None = None) -> np.ndarray:
    """Torch's bicubic interpolation of one axis (``align_corners=False``) as a matrix ``[new, old]``.

    Args:
        old, new: sizes of the axis.
        antialias: with it, torch widens the kernel when it shrinks the axis, uses a = -0.5 and leaves out what lies
            outside; without it, a = -0.75 and the border is repeated.
        scale: new pixels per old pixel where the caller of ``interpolate`` passes a ``scale_factor``; by default
            ``new / old``.
    """
    step = old / new if scale is None else 1 / scale
    centre = (np.arange(new) + 0.5) * step - 0.5
    if antialias:
        width = max(step, 1.0)
        weights = _cubic((np.arange(old)[None] - centre[:, None]) / width, -0.5)
        return weights / weights.sum(1, keepdims=True)
    matrix = np.zeros((new, old))
    first = np.floor(centre).astype(int)
    for offset in range(-1, 3):
        column = np.clip(first + offset, 0, old - 1)
        np.add.at(matrix, (np.arange(new), column), _cubic(centre - (first + offset), -0.75))
    return matrix


# Method → the matrix ``[new, old]`` of one axis.
METHODS: dict[str, Callable[[int, int], np.ndarray]] = {
    # timm/layers/pos_embed.py, resample_abs_pos_embed
    'timm': partial(bicubic_matrix, antialias=True),
    # transformers/models/vit/modeling_vit.py, interpolate_pos_encoding
    'transformers': partial(bicubic_matrix, antialias=False),
    # dinov2/models/vision_transformer.py with interpolate_offset=0.1, the first release's
    'dinov2': lambda old, new: bicubic_matrix(old, new, antialias=False, scale=(new + 0.1) / old),
    # the same file, with registers: interpolate_offset=0, antialiased
    'dinov2_registers': partial(bicubic_matrix, antialias=True),
}


def resample_positions(
    table: Float[Array | np.ndarray, '1 tokens channels'], grid: tuple[int, int], prefix: int, method: str = 'timm'
) -> Float[Array, '1 new_tokens channels']:
    """Resample a table of learned positions from its square grid to another grid.

    A table with as many positions as the wanted grid, but not those of a square one, is left as it is.

    Args:
        table: prefix tokens first, which are kept as they are.
        grid: rows and columns wanted.
        prefix: number of prefix tokens in the table.
        method: whose code is followed, a name of ``METHODS``.

    Raises:
        UserError: no such method, or the table is not that of a square grid after so many prefix tokens.
    """
    if method not in METHODS:
        raise unknown('way to resample positions', method, METHODS)
    count = table.shape[1] - prefix
    side = round(max(count, 0) ** 0.5)
    square = side > 0 and side**2 == count
    if count == grid[0] * grid[1] and (grid[0] == grid[1] or not square):
        return jnp.asarray(table)
    if not square:
        raise UserError(
            f'{table.shape[1]} positions are no square grid after {prefix} prefix tokens, '
            f'so they cannot be resampled to {grid[0]}x{grid[1]}'
        )
    rows, columns = (METHODS[method](side, size) for size in grid)
    maps = jnp.asarray(table)[0, prefix:].reshape(side, side, -1)
    with jax.default_matmul_precision('highest'):
        maps = jnp.einsum('nr,mc,rcd->nmd', jnp.asarray(rows, maps.dtype), jnp.asarray(columns, maps.dtype), maps)
    return jnp.concatenate([jnp.asarray(table)[:, :prefix], maps.reshape(1, grid[0] * grid[1], -1)], axis=1)


def table_for(
    table: Float[np.ndarray, '1 tokens channels'], grid: tuple[int, int], prefix: int, method: str
) -> Float[np.ndarray, '1 new_tokens channels'] | None:
    """A table of a file for the grid that a model is made for, resampled; ``None`` where there can be none.

    ``resample_positions`` takes any square number of positions for a square grid, so the table cannot be of another.

    Args:
        table, grid, prefix, method: see ``resample_positions``.
    """
    rows, columns = grid
    if rows != columns and math.isqrt(rows * columns) ** 2 == rows * columns:
        return None
    try:
        return np.asarray(resample_positions(table, grid, prefix, method))
    except UserError:
        return None


def _geometric_matrix(old: int, new: int) -> np.ndarray:
    """Linear interpolation ``[new, old]`` of one axis of offsets, between points whose distances grow geometrically.

    The old offsets are laid out around zero so that the outermost one coincides with the outermost new one: offsets
    near zero stay as fine as they were trained, far ones are stretched. The ratio is found by bisection, with the
    bounds and the precision of the reference.
    """
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        ratio = (low + high) / 2
        beyond = (ratio ** np.arange(old // 2)).sum() > new // 2
        low, high = (low, ratio) if beyond else (ratio, high)
    distances = np.cumsum(ratio ** np.arange(old // 2))
    points = np.concatenate([-distances[::-1], [0], distances])
    offsets = np.arange(new) - new // 2
    return np.stack([np.interp(offsets, points, one) for one in np.eye(old)], axis=1)


def resample_relative_positions(
    table: Float[np.ndarray, 'offsets heads'], window: int
) -> Float[np.ndarray, 'new_offsets heads']:
    """Resample a table of relative-position biases from its square window to another one.

    Source: unilm/beit/run_class_finetuning.py, as timm/layers/pos_embed_rel.py, resize_rel_pos_bias_table, computes it.

    Args:
        table: one row per offset between two positions of a window, ``(2 * window - 1) ** 2`` of them.
        window: side of the new window.

    Raises:
        ValueError: the table is not that of a square window.
    """
    old, new = round(len(table) ** 0.5), 2 * window - 1
    if old % 2 == 0 or old**2 != len(table):
        raise ValueError(f'{len(table)} relative positions are not those of a square window')
    if old == new:
        return table
    matrix = _geometric_matrix(old, new)
    maps = np.einsum('nr,mc,rch->nmh', matrix, matrix, table.reshape(old, old, -1))
    return maps.reshape(new**2, -1).astype(table.dtype)
