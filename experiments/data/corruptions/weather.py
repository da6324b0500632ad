"""Corruptions by weather: snow, fog and brightness. (Frost, which needs photographs of it, is left out.)"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.data.corruptions import filters
from experiments.data.corruptions.filters import Image, Matrices, Numbers, Shape
from experiments.data.corruptions.severities import Constants

# Red, green and blue in grey (ITU-R BT.601, as in OpenCV).
_GREY = np.array([0.299, 0.587, 0.114], np.float32)
_Scalar = Float[Array, '']


class Flakes(NamedTuple):
    """What is random in snow.

    Attributes:
        normal: standard normal numbers.
        angle: direction of the fall in degrees.
    """

    normal: Float[Array, 'height width 1']
    angle: Float[Array, '']


class Snow(NamedTuple):
    """Settings of ``snow``.

    Attributes:
        mean, deviation: of the normal numbers that become flakes.
        zoom: of the flakes.
        threshold: smallest value that shows.
        line: of their motion (``filters.line``).
        share: of the image that is not bleached.
    """

    mean: _Scalar
    deviation: _Scalar
    zoom: Matrices
    threshold: _Scalar
    line: Float[Array | np.ndarray, ' taps']
    share: _Scalar


def snowfall(of: Constants) -> Snow:
    """The settings of ``snow``."""
    mean, deviation, zoom, threshold, radius, sigma, share = of.values
    longest = max(values[4] for values in of.all_severities)
    return Snow(
        jnp.float32(mean),
        jnp.float32(deviation),
        filters.clipped_zoom(of.height, of.width, zoom),
        jnp.float32(threshold),
        filters.line(radius, sigma, longest),
        jnp.float32(share),
    )


def draw_flakes(numbers: Numbers, shape: Shape, settings: object) -> Flakes:
    """Flakes, and a direction within 45 degrees of the vertical."""
    layer = (*shape[:2], 1)
    return Flakes(filters.normal(filters.fields(numbers, layer)[0]), 90 * numbers[shape[0] * shape[1]] - 135)


def snow(image: Image, flakes: Flakes, settings: Snow) -> Image:
    """Bleach the image and add flakes in motion, and the same flakes turned by 180 degrees."""
    layer = filters.separable(settings.mean + settings.deviation * flakes.normal, settings.zoom)
    layer = filters.to_8_bits(jnp.where(layer < settings.threshold, 0, layer), rounded=False)
    layer = filters.to_8_bits(filters.motion_blur(layer, settings.line, flakes.angle), rounded=False)
    grey = (image * _GREY).sum(-1, keepdims=True) if image.shape[-1] == 3 else image
    bleached = settings.share * image + (1 - settings.share) * jnp.maximum(image, 1.5 * grey + 0.5)
    return bleached + layer + layer[::-1, ::-1]


def side_of_fog(shape: Shape) -> int:
    """Side of the fractal that covers an image: a power of two."""
    return 1 << (max(shape[:2]) - 1).bit_length()


def count_of_fog(shape: Shape) -> int:
    """Numbers that ``draw_heights`` needs."""
    return side_of_fog(shape) ** 2


def draw_heights(numbers: Numbers, shape: Shape, settings: object) -> Float[Array, 'side side']:
    """Numbers from -1 to 1, one for each point of the fractal."""
    side = side_of_fog(shape)
    return 2 * numbers[: side**2].reshape(side, side) - 1


def plasma_fractal(noise: Float[Array, 'side side'], decay: _Scalar) -> Float[Array, 'side side']:
    """Heights from 0 to 1 by the diamond-square algorithm, periodic (Fournier, Fussell & Carpenter 1982).

    Args:
        noise: from -1 to 1; the side is a power of two.
        decay: factor by which the noise shrinks with each halving of the distance between points.
    """
    heights, strength = jnp.zeros((1, 1)), jnp.float32(100)
    while len(heights) < len(noise):
        step = len(noise) // len(heights)
        corners, middles = slice(None, None, step), slice(step // 2, None, step)
        scale = jnp.square(strength)
        pairs = heights + jnp.roll(heights, -1, 0)
        centres = (pairs + jnp.roll(pairs, -1, 1)) / 4 + scale * noise[middles, middles]
        above_and_below = heights + jnp.roll(heights, -1, 1) + centres + jnp.roll(centres, 1, 0)
        left_and_right = heights + jnp.roll(heights, -1, 0) + centres + jnp.roll(centres, 1, 1)
        right = above_and_below / 4 + scale * noise[corners, middles]
        below = left_and_right / 4 + scale * noise[middles, corners]
        rows = [jnp.stack([heights, right], -1), jnp.stack([below, centres], -1)]
        heights = jnp.stack(rows, 1).reshape(2 * len(heights), -1)
        strength = strength / decay
    heights = heights - heights.min()
    return heights / jnp.maximum(heights.max(), 1e-12)


def fog(image: Image, noise: Float[Array, 'side side'], settings: tuple[_Scalar, _Scalar]) -> Image:
    """Add a plasma fractal, given its strength and decay, and keep the largest value."""
    strength, decay = settings
    height, width, _ = image.shape
    largest = image.max()
    fogged = image + strength * plasma_fractal(noise, decay)[:height, :width, None]
    return fogged * largest / (largest + strength)


def brightness(image: Image, noise: None, added: _Scalar) -> Image:
    """Add to the value of HSV, whatever the hue and the saturation."""
    value = image.max(-1, keepdims=True)
    brighter = jnp.clip(value + added, 0, 1)
    # All colours of one hue and saturation are proportional; black has none and becomes grey.
    return jnp.where(value > 0, image * (brighter / jnp.maximum(value, 1e-12)), brighter)
