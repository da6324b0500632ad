"""Rotary positions of a grid: pairs of a head's channels turned by an angle that grows with row or column.

Source: Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding"; in two dimensions Fang et al.
2023, "EVA-02", and Siméoni et al. 2025, "DINOv3". These differ in three things: the coordinates of a patch
(``centred_coordinates``, ``index_coordinates``), the frequencies, and which channels are a pair (``PAIRINGS``).

    rotation = rotation_of(centred_coordinates((rows, columns)), 2 * np.pi * frequencies(width // 4, 100), 'half')
    query, key = rotated(query, rotation), rotated(key, rotation)

Angles are constants, computed in numpy while a program is traced.
"""

from collections.abc import Callable
from functools import partial

import flax.struct
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from backbones.errors import UserError, unknown

# Pairing → the axis of the two members where a head's channels are laid out as pairs.
PAIRINGS = {
    # Channel i belongs to channel i + width / 2 (DINOv3; torch code calls it ``rotate_half``).
    'half': -2,
    # Channel 2 i belongs to channel 2 i + 1 (EVA-02).
    'interleaved': -1,
}


@flax.struct.dataclass
class Rotation:
    """What queries and keys are turned by.

    Attributes:
        cosine, sine: of the angle of each position and pair of channels.
        pairing: which channels are a pair, a name of ``PAIRINGS``.
    """

    cosine: Float[Array | np.ndarray, 'positions pairs']
    sine: Float[Array | np.ndarray, 'positions pairs']
    pairing: str = flax.struct.field(pytree_node=False)


def frequencies(count: int, base: float) -> Float[np.ndarray, ' count']:
    """``count`` frequencies in radians per unit of a coordinate, from 1 down to almost ``1 / base``, in even ratios."""
    return base ** (-np.arange(count) / count)


def centred_coordinates(grid: tuple[int, int]) -> Float[np.ndarray, 'positions 2']:
    """Row and column of each patch's centre, where the image spans -1 to 1 whatever its size (DINOv3)."""
    return _mesh(*(2 * (np.arange(size) + 0.5) / size - 1 for size in grid))


def index_coordinates(grid: tuple[int, int], trained: int | None = None) -> Float[np.ndarray, 'positions 2']:
    """Row and column of each patch, counted from zero (EVA-02).

    Args:
        grid: rows and columns.
        trained: the side of the grid of the pretraining, to which the numbers are scaled; ``None`` leaves them.
    """
    return _mesh(*(np.arange(size) * ((trained or size) / size) for size in grid))


def _mesh(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return np.stack(np.meshgrid(rows, columns, indexing='ij'), axis=-1).reshape(-1, 2)


def rotation_of(
    coordinates: Float[np.ndarray, 'positions axes'], frequencies: Float[np.ndarray, ' count'], pairing: str
) -> Rotation:
    """The rotation by ``coordinate * frequency``: the first pairs turn with the row, the last with the column.

    A head needs ``2 * axes * count`` channels.

    Raises:
        UserError: no such pairing.
    """
    if pairing not in PAIRINGS:
        raise unknown('pairing of channels', pairing, PAIRINGS)
    angles = (coordinates[:, :, None] * frequencies).reshape(len(coordinates), -1)
    return Rotation(np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32), pairing)


# DINOv3's kinds of positions → the type to which their periods were rounded.
_PERIODS: dict[str, type] = {'dinov3': np.float32, 'dinov3_bfloat16': ml_dtypes.bfloat16}


def periods_of(method: str, width: int) -> Float[np.ndarray, ' count']:
    """DINOv3's periods for heads of ``width`` channels; the image spans 2."""
    return (1 / frequencies(width // 4, 100.0)).astype(_PERIODS[method]).astype(np.float32)


def _dinov3(method: str, grid: tuple[int, int], width: int) -> Rotation:
    return rotation_of(centred_coordinates(grid), 2 * np.pi / periods_of(method, width).astype(np.float64), 'half')


# Whose positions → the rotation for a grid and the channels of a head, which are a multiple of four.
METHODS: dict[str, Callable[[tuple[int, int], int], Rotation]] = {
    # DINOv3 as timm and transformers compute it.
    'dinov3': partial(_dinov3, 'dinov3'),
    # Its authors': the periods, which their files hold too, were rounded when they trained.
    'dinov3_bfloat16': partial(_dinov3, 'dinov3_bfloat16'),
    # EVA-02's: on every grid, coordinates grow as they did on the 16x16 patches of its pretraining.
    'eva02': lambda grid, width: rotation_of(index_coordinates(grid, 16), frequencies(width // 4, 1e4), 'interleaved'),
}


def rotation_for(method: str, grid: tuple[int, int], width: int) -> Rotation:
    """The rotation of a named model.

    Args:
        method: whose code is followed, a name of ``METHODS``.
        grid: rows and columns of patches.
        width: channels of a head.

    Raises:
        UserError: no such method, or the channels of a head are no multiple of four.
    """
    if method not in METHODS:
        raise unknown('kind of rotary positions', method, METHODS)
    if width % 4:
        raise UserError(f'rotary positions need heads whose channels are a multiple of 4, not of {width} channels')
    return METHODS[method](grid, width)


def rotated(x: Float[Array, '*batch tokens width'], rotation: Rotation | None) -> Float[Array, '*batch tokens width']:
    """Queries or keys of heads, turned; tokens in front of the last ``positions`` ones are left as they are.

    Computed in float32 and rounded once.
    """
    if rotation is None:
        return x
    positions, pairs = rotation.cosine.shape
    before, patches = jnp.split(x, [x.shape[-2] - positions], axis=-2)
    axis = PAIRINGS[rotation.pairing]
    laid_out = (2, pairs) if axis == -2 else (pairs, 2)
    wide = patches.astype(jnp.float32).reshape(*patches.shape[:-1], *laid_out)
    first, second = (lax.index_in_dim(wide, index, axis, keepdims=False) for index in (0, 1))
    turned = first * rotation.cosine - second * rotation.sine, second * rotation.cosine + first * rotation.sine
    patches = jnp.stack(turned, axis=axis).reshape(patches.shape).astype(x.dtype)
    return jnp.concatenate([before, patches], axis=-2)
