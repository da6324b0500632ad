"""Convolution with explicit padding, lowered per platform.

The kernel layout is always ``[height, width, in / groups, out]``, whatever the lowering, so a checkpoint never
depends on the machine that wrote it. Family files say *what* to convolve; how it is computed is decided here.
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from backbones.errors import check_images, unknown
from backbones.layers.sliding_windows import Padding, gathered, windows_of

# He initialisation over the fan-out, as torchvision's CNNs use.
kaiming_normal = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')
# Torch's kaiming_uniform_ with a=1.
kaiming_uniform = nn.initializers.variance_scaling(1.0, 'fan_in', 'uniform')
# What torch's own convolutions begin with: uniform within 1 / sqrt(inputs).
torch_uniform = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's ``SAME`` for one dimension: the odd pixel goes to the right or the bottom."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _general(x: Array, kernel: Array, stride: int, padding: Padding, groups: int, dilation: int) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        feature_group_count=groups,
    )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _depthwise_shifts(x: Array, kernel: Array, stride: int, padding: Padding, dilation: int) -> Array:
    """A depthwise convolution as one multiply-add per kernel tap, which the CPU compiler fuses into a single loop.

    So are its gradients: those that differentiation makes of the sum pass over the maps once for every tap.
    """
    return _depthwise(x, kernel, stride, padding, dilation)


# Jitted so that it is traced once for all layers of one shape.
@partial(jax.jit, static_argnames=('stride', 'padding', 'dilation'), inline=True)
def _depthwise(x: Array, kernel: Array, stride: int, padding: Padding, dilation: int) -> Array:
    dtype = x.dtype
    # Summed in float32 and rounded once, as the other lowerings do.
    x, kernel = jnp.pad(x, ((0, 0), *padding, (0, 0))).astype(jnp.float32), kernel.astype(jnp.float32)
    total = jnp.zeros((), x.dtype)
    for row, column, window in windows_of(x, kernel.shape, stride, dilation):
        total = total + window * kernel[row, column, 0]
    return total.astype(dtype)


def _depthwise_forward(x: Array, kernel: Array, stride: int, padding: Padding, dilation: int):
    return _depthwise(x, kernel, stride, padding, dilation), (x, kernel)


@partial(jax.jit, static_argnames=('stride', 'padding', 'dilation'), inline=True)
def _depthwise_backward(stride: int, padding: Padding, dilation: int, kept: tuple[Array, Array], gradient: Array):
    x, kernel = kept
    wide = gradient.astype(jnp.float32)
    weights = kernel.astype(jnp.float32)
    of_x = gathered(
        lambda row, column, values: values * weights[row, column, 0],
        (wide,), kernel.shape, stride, padding, dilation, x.shape,
    )  # fmt: skip
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0))).astype(jnp.float32)
    of_kernel = _gradient_of_kernel(padded, wide, kernel.shape, stride, dilation)
    return of_x.astype(x.dtype), of_kernel.astype(kernel.dtype)


# Rows of the output that are summed in one loop: with fewer, what is summed up is written too often.
_ROWS_AT_ONCE = 28


def _gradient_of_kernel(
    padded: Float[Array, 'batch padded_height padded_width channels'],
    gradient: Float[Array, 'batch height width channels'],
    kernel_shape: tuple[int, ...],
    stride: int,
    dilation: int,
) -> Float[Array, 'rows columns 1 channels']:
    """Of every tap the sum of products over all windows.

    Products of one column of taps are added up over rows, pixel by pixel along the width, in a loop without any
    reduction, which the compiler would make a pass of its own for every tap; the width is summed over at the end.
    """
    batch, height, width, channels = gradient.shape
    parts = -(-height // _ROWS_AT_ONCE)  # of an image
    rows = -(-height // parts)
    images = max(n for n in range(1, batch + 1) if batch % n == 0 and (n == 1 or n * height <= _ROWS_AT_ONCE))
    reach, span = (kernel_shape[0] - 1) * dilation + 1, (width - 1) * stride + 1
    below = max(0, (parts * rows - 1) * stride + reach - padded.shape[1])
    padded = jnp.pad(padded, ((0, 0), (0, below), (0, 0), (0, 0)))
    gradient = jnp.pad(gradient, ((0, 0), (0, parts * rows - height), (0, 0), (0, 0)))

    def add(totals: list[Array], step: Array) -> tuple[list[Array], None]:
        image, row = step // parts * images, step % parts * rows
        part = ((rows - 1) * stride + reach, padded.shape[2], channels)
        x = lax.dynamic_slice(padded, (image, row * stride, 0, 0), (images, *part))
        slopes = lax.dynamic_slice(gradient, (image, row, 0, 0), (images, rows, width, channels))
        sums = []
        for column, total in enumerate(totals):
            along = x[:, :, column * dilation : column * dilation + span : stride]
            for i, j in itertools.product(range(images), range(rows)):
                total = total + along[i, j * stride : j * stride + reach : dilation] * slopes[i, j]
            sums.append(total)
        return sums, None

    start = [jnp.zeros((kernel_shape[0], width, channels), jnp.float32)] * kernel_shape[1]
    totals, _ = lax.scan(add, start, jnp.arange(batch // images * parts))
    return jnp.stack([total.sum(1) for total in totals], 1)[:, :, None]


_depthwise_shifts.defvjp(_depthwise_forward, _depthwise_backward)


def _pointwise(x: Array, kernel: Array, stride: int) -> Array:
    """A convolution by single pixels, as a product of two matrices.

    Of a product with more axes the CPU compiler transposes the gradient value by value, which takes longer than it.
    """
    x = x[:, ::stride, ::stride]
    y = jnp.dot(x.reshape(-1, x.shape[-1]), kernel[0, 0])
    return y.reshape(*x.shape[:-1], y.shape[-1])


def convolve(
    x: Float[Array, 'batch height width channels'],
    kernel: Float[Array, 'rows columns channels_per_group features'],
    stride: int,
    padding: Padding,
    groups: int = 1,
    dilation: int = 1,
) -> Float[Array, 'batch new_height new_width features']:
    """Convolve; the lowering depends on the kernel's shape and on the platform the program is compiled for."""
    if kernel.shape[:2] == (1, 1) and groups == 1 and padding == ((0, 0), (0, 0)):
        # On a GPU XLA may abort on a matrix product of a strided slice (seen with jax 0.11.2: "Check failed:
        # subdim_size_accumulator == dim_size" while it fuses them).
        return lax.platform_dependent(
            x,
            kernel,
            cpu=lambda x, kernel: _pointwise(x, kernel, stride),
            default=lambda x, kernel: (
                jnp.dot(x, kernel[0, 0]) if stride == 1 else _general(x, kernel, stride, padding, groups, dilation)
            ),
        )
    if kernel.shape[:2] == (stride, stride) and groups == dilation == 1 and padding == ((0, 0), (0, 0)):
        return patch_embedding(x, kernel)
    if groups == x.shape[-1] == kernel.shape[-1]:
        return lax.platform_dependent(
            x,
            kernel,
            cpu=lambda x, kernel: _depthwise_shifts(x, kernel, stride, padding, dilation),
            default=lambda x, kernel: _general(x, kernel, stride, padding, groups, dilation),
        )
    return _general(x, kernel, stride, padding, groups, dilation)


