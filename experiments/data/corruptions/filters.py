"""Shared by the corruptions: random numbers for an image, and linear filters of it.

A separable filter is two small matrices that are made on the host. They hold what happens at the borders too, filters
of several strengths are one program, and products of matrices are what accelerators do best.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import erfinv
from jaxtyping import Array, Float

Shape = tuple[int, int, int]
Image = Float[Array, 'height width channels']
Numbers = Float[Array, ' numbers']
Matrix = Float[np.ndarray, 'new_length length']
# One for the rows of an image and one for its columns.
Matrices = tuple[Float[Array | np.ndarray, 'new_height height'], Float[Array | np.ndarray, 'new_width width']]


def fields(numbers: Numbers, shape: Shape, count: int = 1) -> Float[Array, 'count height width channels']:
    """The first numbers, as images."""
    height, width, channels = shape
    return numbers[: count * height * width * channels].reshape(count, *shape)


def normal(numbers: Float[Array, '*shape']) -> Float[Array, '*shape']:
    """Standard normal numbers of uniform ones from 0 to 1."""
    return np.float32(np.sqrt(2)) * erfinv(jnp.maximum(2 * numbers - 1, np.float32(-1 + 2**-23)))


def separable(image: Image, matrices: Matrices) -> Float[Array, 'new_height new_width channels']:
    """Map the rows of an image by one matrix and its columns by another."""
    return jnp.einsum('ih,hwc,jw->ijc', matrices[0], image, matrices[1], precision=lax.Precision.HIGHEST)


@functools.cache
def gaussian_matrix(length: int, sigma: float, truncate: float = 4.0, border: str = 'edge') -> Matrix:
    """A Gaussian of standard deviation ``sigma``, cut off after ``truncate`` of them, as in ``scipy.ndimage``.

    Args:
        length: pixels along the axis.
        sigma: in pixels; 0 changes nothing.
        border: a mode of ``np.pad``. SciPy calls ``'edge'`` nearest and ``'symmetric'`` reflect.
    """
    radius = int(truncate * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * np.square(offsets / sigma)) if radius else np.ones(1)
    return _convolution_matrix(length, kernel / kernel.sum(), border)


def _convolution_matrix(length: int, kernel: Float[np.ndarray, ' taps'], border: str) -> Matrix:
    sources = np.pad(np.arange(length), len(kernel) // 2, border)  # ty: ignore[no-matching-overload]
    matrix = np.zeros((length, length))
    for tap, weight in enumerate(kernel):
        np.add.at(matrix, (np.arange(length), sources[tap : tap + length]), weight)
    return matrix.astype(np.float32)


def gaussian(height: int, width: int, sigma: float) -> Matrices:
    """The blur of ``skimage.filters.gaussian``, whose border is the nearest pixel."""
    return gaussian_matrix(height, sigma), gaussian_matrix(width, sigma)


@functools.cache
def zoom_matrix(length: int, factor: float) -> Matrix:
    """Enlarge the middle linearly and cut off what is then too much, as ``scipy.ndimage.zoom`` does with order 1."""
    cut = int(np.ceil(length / factor))
    top = (length - cut) // 2
    enlarged = round(cut * factor)
    trimmed = (enlarged - length) // 2
    positions = (np.arange(length) + trimmed) * ((cut - 1) / max(enlarged - 1, 1))
    low = np.minimum(positions.astype(int), max(cut - 2, 0))
    matrix = np.zeros((length, length))
    np.add.at(matrix, (np.arange(length), top + low), 1 - (positions - low))
    np.add.at(matrix, (np.arange(length), top + np.minimum(low + 1, cut - 1)), positions - low)
    return matrix.astype(np.float32)


def clipped_zoom(height: int, width: int, factor: float) -> Matrices:
    """The middle of an image, enlarged to its size."""
    return zoom_matrix(height, factor), zoom_matrix(width, factor)


@functools.cache
def box_matrix(length: int, new_length: int) -> Matrix:
    """The mean over the pixels whose middle lies in each new pixel, as Pillow's ``Image.BOX`` takes it."""
    scale = length / new_length
    support = 0.5 * max(scale, 1.0)
    matrix = np.zeros((new_length, length))
    for row in range(new_length):
        centre = (row + 0.5) * scale
        first, last = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), length)
        offsets = (np.arange(first, last) - centre + 0.5) / max(scale, 1.0)
        weights = ((offsets > -0.5) & (offsets <= 0.5)).astype(float)
        matrix[row, first:last] = weights / weights.sum()
    return matrix.astype(np.float32)


