"""MobileNetV4 as timm's ``mobilenetv3.py`` builds it.

Source: Qin et al. 2024, "MobileNetV4: Universal Models for the Mobile Ecosystem"; timm/models/mobilenetv3.py and
``_efficientnet_blocks.py``.
"""

from functools import partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.errors import check_output_stride
from backbones.features import Features
from backbones.layers.activations import activation
from backbones.layers.attention import Dense
from backbones.layers.blocks import ConvNormActivation
from backbones.layers.inverted_residual import Stage, into_stages, strides_after
from backbones.layers.multi_query_attention import MultiQueryAttention
from backbones.layers.normalisation import BatchNorm
from backbones.layers.pooling import global_average_pool
from backbones.layers.regularisation import LayerScale, StochasticDepth

_HEAD_CHANNELS = 1280


class BlockConfig(NamedTuple):
    """One block, as the tables below state it.

    Attributes:
        kind: ``'convolution'``: a convolution alone; ``'fused'``: a convolution that expands, and a 1x1 projection;
            ``'bottleneck'``: the universal inverted bottleneck; ``'attention'``: multi-query attention.
        channels: of its output.
        kernel: side of the kernel of the convolution, of a bottleneck's depthwise convolution after the expansion; 0
            leaves that out.
        stride: step of that kernel, or of ``first_kernel`` where that is the only one.
        expansion: factor on the channels of the input, for those inside.
        first_kernel: side of the kernel of a bottleneck's depthwise convolution before the expansion; 0 leaves it out.
        reduction: by how much the map of the keys and values is coarser than that of the queries.
        drop_rate: share of the examples that skip the block while training.
        dilation: distance in pixels between neighbouring values of every kernel.
    """

    kind: Literal['convolution', 'fused', 'bottleneck', 'attention']
    channels: int
    kernel: int = 0
    stride: int = 1
    expansion: int = 1
    first_kernel: int = 0
    reduction: int = 1
    drop_rate: float = 0.0
    dilation: int = 1


def _convolution(kernel: int, channels: int, stride: int = 1) -> BlockConfig:
    return BlockConfig('convolution', channels, kernel, stride)


def _fused(kernel: int, expansion: int, channels: int, stride: int) -> BlockConfig:
    return BlockConfig('fused', channels, kernel, stride, expansion)


def _bottleneck(first_kernel: int, kernel: int, expansion: int, channels: int, stride: int = 1) -> BlockConfig:
    return BlockConfig('bottleneck', channels, kernel, stride, expansion, first_kernel)


def _attention(channels: int, reduction: int = 1) -> BlockConfig:
    return BlockConfig('attention', channels, reduction=reduction)


