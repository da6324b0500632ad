"""EfficientNet-Lite: EfficientNet without squeeze-and-excitation, with ReLU6, a fixed stem and a fixed head.

Source: Tan and Le 2019, "EfficientNet"; tensorflow/tpu ``efficientnet/lite``. The published weights were trained with
TensorFlow's ``SAME`` padding and a BatchNorm epsilon of 1e-3.
"""

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.features import Features
from backbones.layers.convolution import Conv
from backbones.layers.normalisation import BatchNorm
from backbones.layers.pooling import global_average_pool

_EPSILON = 1e-3

# (expansion, channels, blocks, stride, kernel) of the seven block groups of EfficientNet-B0.
_GROUPS = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)


def round_channels(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of ``divisor`` that is at least 90 % of ``channels``."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def block_plan(width: float, depth: float) -> list[list[tuple[int, int, int, int]]]:
    """Per resolution stage, the ``(expansion, channels, stride, kernel)`` of each block.

    Lite does not scale the number of blocks of the first and the last group.
    """
    stages: list[list[tuple[int, int, int, int]]] = []
    for index, (expansion, channels, blocks, stride, kernel) in enumerate(_GROUPS):
        if 0 < index < len(_GROUPS) - 1:
            blocks = math.ceil(blocks * depth)
        if index == 0 or stride == 2:
            stages.append([])
        for block in range(blocks):
            stages[-1].append((expansion, round_channels(channels * width), stride if block == 0 else 1, kernel))
    return stages


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, linear 1x1 projection; the input is added where the shape allows."""

    expansion: int
    channels: int
    stride: int
    kernel: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h2 w2 c2']:
        hidden = x.shape[-1] * self.expansion
        y = x
        if self.expansion > 1:
            y = Conv(hidden, 1, dtype=self.dtype, name='expand_conv')(y)
            y = nn.relu6(BatchNorm(_EPSILON, dtype=self.dtype, name='expand_norm')(y, train=train))
        y = Conv(
            hidden, self.kernel, self.stride, padding='same', groups=hidden, dtype=self.dtype, name='depthwise_conv'
        )(y)
        y = nn.relu6(BatchNorm(_EPSILON, dtype=self.dtype, name='depthwise_norm')(y, train=train))
        y = Conv(self.channels, 1, dtype=self.dtype, name='project_conv')(y)
        y = BatchNorm(_EPSILON, dtype=self.dtype, name='project_norm')(y, train=train)
        return y + x if self.stride == 1 and x.shape[-1] == self.channels else y


class Stage(nn.Module):
    """The blocks between two halvings of the resolution."""

    blocks: tuple[tuple[int, int, int, int], ...]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h2 w2 c2']:
        for index, (expansion, channels, stride, kernel) in enumerate(self.blocks):
            block = InvertedResidual(expansion, channels, stride, kernel, self.dtype, name=f'block{index + 1}')
            x = block(x, train=train)
        return x


class EfficientNetLite(nn.Module):
    """Five stages (strides 2 to 32); ``pooled`` comes after the 1280-channel head convolution.

    Attributes:
        width: factor on the channels of every block.
        depth: factor on the number of blocks.
        dtype: type of the computation.
    """

    width: float
    depth: float
    dtype: jnp.dtype = jnp.float32

    def stage_channels(self) -> tuple[int, ...]:
        """Channels of each stage's output."""
        return tuple(stage[-1][1] for stage in block_plan(self.width, self.depth))

    def stage_strides(self) -> tuple[int, ...]:
        """Input pixels per step of each stage's map."""
        return (2, 4, 8, 16, 32)

    def pooled_channels(self) -> int:
        """Channels of ``Features.pooled``."""
        return 1280

    @nn.compact
    def __call__(self, images: Float[Array, 'batch height width channels'], train: bool = False) -> Features:
        x = Conv(32, 3, 2, padding='same', dtype=self.dtype, name='stem_conv')(images)
        x = nn.relu6(BatchNorm(_EPSILON, dtype=self.dtype, name='stem_norm')(x, train=train))
        stages = {}
        for index, blocks in enumerate(block_plan(self.width, self.depth)):
            name = f'stage{index + 1}'
            x = stages[name] = Stage(tuple(blocks), self.dtype, name=name)(x, train=train)
        x = Conv(1280, 1, dtype=self.dtype, name='head_conv')(x)
        x = nn.relu6(BatchNorm(_EPSILON, dtype=self.dtype, name='head_norm')(x, train=train))
        return Features(stages=stages, pooled=global_average_pool(x))