class Conv(nn.Module):
    """Two-dimensional convolution.

    Attributes:
        features: output channels.
        kernel_size: side of the square kernel in pixels.
        stride: step of the kernel in pixels.
        padding: pixels added on every side; ``None`` means ``dilation * (kernel_size - 1) // 2``, which keeps the size
            of a map at stride 1; ``'same'`` is TensorFlow's rule, which pads asymmetrically at stride 2.
        groups: channel groups; equal to the input channels for a depthwise convolution.
        use_bias: whether a bias is added.
        kernel_init: how the kernel is initialised.
        dtype: type of the computation; parameters stay float32.
        dilation: distance in pixels between neighbouring values of the kernel.
        bias_init: how the bias is initialised.

    Raises:
        UserError: a padding that is a string other than ``'same'``, or an input that is no batch of images or maps.
    """

    features: int
    kernel_size: int
    stride: int = 1
    padding: int | Literal['same'] | None = None
    groups: int = 1
    use_bias: bool = False
    kernel_init: Callable = kaiming_normal
    dtype: jnp.dtype = jnp.float32
    dilation: int = 1
    bias_init: Callable = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Float[Array, 'batch height width channels']) -> Float[Array, 'batch rows columns features']:
        check_images(x.shape)  # in a CNN the first layer
        size = self.kernel_size
        kernel = self.param(
            'kernel', self.kernel_init, (size, size, x.shape[-1] // self.groups, self.features), jnp.float32
        )
        span = self.dilation * (size - 1) + 1  # pixels that the kernel spans
        if isinstance(self.padding, str):
            if self.padding != 'same':
                raise unknown('padding', self.padding, ('same',))
            rows, columns = (same_padding(side, span, self.stride) for side in x.shape[1:3])
            padding = (rows, columns)
        else:
            side = (span - 1) // 2 if self.padding is None else self.padding
            padding = ((side, side), (side, side))
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        y = convolve(x, kernel, self.stride, padding, self.groups, self.dilation)
        if self.use_bias:
            y += self.param('bias', self.bias_init, (self.features,), jnp.float32).astype(self.dtype)
        return y


def patch_embedding(
    images: Float[Array, 'batch height width channels'],
    kernel: Float[Array, 'patch patch channels features'],
) -> Float[Array, 'batch rows columns features']:
    """A convolution whose stride equals its kernel size, as a reshape and one matrix product.

    Last rows and columns that do not fill a patch are left out, as a convolution leaves them out.
    """
    batch, height, width, channels = images.shape
    patch, _, _, features = kernel.shape
    rows, columns = height // patch, width // patch
    grid = images[:, : rows * patch, : columns * patch].reshape(batch, rows, patch, columns, patch, channels)
    grid = grid.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, patch * patch * channels)
    return jnp.dot(grid, kernel.reshape(patch * patch * channels, features))


class ConvTranspose(nn.Module):
    """Transposed convolution whose stride equals its kernel size: every pixel becomes a square of pixels.

    Attributes:
        features: output channels.
        factor: side of the kernel, and the factor by which height and width grow.
        dtype: type of the computation; parameters stay float32, the kernel as ``[height, width, in, out]``.
    """

    features: int
    factor: int = 2
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'batch height width channels']) -> Float[Array, 'batch rows columns features']:
        batch, height, width, channels = x.shape
        # Torch takes the fan-in of such a kernel from its outputs.
        init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform', in_axis=-1, out_axis=-2)
        kernel = self.param('kernel', init, (self.factor, self.factor, channels, self.features), jnp.float32)
        bias = self.param('bias', nn.initializers.zeros, (self.features,), jnp.float32)
        y = jnp.einsum('bhwc,yxcf->bhywxf', x.astype(self.dtype), kernel.astype(self.dtype)) + bias.astype(self.dtype)
        return y.reshape(batch, height * self.factor, width * self.factor, self.features)