# The paper's tables 11 to 13; the first row is the stem.
CONV_SMALL = (
    _convolution(3, 32, stride=2),
    _convolution(3, 32, stride=2),
    _convolution(1, 32),
    _convolution(3, 96, stride=2),
    _convolution(1, 64),
    _bottleneck(5, 5, 3, 96, stride=2),
    *(_bottleneck(0, 3, 2, 96),) * 4,
    _bottleneck(3, 0, 4, 96),
    _bottleneck(3, 3, 6, 128, stride=2),
    _bottleneck(5, 5, 4, 128),
    _bottleneck(0, 5, 4, 128),
    _bottleneck(0, 5, 3, 128),
    *(_bottleneck(0, 3, 4, 128),) * 2,
    _convolution(1, 960),
)
_MEDIUM_START = (
    _convolution(3, 32, stride=2),
    _fused(3, 4, 48, stride=2),
    _bottleneck(3, 5, 4, 80, stride=2),
    _bottleneck(3, 3, 2, 80),
    _bottleneck(3, 5, 6, 160, stride=2),
)
CONV_MEDIUM = (
    *_MEDIUM_START,
    *(_bottleneck(3, 3, 4, 160),) * 2,
    _bottleneck(3, 5, 4, 160),
    _bottleneck(3, 3, 4, 160),
    _bottleneck(3, 0, 4, 160),
    _bottleneck(0, 0, 2, 160),
    _bottleneck(3, 0, 4, 160),
    _bottleneck(5, 5, 6, 256, stride=2),
    _bottleneck(5, 5, 4, 256),
    *(_bottleneck(3, 5, 4, 256),) * 2,
    _bottleneck(0, 0, 4, 256),
    _bottleneck(3, 0, 4, 256),
    _bottleneck(3, 5, 2, 256),
    _bottleneck(5, 5, 4, 256),
    *(_bottleneck(0, 0, 4, 256),) * 2,
    _bottleneck(5, 0, 2, 256),
    _convolution(1, 960),
)
HYBRID_MEDIUM = (
    *_MEDIUM_START,
    _bottleneck(0, 0, 2, 160),
    _bottleneck(3, 3, 4, 160),
    _bottleneck(3, 5, 4, 160),
    *(_attention(160, reduction=2), _bottleneck(3, 3, 4, 160)),
    *(_attention(160, reduction=2), _bottleneck(3, 0, 4, 160)),
    *(_attention(160, reduction=2), _bottleneck(3, 3, 4, 160)),
    *(_attention(160, reduction=2), _bottleneck(3, 0, 4, 160)),
    _bottleneck(5, 5, 6, 256, stride=2),
    _bottleneck(5, 5, 4, 256),
    *(_bottleneck(3, 5, 4, 256),) * 2,
    _bottleneck(0, 0, 2, 256),
    _bottleneck(3, 5, 2, 256),
    _bottleneck(0, 0, 2, 256),
    _bottleneck(0, 0, 4, 256),
    *(_attention(256), _bottleneck(3, 0, 4, 256)),
    *(_attention(256), _bottleneck(5, 5, 4, 256)),
    *(_attention(256), _bottleneck(5, 0, 4, 256)),
    *(_attention(256), _bottleneck(5, 0, 4, 256)),
    _convolution(1, 960),
)


class Block(nn.Module):
    """A block of any kind; the input is added where the shape allows, but not around a convolution alone.

    Attributes:
        block: its kind, channels, kernels and stride.
        activation: name of the activation inside.
        heads: of an attention block.
        head_channels: channels of each of those heads.
        layer_scale: initial value of a factor per channel on the residual branch of bottlenecks and attention; ``None``
            for no factors.
        epsilon, momentum: as ``BatchNorm`` takes them.
        dtype: type of the computation.
    """

    block: BlockConfig
    activation: str = 'relu'
    heads: int = 4
    head_channels: int = 64
    layer_scale: float | None = None
    epsilon: float = 1e-5
    momentum: float = 0.9
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h2 w2 c2']:
        block, inputs = self.block, x.shape[-1]
        constants: dict[str, Any] = {'epsilon': self.epsilon, 'momentum': self.momentum, 'dtype': self.dtype}
        conv = partial(ConvNormActivation, activation=self.activation, dilation=block.dilation, **constants)
        if block.kind == 'convolution':
            return conv(block.channels, block.kernel, block.stride, name='conv')(x, train=train)
        y, expanded = x, inputs * block.expansion
        if block.kind == 'attention':
            y = BatchNorm(**constants, name='norm')(y, train=train)
            attention = partial(MultiQueryAttention, self.heads, self.head_channels, block.reduction, block.dilation)
            y = attention(**constants, name='attention')(y, train=train)
        elif block.kind == 'fused':
            y = conv(expanded, block.kernel, block.stride, name='expand')(y, train=train)
            y = conv(block.channels, 1, activation='none', name='project')(y, train=train)
        else:
            if block.first_kernel:
                stride = 1 if block.kernel else block.stride
                first = partial(conv, inputs, block.first_kernel, stride, groups=inputs, activation='none')
                y = first(name='first_depthwise')(y, train=train)
            y = conv(expanded, 1, name='expand')(y, train=train)
            if block.kernel:
                depthwise = partial(conv, expanded, block.kernel, block.stride, groups=expanded)
                y = depthwise(name='depthwise')(y, train=train)
            y = conv(block.channels, 1, activation='none', name='project')(y, train=train)
        if self.layer_scale is not None and block.kind != 'fused':
            y = LayerScale(self.layer_scale, self.dtype, name='layer_scale')(y)
        if block.stride > 1 or inputs != block.channels:
            return y
        return x + StochasticDepth(block.drop_rate, name='stochastic_depth')(y, train=train)