def disk(radius: float, sigma: float, reach: int) -> Float[np.ndarray, 'side side']:
    """A disk with a Gaussian over its edge, as OpenCV's ``GaussianBlur`` of 3 or 5 taps; its sum is 1.

    Args:
        reach: the side of the kernel is ``2 reach + 1``; at least 8, and at least the radius.
    """
    own, taps = (8, 3) if radius <= 8 else (int(radius), 5)
    offsets = np.arange(-own, own + 1)
    inside = (np.square(offsets) + np.square(offsets)[:, None] <= radius**2).astype(np.float64)
    kernel = np.exp(-0.5 * np.square((np.arange(taps) - taps // 2) / sigma))
    matrix = _convolution_matrix(len(offsets), kernel / kernel.sum(), 'reflect')
    return np.pad(matrix @ (inside / inside.sum()) @ matrix.T, reach - own).astype(np.float32)


def correlate(image: Image, kernel: Float[Array | np.ndarray, 'side side']) -> Image:
    """The sum of a pixel's neighbours times a kernel of odd side; the border is mirrored at the outermost pixel."""
    reach = len(kernel) // 2
    padded = jnp.pad(image, ((reach, reach), (reach, reach), (0, 0)), 'reflect')
    planes = jnp.moveaxis(padded, -1, 0)[:, None]
    summed = lax.conv_general_dilated(
        planes, jnp.asarray(kernel)[None, None], (1, 1), 'VALID', precision=lax.Precision.HIGHEST
    )
    return jnp.moveaxis(summed[:, 0], 0, -1)


def line(radius: int, sigma: float, longest: int) -> Float[np.ndarray, ' taps']:
    """The weights of a motion blur: a one-sided Gaussian over ``2 radius + 1`` pixels, with zeros after it.

    Args:
        longest: the largest radius that shares the program.
    """
    taps = np.arange(2 * longest + 1)
    weights = np.where(taps <= 2 * radius, np.exp(-0.5 * np.square(taps / sigma)), 0)
    return (weights / weights.sum()).astype(np.float32)


def motion_blur(image: Image, weights: Float[Array | np.ndarray, ' taps'], angle: Float[Array, '']) -> Image:
    """Blur along a line of whole pixels, as ImageMagick's ``MotionBlurImage`` does.

    Args:
        weights: see ``line``.
        angle: of the line, in degrees.
    """
    taps = len(weights)
    direction = jnp.stack([jnp.sin(jnp.deg2rad(angle)), jnp.cos(jnp.deg2rad(angle))])
    offsets = jnp.ceil(jnp.arange(taps)[:, None] * direction - 0.5).astype(jnp.int32)
    padded = jnp.pad(image, ((taps, taps), (taps, taps), (0, 0)), 'edge')

    def add(total: Array, tap: tuple[Array, Array]) -> tuple[Array, None]:
        weight, (down, right) = tap
        return total + weight * lax.dynamic_slice(padded, (taps + down, taps + right, 0), image.shape), None

    return lax.scan(add, jnp.zeros_like(image), (jnp.asarray(weights), offsets))[0]


def to_8_bits(image: Image, rounded: bool = True) -> Image:
    """Values from 0 to 1 as 8 bits hold them: rounded, or cut off as by ``np.uint8``."""
    # So that rounding in float32 takes no level from an unchanged value.
    return jnp.floor(255 * jnp.clip(image, 0, 1) + (0.5 if rounded else 1e-3)) / 255
