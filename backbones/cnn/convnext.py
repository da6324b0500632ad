"""ConvNeXt, as torchvision's ``convnext.py`` builds it; ConvNeXt V2; and DINOv3's ConvNeXt, which has tokens.

Sources: Liu et al. 2022, "A ConvNet for the 2020s"; torchvision/models/convnext.py. Woo et al. 2023, "ConvNeXt V2".
Siméoni et al. 2025, "DINOv3"; facebookresearch/dinov3, models/convnext.py.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.errors import UserError, check_images
from backbones.features import Features
from backbones.layers.attention import FeedForward, truncated_normal
from backbones.layers.convolution import Conv
from backbones.layers.normalisation import LayerNorm
from backbones.layers.pooling import global_average_pool
from backbones.layers.regularisation import LayerScale, StochasticDepth, stochastic_depth_rates

_Conv = partial(Conv, use_bias=True, kernel_init=truncated_normal)


class Block(nn.Module):
    """7x7 depthwise convolution, normalisation and feed-forward, scaled per channel and added to the input."""

    activation: str
    epsilon: float
    layer_scale: float | None
    response_norm: bool
    stochastic_depth: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h w c']:
        channels = x.shape[-1]
        y = _Conv(channels, 7, groups=channels, dtype=self.dtype, name='depthwise_conv')(x)
        y = LayerNorm(self.epsilon, self.dtype, name='norm')(y)
        y = FeedForward(4 * channels, self.dtype, self.activation, response_norm=self.response_norm, name='mlp')(y)
        if self.layer_scale is not None:
            y = LayerScale(self.layer_scale, self.dtype, name='layer_scale')(y)
        return x + StochasticDepth(self.stochastic_depth)(y, train=train)


class Stage(nn.Module):
    """A chain of blocks at one resolution; a normalisation and a 2x2 convolution of stride 2 may come before it.

    Attributes:
        channels: channels of every block.
        downsample: whether the resolution is halved first.
        stochastic_depth: rate of each block; their number is the stage's depth.
        activation, epsilon, layer_scale, response_norm, dtype: as for the whole network.
    """

    channels: int
    downsample: bool
    stochastic_depth: tuple[float, ...]
    activation: str
    epsilon: float
    layer_scale: float | None
    response_norm: bool
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h2 w2 channels']:
        if self.downsample:
            x = LayerNorm(self.epsilon, self.dtype, name='downsample_norm')(x)
            x = _Conv(self.channels, 2, 2, padding=0, dtype=self.dtype, name='downsample_conv')(x)
        for index, rate in enumerate(self.stochastic_depth):
            block = Block(
                self.activation,
                self.epsilon,
                self.layer_scale,
                self.response_norm,
                rate,
                self.dtype,
                name=f'block{index + 1}',
            )
            x = block(x, train=train)
        return x


class ConvNeXt(nn.Module):
    """Four stages (strides 4 to 32) after a 4x4 convolution of stride 4; ``pooled`` is the normalised average.

    Last rows and columns that do not fill a patch of 4 (or, later, a pair) are left out, as torch's convolutions do.

    Attributes:
        channels: channels of each stage.
        depths: blocks per stage.
        stochastic_depth: rate of the last block while training; rates grow linearly from 0 at the first.
        layer_scale: initial factor of every residual branch; ``None`` for no factors (V2).
        response_norm: whether the feed-forward layers have a global response normalisation (V2).
        activation: a name of ``layers.activations``.
        epsilon: constant that every normalisation but the last adds to the variance.
        head_epsilon: that of the last normalisation, 1e-12 in transformers' configurations.
        dtype: type of the computation.

    Raises:
        UserError: the image has fewer than 32 rows or columns, or the activation is unknown.
    """

    channels: tuple[int, ...]
    depths: tuple[int, ...]
    stochastic_depth: float
    layer_scale: float | None = 1e-6
    activation: str = 'gelu'
    epsilon: float = 1e-6
    head_epsilon: float = 1e-6
    dtype: jnp.dtype = jnp.float32
    response_norm: bool = False

    def stage_channels(self) -> tuple[int, ...]:
        """Channels of each stage's output."""
        return self.channels

    def stage_strides(self) -> tuple[int, ...]:
        """Input pixels per step of each stage's map."""
        return tuple(4 * 2**index for index in range(len(self.depths)))

    def pooled_channels(self) -> int:
        """Channels of ``Features.pooled``."""
        return self.channels[-1]

    @nn.compact
    def __call__(self, images: Float[Array, 'batch height width channels'], train: bool = False) -> Features:
        check_images(images.shape)
        height, width = images.shape[1:3]
        smallest = self.stage_strides()[-1]
        if min(height, width) < smallest:
            raise UserError(
                f'images of {height}x{width} pixels leave nothing for the last stage of a ConvNeXt; '
                f'the nearest size that suffices is {max(height, smallest)}x{max(width, smallest)}'
            )
        x = _Conv(self.channels[0], 4, 4, padding=0, dtype=self.dtype, name='stem_conv')(images)
        x = LayerNorm(self.epsilon, self.dtype, name='stem_norm')(x)
        stages = {}
        rates = stochastic_depth_rates(self.stochastic_depth, self.depths)
        for index, channels in enumerate(self.channels):
            name = f'stage{index + 1}'
            stage = Stage(
                channels,
                index > 0,
                rates[index],
                self.activation,
                self.epsilon,
                self.layer_scale,
                self.response_norm,
                self.dtype,
                name=name,
            )
            x = stages[name] = stage(x, train=train)
        pooled, tokens = self._read(x)
        return Features(stages=stages, pooled=pooled, tokens=tokens)

    def _read(
        self, x: Float[Array, 'batch height width channels']
    ) -> tuple[Float[Array, 'batch channels'], Float[Array, 'batch tokens channels'] | None]:
        """Pooled features and tokens of the last map."""
        return LayerNorm(self.head_epsilon, self.dtype, name='norm')(global_average_pool(x)), None


class ConvNeXtWithTokens(ConvNeXt):
    """DINOv3's: its tokens are the average in place of a class token, then every position of the last map.

    All have the same last normalisation; ``pooled`` is the first token.
    """

    def prefix_tokens(self) -> int:
        """How many of ``Features.tokens`` come before the positions."""
        return 1

    def _read(
        self, x: Float[Array, 'batch height width channels']
    ) -> tuple[Float[Array, 'batch channels'], Float[Array, 'batch tokens channels'] | None]:
        positions = x.reshape(x.shape[0], -1, x.shape[-1])
        tokens = jnp.concatenate([global_average_pool(x)[:, None], positions], axis=1)
        tokens = LayerNorm(self.head_epsilon, self.dtype, name='norm')(tokens)
        return tokens[:, 0], tokens