class MobileNetV4(nn.Module):
    """Five stages (strides 2 to 32), of which ``stage1`` is the stem; ``pooled`` comes after a hidden layer.

    Attributes:
        rows: ``CONV_SMALL``, ``CONV_MEDIUM`` or ``HYBRID_MEDIUM``.
        layer_scale: initial value of the factors on residual branches, which the hybrids have; ``None`` for no factors.
        heads: of every attention block.
        head_channels: channels of each of those heads.
        activation: name of the activation everywhere.
        epsilon: constant that every BatchNorm adds to the variance.
        momentum: share of the old statistics that every BatchNorm keeps.
        stochastic_depth: what the rate at which blocks are skipped while training rises to, linearly from 0: that of
            block ``k`` of the ``n`` after the stem, counted from 0, is ``k / n`` of it, so that no block reaches it.
        output_stride: that of the last stage; 8 and 16 dilate what comes after the strides that are left out, as timm
            does; ``None`` is the usual 32.
        dtype: type of the computation.

    Raises:
        UserError: another output stride, or an unknown activation.
    """

    rows: tuple[BlockConfig, ...]
    layer_scale: float | None = None
    heads: int = 4
    head_channels: int = 64
    activation: str = 'relu'
    epsilon: float = 1e-5
    momentum: float = 0.9
    stochastic_depth: float = 0.0
    output_stride: int | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.nowrap
    def blocks(self) -> list[BlockConfig]:
        """All blocks; a stride that is left out dilates those after its own."""
        blocks, reached, dilation = [], 1, 1
        for number, block in enumerate(self.rows):
            rate = self.stochastic_depth * max(number - 1, 0) / (len(self.rows) - 1)
            left_out = reached * block.stride > (self.output_stride or 32)
            blocks.append(block._replace(drop_rate=rate, dilation=dilation, stride=1 if left_out else block.stride))
            reached, dilation = reached * blocks[-1].stride, dilation * (block.stride if left_out else 1)
        return blocks

    @nn.nowrap
    def stages(self) -> list[list[BlockConfig]]:
        """The blocks by resolution, or what would be one without dilation."""
        remaining = iter(self.blocks())
        return [[next(remaining) for _ in stage] for stage in into_stages(self.rows)]

    def stage_channels(self) -> tuple[int, ...]:
        """Channels of each stage's output."""
        return tuple(blocks[-1].channels for blocks in self.stages())

    def stage_strides(self) -> tuple[int, ...]:
        """Input pixels per step of each stage's map."""
        return strides_after(1, self.stages())

    def output_strides(self) -> tuple[int, ...]:
        """The values that ``output_stride`` can have."""
        return 8, 16, 32

    def pooled_channels(self) -> int:
        """Channels of ``Features.pooled``."""
        return _HEAD_CHANNELS

    @nn.compact
    def __call__(self, images: Float[Array, 'batch height width channels'], train: bool = False) -> Features:
        check_output_stride(self.output_stride, self.output_strides())
        constants: dict[str, Any] = {'epsilon': self.epsilon, 'momentum': self.momentum, 'dtype': self.dtype}
        options = {'heads': self.heads, 'head_channels': self.head_channels, 'layer_scale': self.layer_scale}
        layer = partial(Block, activation=self.activation, **options, **constants)
        x, stages = images, {}
        for index, blocks in enumerate(self.stages()):
            name = f'stage{index + 1}'
            x = stages[name] = Stage(tuple(blocks), layer, name=name)(x, train=train)
        initialiser = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')
        hidden = Dense(_HEAD_CHANNELS, initialiser, self.dtype, use_bias=False, name='head_dense')
        pooled = BatchNorm(**constants, name='head_norm')(hidden(global_average_pool(x)), train=train)
        return Features(stages=stages, pooled=activation(self.activation)(pooled))
