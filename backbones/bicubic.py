"""Pillow's bicubic resize on the device, to the bit.

Source: Pillow 12.3, ``src/libImaging/Resample.c`` for 8-bit images, and ``Image.resize``. The weights are whole
multiples of 2⁻²² and the sums are whole numbers, so that any machine gets the same pixels.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

_PRECISION_BITS = 22

# Where the resized part of a side begins and ends, in pixels.
Span = tuple[float, float]


def resize(
    images: UInt8[Array, 'batch height width channels'],
    shape: tuple[int, int],
    spans: tuple[Span, Span] | None = None,
) -> UInt8[Array, 'batch rows columns channels']:
    """Resize as ``PIL.Image.resize(…, BICUBIC, box=…)`` does.

    Args:
        images: pixels.
        shape: rows and columns of the result.
        spans: the part of the height and of the width that is resized; all of it by default.
    """
    _, height, width, _ = images.shape
    # Pillow resizes along the rows first, except for very tall images that become shorter; it hands 8-bit pixels on.
    for axis in (1, 2) if height > 100 * width and shape[0] < height else (2, 1):
        span = (0.0, float(images.shape[axis])) if spans is None else spans[axis - 1]
        count = shape[axis - 1]
        if images.shape[axis] == count and span == (0, count):
            continue
        weights = _weights(images.shape[axis], count, span)
        sums = jnp.tensordot(images.astype(jnp.int32), jnp.asarray(weights), (axis, 0))
        rounded = (jnp.moveaxis(sums, -1, axis) + (1 << (_PRECISION_BITS - 1))) >> _PRECISION_BITS
        images = jnp.clip(rounded, 0, 255).astype(jnp.uint8)
    return images


def centre(shape: tuple[int, int], size: tuple[int, int]) -> tuple[Span, Span]:
    """The largest part of an image that has the proportions of ``size``, as ``PIL.ImageOps.fit`` cuts it out.

    Args:
        shape: height and width of the image.
        size: height and width of the result.
    """
    height, width = shape
    ratio = size[1] / size[0]
    rows, columns = float(height), float(width)
    if width / height > ratio:
        columns = ratio * height
    elif width / height < ratio:
        rows = width / ratio
    top, left = (height - rows) * 0.5, (width - columns) * 0.5
    return (top, top + rows), (left, left + columns)


def _weights(pixels: int, count: int, span: Span) -> Int[np.ndarray, 'pixels count']:
    """The weight of every pixel of a line in every pixel of the resized line, in units of 2⁻²²."""
    first, last = map(np.float32, span)  # single precision, as Pillow passes the box on
    scale = float(last - first) / count
    centres = float(first) + (np.arange(count) + 0.5) * scale
    distances = (np.arange(pixels)[:, None] + 0.5 - centres) / max(scale, 1.0)
    weights = _cubic(np.abs(distances))
    # The filter may look outside of the box, but not outside of the image.
    weights /= weights.sum(0)
    return np.trunc(weights * (1 << _PRECISION_BITS) + np.copysign(0.5, weights)).astype(np.int32)


def _cubic(distance: Float[np.ndarray, 'pixels count']) -> Float[np.ndarray, 'pixels count']:
    """Keys' kernel with a = -0.5."""
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = (((distance - 5) * distance + 8) * distance - 4) * -0.5
    return np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
