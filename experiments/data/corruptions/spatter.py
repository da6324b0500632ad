"""Spatter: drops of water, whose rims are shaded, or of mud on the lens.

The shading follows OpenCV's Canny, distance transform and histogram equalisation, as the reference calls them.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from experiments.data.corruptions import filters
from experiments.data.corruptions.filters import Image, Matrices, Numbers, Shape
from experiments.data.corruptions.severities import Constants

Plane = Float[Array, 'height width']

# Red, green and blue.
_WATER = np.array([175, 238, 238], np.float32) / 255
_MUD = np.array([63, 42, 20], np.float32) / 255
_GREY = np.array([0.2989, 0.5870, 0.1140], np.float32)
_LOW, _HIGH = 50, 150
# The tangent of 22.5 degrees in OpenCV's fixed point.
_TANGENT = 13573
_FARTHEST = 20
# Lengths of the steps of OpenCV's distance transform of 5 by 5.
_STEPS = {(0, 1): 1.0, (1, 1): 1.4, (1, 2): 2.1969}
_RELIEF = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], np.float32)
_MEAN = np.full((3, 3), 1 / 9, np.float32)


class Drops(NamedTuple):
    """Settings of ``spatter``.

    Attributes:
        mean, deviation: of the normal numbers that become drops.
        blur: a Gaussian over them.
        threshold: smallest value that is liquid.
        strength: of water.
        mud: a Gaussian over mud.
        is_mud: whether it is mud.
    """

    mean: Float[Array, '']
    deviation: Float[Array, '']
    blur: Matrices
    threshold: Float[Array, '']
    strength: Float[Array, '']
    mud: Matrices
    is_mud: Bool[Array, '']


def drops(of: Constants) -> Drops:
    """The settings of ``spatter``."""
    mean, deviation, sigma, threshold, last, is_mud = of.values
    return Drops(
        jnp.float32(mean),
        jnp.float32(deviation),
        filters.gaussian(of.height, of.width, sigma),
        jnp.float32(threshold),
        jnp.float32(last),
        filters.gaussian(of.height, of.width, last),
        jnp.bool_(is_mud),
    )


def draw_drops(numbers: Numbers, shape: Shape, settings: object) -> Float[Array, 'height width 1']:
    """Standard normal numbers."""
    return filters.normal(filters.fields(numbers, (*shape[:2], 1))[0])


def spatter(image: Image, normal: Float[Array, 'height width 1'], settings: Drops) -> Image:
    """Add drops."""
    liquid = filters.separable(settings.mean + settings.deviation * normal, settings.blur)
    return lax.cond(settings.is_mud, _mud, _water, image, liquid, settings)


def _mud(image: Image, liquid: Float[Array, 'height width 1'], settings: Drops) -> Image:
    cover = filters.separable((liquid > settings.threshold).astype(jnp.float32), settings.mud)
    cover = jnp.where(cover < 0.8, 0, cover)
    return image * (1 - cover) + cover * _of_channels(_MUD, image)


def _water(image: Image, liquid: Float[Array, 'height width 1'], settings: Drops) -> Image:
    # The reference keeps 8 bits, without clipping.
    levels = jnp.where(liquid < settings.threshold, 0, jnp.floor(255 * liquid) % 256)[..., 0]
    shaded = levels * _relief(levels)
    water = settings.strength * shaded / jnp.maximum(shaded.max(), 1e-12)
    return image + water[..., None] * _of_channels(_WATER, image)


def _of_channels(colour: Float[np.ndarray, '3'], image: Image) -> Float[np.ndarray, ' channels']:
    return colour if image.shape[-1] == 3 else (colour * _GREY).sum(keepdims=True)


def _relief(levels: Plane) -> Plane:
    """Light and shade on drops, from 0 to 255: a relief filter over the distance to the nearest rim."""
    distance = filters.correlate(_distance(_edges(levels))[..., None], _MEAN)
    raised = filters.correlate(_equalised(jnp.floor(distance + 1e-4)), _RELIEF)
    return jnp.round(filters.correlate(jnp.clip(raised, 0, 255), _MEAN))[..., 0]


def _shifted(plane: Array, down: int, right: int, fill: float) -> Array:
    """The value at (y + down, x + right) for every pixel; ``fill`` beyond the border."""
    reach = max(abs(down), abs(right))
    padded = jnp.pad(plane, reach, constant_values=fill)
    height, width = plane.shape
    return padded[reach + down : reach + down + height, reach + right : reach + right + width]


def _edges(levels: Plane) -> Bool[Array, 'height width']:
    """Canny's edges of an image of 8 bits (Canny 1986)."""
    padded = jnp.pad(levels.astype(jnp.int32), 1, 'edge')
    vertical = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    horizontal = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    right, down = vertical[:, 2:] - vertical[:, :-2], horizontal[2:] - horizontal[:-2]
    size = jnp.abs(right) + jnp.abs(down)

    def is_peak(step: tuple[int, int], strictly: bool = False) -> Bool[Array, 'height width']:
        before, after = _shifted(size, -step[0], -step[1], 0), _shifted(size, *step, 0)
        return (size > before) & ((size > after) if strictly else (size >= after))

    steepness = jnp.abs(down) << 15
    flat, steep = jnp.abs(right) * _TANGENT, jnp.abs(right) * (_TANGENT + (1 << 16))
    diagonal = jnp.where((right < 0) != (down < 0), is_peak((1, -1), True), is_peak((1, 1), True))
    peak = jnp.where(steepness < flat, is_peak((0, 1)), jnp.where(steepness > steep, is_peak((1, 0)), diagonal))
    weak, strong = peak & (size > _LOW), peak & (size > _HIGH)

    def grown(edges: Bool[Array, 'height width']) -> Bool[Array, 'height width']:
        near = lax.reduce_window(edges, False, lax.bitwise_or, (3, 3), (1, 1), 'SAME')
        return near & weak | edges

    def unfinished(state: tuple[Array, Array]) -> Bool[Array, '']:
        return (state[0] != state[1]).any()

    _, edges = lax.while_loop(unfinished, lambda state: (state[1], grown(state[1])), (strong, grown(strong)))
    return edges


def _distance(edges: Bool[Array, 'height width']) -> Plane:
    """The distance to the nearest edge in steps to neighbours and of a knight, at most ``_FARTHEST``."""
    steps = {
        (sign_y * y, sign_x * x): length
        for (short, long), length in _STEPS.items()
        for y, x in ((short, long), (long, short))
        for sign_y in (-1, 1)
        for sign_x in (-1, 1)
    }

    def relax(_: Int[Array, ''], distance: Plane) -> Plane:
        reached = [_shifted(distance, *step, _FARTHEST) + length for step, length in steps.items()]
        return jnp.minimum(distance, jnp.stack(reached).min(0))

    # Every step is at least 1 long.
    return lax.fori_loop(0, _FARTHEST, relax, jnp.where(edges, 0.0, float(_FARTHEST)))


def _equalised(levels: Float[Array, 'height width 1']) -> Float[Array, 'height width 1']:
    """Histogram equalisation of whole numbers up to ``_FARTHEST``."""
    values = jnp.arange(_FARTHEST + 1)
    at_most = (levels <= values).sum((0, 1))
    lowest = at_most[jnp.argmax(at_most > 0)]
    others = at_most[-1] - lowest
    table = jnp.round(jnp.maximum(at_most - lowest, 0) * (255 / jnp.maximum(others, 1)))
    return jnp.where(others > 0, table[levels.astype(jnp.int32)], levels)
