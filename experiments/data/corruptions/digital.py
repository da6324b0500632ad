"""Digital corruptions: contrast, elastic transform, pixelation and saturation. (JPEG: ``jpeg``.)"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from experiments.data.corruptions import filters
from experiments.data.corruptions.filters import Image, Matrices, Numbers, Shape
from experiments.data.corruptions.severities import Constants

_Scalar = Float[Array, '']


def contrast(image: Image, noise: None, factor: _Scalar) -> Image:
    """Multiply the distance to the mean of each channel."""
    mean = image.mean((0, 1), keepdims=True)
    return (image - mean) * factor + mean


def saturate(image: Image, noise: None, settings: tuple[_Scalar, _Scalar]) -> Image:
    """Multiply the saturation of HSV by a factor and add to it; one channel has no colour and stays.

    As in scikit-image, grey has the hue of red.
    """
    if image.shape[-1] == 1:
        return image
    factor, added = settings
    value = image.max(-1, keepdims=True)
    lacking = value - image  # = value * saturation * what the hue lacks of each colour
    saturation = lacking.max(-1, keepdims=True) / jnp.maximum(value, 1e-12)
    hue = jnp.where(saturation > 0, lacking / jnp.maximum(value * saturation, 1e-12), jnp.array([0.0, 1.0, 1.0]))
    return value * (1 - jnp.clip(saturation * factor + added, 0, 1) * hue)


class Boxes(NamedTuple):
    """Settings of ``pixelate``: matrices of whole size, with zeros where the small image ends."""

    smaller: Matrices
    larger: Matrices


def boxes(of: Constants) -> Boxes:
    """The settings of ``pixelate``."""
    smaller, larger = [], []
    for length in (of.height, of.width):
        small = max(int(length * of.values), 1)
        smaller.append(np.pad(filters.box_matrix(length, small), ((0, length - small), (0, 0))))
        larger.append(np.pad(filters.box_matrix(small, length), ((0, 0), (0, length - small))))
    return Boxes((smaller[0], smaller[1]), (larger[0], larger[1]))


def pixelate(image: Image, noise: None, settings: Boxes) -> Image:
    """Shrink and enlarge again, by Pillow's box filter."""
    for rows, columns in settings:
        # Pillow keeps 8 bits after each axis.
        image = filters.to_8_bits(filters.separable(image, (np.eye(len(rows), dtype=np.float32), columns)))
        image = filters.to_8_bits(filters.separable(image, (rows, np.eye(len(columns), dtype=np.float32))))
    return image


class Deformation(NamedTuple):
    """What is random in an elastic transform, all from -1 to 1.

    Attributes:
        corners: where three points of the affine part move, right and down.
        right, down: of each pixel.
    """

    corners: Float[Array, '3 2']
    right: Float[Array, 'height width']
    down: Float[Array, 'height width']


class Elasticity(NamedTuple):
    """Settings of ``elastic_transform``; lengths in pixels.

    Attributes:
        strength: of the field.
        smoothing: a Gaussian over it.
        largest_move: of the three points.
    """

    strength: _Scalar
    smoothing: Matrices
    largest_move: _Scalar


def elasticity(of: Constants) -> Elasticity:
    """The settings of ``elastic_transform``."""
    strength, sigma, largest_move = (min(of.height, of.width) * value for value in of.values)
    rows, columns = (filters.gaussian_matrix(length, sigma, 3.0, 'symmetric') for length in (of.height, of.width))
    return Elasticity(jnp.float32(strength), (rows, columns), jnp.float32(largest_move))


def count_of_deformation(shape: Shape) -> int:
    """Numbers that ``draw_deformation`` needs."""
    return 6 + 2 * shape[0] * shape[1]


def draw_deformation(numbers: Numbers, shape: Shape, settings: object) -> Deformation:
    """A deformation."""
    right, down = filters.fields(numbers[6:], (*shape[:2], 1), 2)[..., 0]
    return Deformation(2 * numbers[:6].reshape(3, 2) - 1, 2 * right - 1, 2 * down - 1)


def elastic_transform(image: Image, drawn: Deformation, settings: Elasticity) -> Image:
    """Move three points by an affine map, then every pixel by a smooth field (Simard et al. 2003)."""
    height, width, _ = image.shape
    y, x = jnp.meshgrid(jnp.arange(float(height)), jnp.arange(float(width)), indexing='ij')
    centre, reach = np.array([width // 2, height // 2]), min(height, width) // 3
    points = (centre + reach * np.array([[1, 1], [1, -1], [-1, -1]])).astype(np.float32)
    moved = points + settings.largest_move * drawn.corners
    # Where a pixel comes from: the map that takes the moved points back.
    to_right, to_down = moved[0] - moved[1], moved[1] - moved[2]
    determinant = to_right[0] * to_down[1] - to_right[1] * to_down[0]
    across, along = x - moved[1, 0], y - moved[1, 1]
    first = (across * to_down[1] - along * to_down[0]) / determinant
    second = (along * to_right[0] - across * to_right[1]) / determinant
    sources = points[1] + first[..., None] * (points[0] - points[1]) + second[..., None] * (points[1] - points[2])
    image = _bilinear(image, sources[..., 1], sources[..., 0], _mirrored_at_pixel)

    def smooth(field: Float[Array, 'height width']) -> Float[Array, 'height width']:
        return settings.strength * filters.separable(field[..., None], settings.smoothing)[..., 0]

    return _bilinear(image, y + smooth(drawn.down), x + smooth(drawn.right), _mirrored_at_edge)


_Border = Callable[[Int[Array, 'height width'], int], Int[Array, 'height width']]


def _mirrored_at_pixel(index: Int[Array, 'height width'], length: int) -> Int[Array, 'height width']:
    """``c b | a b c``: OpenCV's ``BORDER_REFLECT_101``."""
    last = max(length - 1, 1)
    folded = index % (2 * last)
    return jnp.minimum(jnp.minimum(folded, 2 * last - folded), length - 1)


def _mirrored_at_edge(index: Int[Array, 'height width'], length: int) -> Int[Array, 'height width']:
    """``b a | a b c``: SciPy's reflect."""
    folded = index % (2 * length)
    return jnp.minimum(folded, 2 * length - 1 - folded)


def _bilinear(image: Image, y: Float[Array, 'height width'], x: Float[Array, 'height width'], border: _Border) -> Image:
    """The image at places between its pixels."""
    height, width, _ = image.shape
    top, left = jnp.floor(y).astype(jnp.int32), jnp.floor(x).astype(jnp.int32)
    down, right = (y - top)[..., None], (x - left)[..., None]
    rows = [border(top + step, height) for step in (0, 1)]
    columns = [border(left + step, width) for step in (0, 1)]
    upper = image[rows[0], columns[0]] * (1 - right) + image[rows[0], columns[1]] * right
    lower = image[rows[1], columns[0]] * (1 - right) + image[rows[1], columns[1]] * right
    return upper * (1 - down) + lower * down
