"""Corruptions by blur: defocus, frosted glass, motion, zoom and Gaussian blur."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from experiments.data.corruptions import filters
from experiments.data.corruptions.filters import Image, Matrices, Numbers, Shape
from experiments.data.corruptions.severities import Constants


def disk(of: Constants) -> Float[np.ndarray, 'side side']:
    """The kernel of a defocus blur."""
    radius, sigma = of.values
    return filters.disk(radius, sigma, max(8, *(int(values[0]) for values in of.all_severities)))


def defocus_blur(image: Image, noise: None, kernel: Float[Array, 'side side']) -> Image:
    """Blur by a disk."""
    return filters.correlate(image, kernel)


# What glass does at most, over all severities and sizes.
_REPETITIONS = 3


class Glass(NamedTuple):
    """Settings of ``glass_blur``.

    Attributes:
        blur: a Gaussian.
        reach: rows and columns that a pixel moves at most.
        repetitions: how often.
    """

    blur: Matrices
    reach: Int[Array, '']
    repetitions: Int[Array, '']


def glass(of: Constants) -> Glass:
    """The settings of ``glass_blur``."""
    sigma, reach, repetitions = of.values
    return Glass(filters.gaussian(of.height, of.width, sigma), jnp.int32(reach), jnp.int32(repetitions))


def count_of_glass(shape: Shape) -> int:
    """Numbers that ``draw_neighbours`` needs."""
    return _REPETITIONS * shape[0] * shape[1] * 2


def draw_neighbours(numbers: Numbers, shape: Shape, settings: Glass) -> Int[Array, 'repetitions height width 2']:
    """How far right and down the pixel lies that replaces each one away from the border."""
    numbers = numbers[: count_of_glass(shape)].reshape(_REPETITIONS, *shape[:2], 2)
    return jnp.floor(2 * settings.reach * numbers).astype(jnp.int32) - settings.reach


def glass_blur(image: Image, noise: Int[Array, 'repetitions height width 2'], settings: Glass) -> Image:
    """Blur, replace each pixel by one nearby, and blur again.

    The reference means to swap the two, but what it writes copies one: rows of an array are views, so the first
    assignment changes what the second reads. ImageNet-C was made so.

    Args:
        noise: in the order in which the reference visits pixels: from the last row and column backwards. Where the
            border takes no part, fewer rows and columns are read than there are.
    """
    image = filters.to_8_bits(filters.separable(image, settings.blur), rounded=False)
    image = lax.fori_loop(
        0, settings.repetitions, lambda number, image: _replace(image, noise[number], settings.reach), image
    )
    return filters.separable(image, settings.blur)


def _replace(image: Image, neighbours: Int[Array, 'height width 2'], reach: Int[Array, '']) -> Image:
    """Visit all pixels in the reference's order, those at once that do not see each other.

    A pixel reads at most ``reach`` rows and columns away, and so must come after all that precede it in that window.
    That holds if the pixel in row i and column j of the order is visited at time ``j + 2 reach i``; those of the same
    time are then too far apart to meet. It takes ``columns + 2 reach rows`` steps instead of ``rows × columns``.
    """
    height, width, channels = image.shape
    rows, columns = height - 2 * reach, width - 2 * reach
    skew = 2 * reach
    pixels = image.reshape(-1, channels)
    at_once = jnp.arange(-(-width // 2))  # as many as fit for the shortest reach, 1

    def visit(time: Int[Array, ''], pixels: Float[Array, 'pixels channels']) -> Float[Array, 'pixels channels']:
        row = time // skew - at_once
        column = time - skew * row
        valid = (row >= 0) & (row < rows) & (column < columns)
        right, down = jnp.moveaxis(neighbours[jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)], -1, 0)
        y, x = height - reach - row, width - reach - column
        source = (y + down) * width + x + right
        target = jnp.where(valid, y * width + x, len(pixels))
        return pixels.at[target].set(pixels[source], mode='drop')

    last = jnp.where((rows > 0) & (columns > 0), columns + skew * (rows - 1), 0)
    return lax.fori_loop(0, last, visit, pixels).reshape(image.shape)


def line(of: Constants) -> Float[np.ndarray, ' taps']:
    """The weights along a motion."""
    return filters.line(*of.values, longest=max(radius for radius, _ in of.all_severities))


def draw_angle(numbers: Numbers, shape: Shape, settings: object) -> Float[Array, '']:
    """A direction within 45 degrees of the horizontal."""
    return 90 * numbers[0] - 45


def motion_blur(image: Image, angle: Float[Array, ''], weights: Float[Array, ' taps']) -> Image:
    """Blur along a line."""
    return filters.to_8_bits(filters.motion_blur(image, weights, angle), rounded=False)


class Zooms(NamedTuple):
    """Settings of ``zoom_blur``.

    Attributes:
        matrices: of each zoom, followed by zeros, so that all severities have as many.
        count: of zooms, as a float.
    """

    matrices: tuple[Float[Array | np.ndarray, 'zooms height height'], Float[Array | np.ndarray, 'zooms width width']]
    count: Float[Array, '']


def zooms(of: Constants) -> Zooms:
    """The settings of ``zoom_blur``."""
    factors = [np.arange(*values) for values in of.all_severities]
    own = np.arange(*of.values)
    missing = max(map(len, factors)) - len(own)
    stacks = [
        np.pad(np.stack([filters.zoom_matrix(length, float(factor)) for factor in own]), ((0, missing), (0, 0), (0, 0)))
        for length in (of.height, of.width)
    ]
    return Zooms((stacks[0], stacks[1]), jnp.float32(len(own)))


def zoom_blur(image: Image, noise: None, settings: Zooms) -> Image:
    """The mean of the image and of it at several zooms."""

    def add(total: Image, matrices: Matrices) -> tuple[Image, None]:
        return total + filters.separable(image, matrices), None

    return lax.scan(add, image, settings.matrices)[0] / (settings.count + 1)


def gaussian(of: Constants) -> Matrices:
    """The matrices of ``gaussian_blur``."""
    return filters.gaussian(of.height, of.width, of.values)


def gaussian_blur(image: Image, noise: None, matrices: Matrices) -> Image:
    """Blur by a Gaussian."""
    return filters.separable(image, matrices)
