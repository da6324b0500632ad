"""Where images lie in a model's input, and the pixels and boxes that they have there, on the device.

An input shows one image or four of them (a mosaic), which meet at a border of its rows and one of its columns. Along
each axis all of them have one scale. So a pixel's row depends on nothing but its image's row, and columns likewise,
and both passes read few pixels for each one they make, however much of the image is cut off.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# Pixels read along an axis for one pixel, at most. Where an image shrinks more, they are spread over those it covers.
_MOST_TAPS = 16


class Axis(NamedTuple):
    """Placement of images along the rows or the columns of an input, in pixels of the input.

    Attributes:
        scale: pixels of the input per pixel of an image.
        shifts: where the images before and after the border begin; negative: cut off.
        border: first pixel of the images after it; the input's size where there are none.
    """

    scale: Float[Array, '']
    shifts: Float[Array, '2']
    border: Float[Array, '']


class Taps(NamedTuple):
    """What the pixels of an input are made of along an axis.

    Attributes:
        after: whether a pixel is after the border.
        places: pixels of the image that are read.
        weights: their weights; the sum is 1.
        nearest: the pixel of the image under the middle of the input's.
        inside: whether there is one.
    """

    after: Bool[Array, ' size']
    places: Int[Array, 'size taps']
    weights: Float[Array, 'size taps']
    nearest: Int[Array, ' size']
    inside: Bool[Array, ' size']


def taps_needed(smallest_scale: float) -> int:
    """How many pixels are read for one if nothing is scaled by less."""
    return min(2 * math.ceil(max(1.0, 1 / smallest_scale)), _MOST_TAPS)


def taps(axis: Axis, length: int, size: int, number: int) -> Taps:
    """Bilinear interpolation, anti-aliased where images shrink, as ``jax.image.scale_and_translate`` does it.

    Args:
        axis: the placement.
        length: pixels of the images along the axis.
        size: pixels of the input.
        number: how many pixels are read for one; see ``taps_needed``.
    """
    pixels = jnp.arange(size)
    after = pixels >= axis.border
    middle = (pixels + 0.5 - jnp.where(after, axis.shifts[1], axis.shifts[0])) / axis.scale
    reach = jnp.maximum(1.0, 1 / axis.scale)
    step = jnp.maximum(1.0, 2 * reach / number)
    places = jnp.ceil(middle - reach - 0.5)[:, None] + jnp.floor(jnp.arange(number) * step)
    weights = jnp.maximum(0.0, 1 - jnp.abs(places + 0.5 - middle[:, None]) / reach)
    weights = jnp.where((places >= 0) & (places < length), weights, 0)
    weights /= jnp.maximum(weights.sum(1, keepdims=True), 1e-6)
    nearest, places = (jnp.clip(each, 0, length - 1).astype(jnp.int32) for each in (jnp.floor(middle), places))
    return Taps(after, places, weights, nearest, (middle > 0) & (middle < length))


def resample(
    images: Int[Array, 'sources height width channels'], tiles: Int[Array, '2 2'], rows: Taps, columns: Taps
) -> Float[Array, 'new_height new_width channels']:
    """The pixels of an input; those outside of the images are of no account.

    Args:
        images: what is shown.
        tiles: the image before and after the border of the rows (first axis) and of the columns.
        rows, columns: what pixels are made of.
    """
    number, height, width, channels = images.shape
    flat = images.reshape(number * height, width, channels)
    sides = []
    for side in range(1 if number == 1 else 2):
        start = jnp.where(rows.after, tiles[1, side], tiles[0, side]) * height
        taken = (
            rows.weights[:, tap, None, None] * flat[start + rows.places[:, tap]] for tap in range(rows.places.shape[1])
        )
        sides.append(sum(taken))
    both = jnp.concatenate(sides, 1)
    start = columns.after * (width if number > 1 else 0)
    taken = (
        columns.weights[:, tap, None] * both[:, start + columns.places[:, tap]]
        for tap in range(columns.places.shape[1])
    )
    return sum(taken, jnp.zeros(()))


def nearest(
    images: Int[Array, 'sources height width'], tiles: Int[Array, '2 2'], rows: Taps, columns: Taps
) -> Int[Array, 'new_height new_width']:
    """As ``resample``, but each pixel is one of an image."""
    source = tiles[rows.after.astype(jnp.int32)[:, None], columns.after.astype(jnp.int32)]
    return images[source, rows.nearest[:, None], columns.nearest]


def place_boxes(
    boxes: Float[Array, 'objects 4'],
    tile: tuple[int, int],
    rows: Axis,
    columns: Axis,
    size: tuple[int, int],
    smallest_share: float,
) -> tuple[Float[Array, 'objects 4'], Bool[Array, ' objects']]:
    """Boxes of an image in the input, clipped to what is shown of it, and which of them are left.

    Args:
        boxes: left, top, right, bottom in pixels of the image.
        tile: whether the image is before (0) or after (1) the borders of the rows and of the columns.
        rows, columns: the placement.
        size: height and width of the input.
        smallest_share: of its area that must be shown; and at least one pixel along both sides.
    """
    scales = jnp.stack([columns.scale, rows.scale] * 2)
    shifts = jnp.stack([columns.shifts[tile[1]], rows.shifts[tile[0]]] * 2)
    whole = boxes * scales + shifts
    limits = [
        (axis.border if after else 0.0, length if after else axis.border)
        for axis, after, length in ((columns, tile[1], size[1]), (rows, tile[0], size[0]))
    ]
    low, high = (
        jnp.stack([jnp.asarray(limit, jnp.float32) for limit in pair] * 2) for pair in zip(*limits, strict=True)
    )
    clipped = jnp.clip(whole, low, high)
    sides, all_of_it = clipped[:, 2:] - clipped[:, :2], whole[:, 2:] - whole[:, :2]
    left = (sides >= 1).all(1) & (sides.prod(1) >= smallest_share * all_of_it.prod(1))
    return clipped, left
