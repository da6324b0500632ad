"""CSPNet: every stage sends half of its channels past its blocks, as timm's ``cspnet.py`` builds it.

Source: Wang et al. 2020, "CSPNet: A New Backbone that can Enhance Learning Capability of CNN"; timm/models/cspnet.py.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from backbones.errors import UserError
from backbones.features import Features
from backbones.layers.activations import activation
from backbones.layers.blocks import ConvNormActivation
from backbones.layers.pooling import global_average_pool, max_pool
from backbones.layers.regularisation import StochasticDepth


def _conv(module, features: int, kernel_size: int, stride: int = 1, **options) -> ConvNormActivation:
    """A convolution with the normalisation and activation of the module that it is part of."""
    options = {'activation': module.activation, **options}
    return ConvNormActivation(
        features, kernel_size, stride, epsilon=module.epsilon, momentum=module.momentum, dtype=module.dtype, **options
    )


class BottleneckBlock(nn.Module):
    """1x1, 3x3 and a linear 1x1 convolution, added to the input and then activated, as in ResNet."""

    hidden: int
    drop_rate: float
    activation: str
    epsilon: float
    momentum: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h w c']:
        y = _conv(self, self.hidden, 1, name='conv1')(x, train=train)
        y = _conv(self, self.hidden, 3, name='conv2')(y, train=train)
        last = _conv(self, x.shape[-1], 1, activation='none', scale_init=nn.initializers.zeros, name='conv3')
        y = StochasticDepth(self.drop_rate)(last(y, train=train), train=train)
        return activation(self.activation)(y + x)


class DarkBlock(nn.Module):
    """1x1 and 3x3 convolutions, both activated, added to the input, as in DarkNet."""

    hidden: int
    drop_rate: float
    activation: str
    epsilon: float
    momentum: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h w c']:
        y = _conv(self, self.hidden, 1, name='conv1')(x, train=train)
        y = _conv(self, x.shape[-1], 3, scale_init=nn.initializers.zeros, name='conv2')(y, train=train)
        return StochasticDepth(self.drop_rate)(y, train=train) + x


Block = type[BottleneckBlock] | type[DarkBlock]


class Stage(nn.Module):
    """A strided convolution, a 1x1 expansion, and the blocks on the second half of its channels.

    Both halves are joined after a 1x1 transition of the second one, and mapped to ``channels``.
    """

    block: Block
    channels: int
    down_channels: int | None
    expansion: float
    bottleneck: float
    drop_rates: tuple[float, ...]
    expand_activation: str
    activation: str
    epsilon: float
    momentum: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h2 w2 c2']:
        if self.down_channels is not None:
            x = _conv(self, self.down_channels, 3, 2, name='downsample')(x, train=train)
        half = round(self.channels * self.expansion) // 2
        x = _conv(self, 2 * half, 1, activation=self.expand_activation, name='expand')(x, train=train)
        skipped, x = jnp.split(x, 2, axis=-1)
        hidden = round(half * self.bottleneck)
        for index, rate in enumerate(self.drop_rates):
            block = self.block(
                hidden, rate, self.activation, self.epsilon, self.momentum, self.dtype, name=f'block{index + 1}'
            )
            x = block(x, train=train)
        x = _conv(self, half, 1, name='block_transition')(x, train=train)
        joined = jnp.concatenate([skipped, x], axis=-1)
        return _conv(self, self.channels, 1, name='transition')(joined, train=train)


class CSPNet(nn.Module):
    """``stage1`` is the stem's convolution; each further stage is a cross-stage partial one.

    Attributes:
        block: ``BottleneckBlock`` or ``DarkBlock``.
        depths: blocks per cross-stage partial stage.
        channels: output channels of those stages.
        expansions: width of each stage's two halves together, as a share of its channels.
        bottlenecks: width of the blocks' first convolution, as a share of one half.
        stem: channels, kernel size and stride of the stem's convolution.
        stem_pool: a 3x3 max-pool of stride 2 after the stem, instead of a strided convolution in the stage after it.
        downsample_grows: whether a stage's strided convolution already has the stage's channels, or still those of the
            stage before.
        expand_activation: name of the activation after the expansion; ``'none'`` for a linear one.
        activation: name of the activation after every other convolution.
        epsilon, momentum: those of every BatchNorm.
        stochastic_depth: share of residual branches dropped while training, rising linearly from 0 at the first block.
        dtype: type of the computation.

    Raises:
        UserError: the options per stage are not equally long.
    """

    block: Block
    depths: tuple[int, ...]
    channels: tuple[int, ...]
    expansions: tuple[float, ...]
    bottlenecks: tuple[float, ...]
    stem: tuple[int, int, int]
    stem_pool: bool
    downsample_grows: bool
    expand_activation: str = 'leaky_relu'
    activation: str = 'leaky_relu'
    epsilon: float = 1e-5
    momentum: float = 0.9
    stochastic_depth: float = 0.0
    dtype: jnp.dtype = jnp.float32

    def stage_channels(self) -> tuple[int, ...]:
        """Channels of each stage's output."""
        return (self.stem[0], *self.channels)

    def stage_strides(self) -> tuple[int, ...]:
        """Input pixels per step of each stage's map."""
        return tuple(self.stem[2] * 2**index for index in range(len(self.depths) + 1))

    def pooled_channels(self) -> int:
        """Channels of ``Features.pooled``."""
        return self.channels[-1]

    @nn.compact
    def __call__(self, images: Float[Array, 'batch height width channels'], train: bool = False) -> Features:
        lengths = [len(each) for each in (self.depths, self.channels, self.expansions, self.bottlenecks)]
        if len(set(lengths)) > 1:
            raise UserError(
                'depths, channels, expansions and bottlenecks must hold one value per stage each, not '
                f'{", ".join(map(str, lengths))} values'
            )
        x = _conv(self, *self.stem, name='stage1')(images, train=train)
        stages = {'stage1': x}
        if self.stem_pool:
            x = max_pool(x, window=3, stride=2, padding=1)
        rates = np.linspace(0, self.stochastic_depth, sum(self.depths)).tolist()
        for index, (depth, channels) in enumerate(zip(self.depths, self.channels, strict=True)):
            name, start = f'stage{index + 2}', sum(self.depths[:index])
            down_channels = channels if self.downsample_grows else x.shape[-1]
            stage = Stage(
                self.block,
                channels,
                None if index == 0 and self.stem_pool else down_channels,
                self.expansions[index],
                self.bottlenecks[index],
                tuple(rates[start : start + depth]),
                self.expand_activation,
                self.activation,
                self.epsilon,
                self.momentum,
                self.dtype,
                name=name,
            )
            x = stages[name] = stage(x, train=train)
        return Features(stages=stages, pooled=global_average_pool(x))
