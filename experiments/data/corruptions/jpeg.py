"""JPEG compression on the device: what is lost when an image is saved and read again.

In the integer arithmetic of libjpeg, as Pillow calls it, and so to the bit: YCbCr with chroma at half resolution, the
discrete cosine transform ``islow`` of blocks of 8, the quantisation tables of ITU-T T.81 annex K scaled by quality, and
"fancy" upsampling (libjpeg-turbo: ``jfdctint.c``, ``jidctint.c``, ``jccolor.c``, ``jdsample.c``).
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from experiments.data.corruptions.filters import Image
from experiments.data.corruptions.severities import Constants

Plane = Int[Array, 'height width']

_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
# Colour conversion in units of 2^-16. Rows: Y, Cb, Cr of red, green and blue.
_TO_YCC = np.array([[19595, 38470, 7471], [-11059, -21709, 32768], [32768, -27439, -5329]], np.int32)
_BLUE_OF_CB, _RED_OF_CR, _GREEN_OF_CB, _GREEN_OF_CR = 116130, 91881, -22554, -46802
_HALF = 1 << 15
# The transform in units of 2^-13 of an eighth of its norm; its right half mirrors the left one.
_LEFT = np.array(
    [
        (8192, 8192, 8192, 8192),
        (11363, 9633, 6437, 2260),
        (10703, 4433, -4433, -10703),
        (9633, -2259, -11362, -6436),
        (8192, -8192, -8192, 8192),
        (6437, -11362, 2261, 9633),
        (4433, -10704, 10704, -4433),
        (2260, -6436, 9633, -11363),
    ],
    np.int32,
)
_DCT = np.concatenate([_LEFT, _LEFT[:, ::-1] * (1 - 2 * (np.arange(8) % 2))[:, None]], 1).astype(np.int32)
_BITS = 13
# More bits are kept between the passes over rows and columns.
_KEPT_BITS = 2


def quantisation_table(luminance: bool, quality: int) -> Int[np.ndarray, '8 8']:
    """The table of libjpeg for a quality from 1 to 100."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    standard = np.array(_LUMINANCE if luminance else _CHROMINANCE)
    return np.clip((standard * scale + 50) // 100, 1, 255).astype(np.int32)


def tables(of: Constants) -> Int[np.ndarray, '2 8 8']:
    """The tables of luminance and chrominance."""
    return np.stack([quantisation_table(luminance, of.values) for luminance in (True, False)])


def jpeg_compression(image: Image, noise: None, tables: Int[Array, '2 8 8']) -> Image:
    """Save and read an image with values from 0 to 1; one channel is saved as grey."""
    levels = jnp.round(255 * image).astype(jnp.int32)
    height, width, channels = levels.shape
    if channels == 1:
        return _coded(levels[..., 0], tables[0])[..., None] / 255
    luma, *chroma = jnp.moveaxis((levels[..., None, :] * _TO_YCC).sum(-1), -1, 0)
    luma = _coded((luma + _HALF) >> 16, tables[0])
    # A half is rounded down here.
    halved = [_halved((each + (128 << 16) + _HALF - 1) >> 16) for each in chroma]
    cb, cr = (_upsampled(_coded(each, tables[1]), height, width) - 128 for each in halved)
    red = luma + ((_RED_OF_CR * cr + _HALF) >> 16)
    green = luma + ((_GREEN_OF_CB * cb + _GREEN_OF_CR * cr + _HALF) >> 16)
    blue = luma + ((_BLUE_OF_CB * cb + _HALF) >> 16)
    return jnp.clip(jnp.stack([red, green, blue], -1), 0, 255) / 255


def _pass(matrix: Int[np.ndarray, '8 8'], blocks: Int[Array, 'a b 8 8'], axis: int, bits: int) -> Int[Array, 'a b 8 8']:
    """Transform one axis of all blocks and round off some bits."""
    moved = jnp.moveaxis(blocks, axis, -1)
    summed = (moved[..., None, :] * matrix).sum(-1)
    return jnp.moveaxis((summed + (1 << (bits - 1))) >> bits, -1, axis)


def _coded(plane: Plane, table: Int[Array, '8 8']) -> Plane:
    """Quantise the transform of each block and transform it back."""
    height, width = plane.shape
    padded = jnp.pad(plane, ((0, -height % 8), (0, -width % 8)), 'edge') - 128
    blocks = padded.reshape(padded.shape[0] // 8, 8, padded.shape[1] // 8, 8).swapaxes(1, 2)
    transformed = _pass(_DCT, _pass(_DCT, blocks, -1, _BITS - _KEPT_BITS), -2, _BITS + _KEPT_BITS)
    # It is 8 times too large. A half is rounded away from zero.
    quantised = jnp.sign(transformed) * ((jnp.abs(transformed) + 4 * table) // (8 * table)) * table
    restored = _pass(_DCT.T, _pass(_DCT.T, quantised, -2, _BITS - _KEPT_BITS), -1, _BITS + _KEPT_BITS + 3)
    return jnp.clip(restored.swapaxes(1, 2).reshape(padded.shape) + 128, 0, 255)[:height, :width]


def _halved(plane: Plane) -> Int[Array, 'half_height filled_half_width']:
    """The mean of two by two values, rounded up and down in turn so that no bias remains."""
    height, width = plane.shape
    # Blocks are filled up with the last column before it is halved, but with the last row after that.
    padded = jnp.pad(plane, ((0, height % 2), (0, -width % 16)), 'edge')
    summed = padded[::2, ::2] + padded[1::2, ::2] + padded[::2, 1::2] + padded[1::2, 1::2]
    return (summed + 1 + jnp.arange(summed.shape[1]) % 2) >> 2


def _upsampled(plane: Int[Array, 'half_height filled_half_width'], height: int, width: int) -> Plane:
    """Enlarge twice: three quarters of the nearest value and a quarter of the next one along each axis."""
    padded = jnp.pad(plane[:, : -(-width // 2)], 1, 'edge')
    middle = 3 * padded[1:-1]
    rows = jnp.stack([middle + padded[:-2], middle + padded[2:]], 1).reshape(-1, padded.shape[1])
    middle = 3 * rows[:, 1:-1]
    columns = jnp.stack([(middle + rows[:, :-2] + 8) >> 4, (middle + rows[:, 2:] + 7) >> 4], -1)
    return columns.reshape(len(rows), -1)[:height, :width]
