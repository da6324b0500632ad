"""What convolutions and pooling share where each tap of their window is computed for all pixels at once."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

# Pixels before and after, of the rows and of the columns.
Padding = tuple[tuple[int, int], tuple[int, int]]


def windows_of(
    padded: Float[Array, '*batch rows columns channels'], kernel_shape: tuple[int, ...], stride: int, dilation: int
) -> Iterator[tuple[int, int, Float[Array, '*batch height width channels']]]:
    """Row and column of each tap, and what it is multiplied with, for every pixel of the result."""
    rows, columns = kernel_shape[:2]
    height = (padded.shape[-3] - (rows - 1) * dilation - 1) // stride + 1
    width = (padded.shape[-2] - (columns - 1) * dilation - 1) // stride + 1
    for row in range(rows):
        for column in range(columns):
            top, left = row * dilation, column * dilation
            bottom, right = top + (height - 1) * stride + 1, left + (width - 1) * stride + 1
            yield row, column, padded[..., top:bottom:stride, left:right:stride, :]


def gathered(
    weighed: Callable[..., Array],
    maps: Sequence[Float[Array, 'batch rows columns channels']],
    kernel_shape: tuple[int, ...],
    stride: int,
    padding: Padding,
    dilation: int,
    shape: tuple[int, ...],
) -> Float[Array, 'batch height width channels']:
    """A gradient with respect to the input of a sliding window: each pixel gathers from the taps that it had met.

    Which ones these are depends on its row and column modulo the stride, so pixels of one remainder form a map of their
    own; a stride of one has only one such map.

    Args:
        weighed: of row and column of a tap and the values of all maps at its windows, what a pixel gets from them.
        maps: of the size of the output, padded with zeros where a pixel has no window.
        kernel_shape: rows and columns of the window first.
        stride, padding, dilation: of the window, in pixels.
        shape: of the input.
    """
    batch, height, width, channels = shape
    (top, bottom), (left, right) = padding
    # Of the padded input, in steps of the stride.
    rows, columns = -(-(height + top + bottom) // stride), -(-(width + left + right) // stride)
    reach = [(size - 1) * dilation // stride for size in kernel_shape[:2]]
    after = [max(0, size - map_size) for size, map_size in zip((rows, columns), maps[0].shape[1:3], strict=True)]
    padded = [jnp.pad(each, ((0, 0), (reach[0], after[0]), (reach[1], after[1]), (0, 0))) for each in maps]

    def map_of(row: int, column: int) -> Array:
        total = jnp.zeros((batch, rows, columns, channels), maps[0].dtype)
        for i, j in itertools.product(*map(range, kernel_shape[:2])):
            down, along = i * dilation - row, j * dilation - column
            if down % stride == along % stride == 0:
                first, begin = reach[0] - down // stride, reach[1] - along // stride
                values = (each[:, first : first + rows, begin : begin + columns] for each in padded)
                total = total + weighed(i, j, *values)
        return total

    found = jnp.stack([jnp.stack([map_of(row, column) for column in range(stride)], 3) for row in range(stride)], 2)
    whole = found.reshape(batch, rows * stride, columns * stride, channels)
    return whole[:, top : top + height, left : left + width]
