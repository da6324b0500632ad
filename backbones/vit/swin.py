"""Swin Transformer, version 1, as torchvision's ``swin_transformer.py`` builds it.

Source: Liu et al. 2021, "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows";
torchvision/models/swin_transformer.py.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from backbones.errors import UserError, check_images, check_whole_patches
from backbones.features import Features
from backbones.layers.attention import Dense, FeedForward, WindowAttention
from backbones.layers.convolution import Conv
from backbones.layers.normalisation import LayerNorm
from backbones.layers.pooling import global_average_pool
from backbones.layers.positions import resample_relative_positions
from backbones.layers.regularisation import StochasticDepth, stochastic_depth_rates


class Block(nn.Module):
    """Pre-norm attention inside windows and feed-forward, each added to its input."""

    heads: int
    window: int
    shift: int
    activation: str
    epsilon: float
    stochastic_depth: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h w c']:
        y = LayerNorm(self.epsilon, self.dtype, name='norm1')(x)
        y = WindowAttention(self.heads, self.window, self.shift, self.dtype, name='attention')(y)
        x = x + StochasticDepth(self.stochastic_depth)(y, train=train)
        y = LayerNorm(self.epsilon, self.dtype, name='norm2')(x)
        y = FeedForward(4 * x.shape[-1], self.dtype, self.activation, name='mlp')(y)
        return x + StochasticDepth(self.stochastic_depth)(y, train=train)


def merge_patches(x: Float[Array, 'b h w c']) -> Float[Array, 'b h2 w2 4*c']:
    """Each 2x2 neighbourhood as one vector, column by column; an odd side gets a row or column of zeros."""
    x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
    return jnp.concatenate([x[:, row::2, column::2] for column in range(2) for row in range(2)], axis=-1)


class Stage(nn.Module):
    """A chain of blocks at one resolution, every second one shifted; neighbouring patches may be merged first.

    Attributes:
        channels: channels of every block.
        heads: attention heads of every block.
        downsample: whether the resolution is halved first.
        stochastic_depth: rate of each block; their number is the stage's depth.
        window, activation, epsilon, dtype: as for the whole network.
    """

    channels: int
    heads: int
    downsample: bool
    stochastic_depth: tuple[float, ...]
    window: int
    activation: str
    epsilon: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h2 w2 channels']:
        if self.downsample:
            x = LayerNorm(self.epsilon, self.dtype, name='downsample_norm')(merge_patches(x))
            x = Dense(self.channels, dtype=self.dtype, use_bias=False, name='downsample_reduction')(x)
        for index, rate in enumerate(self.stochastic_depth):
            shift = self.window // 2 if index % 2 else 0
            block = Block(
                self.heads,
                self.window,
                shift,
                self.activation,
                self.epsilon,
                rate,
                self.dtype,
                name=f'block{index + 1}',
            )
            x = block(x, train=train)
        return x


class SwinTransformer(nn.Module):
    """Four stages (strides 4 to 32) of attention inside windows; ``pooled`` is the mean of the normalised tokens.

    Maps are padded to whole windows, so any image that divides into patches is accepted, and no parameter depends on
    its size.

    Attributes:
        channels: channels of the first stage; each further one has twice as many.
        depths: blocks per stage.
        heads: attention heads per stage.
        stochastic_depth: rate of the last block while training; rates grow linearly from 0 at the first.
        patch: side of a patch in pixels.
        window: side of a window in patches; where a file has another, its relative positions are resampled as in timm.
        pad: whether an image that is not a multiple of the patch is padded with zeros on the right and at the bottom.
        activation: a name of ``layers.activations``.
        epsilon: constant that every normalisation adds to the variance.
        dtype: type of the computation.

    Raises:
        UserError: the image is not a multiple of the patch and ``pad`` is not set, the window is less than 1, or the
            activation is unknown.
    """

    channels: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    stochastic_depth: float
    patch: int = 4
    window: int = 7
    pad: bool = False
    activation: str = 'gelu'
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    def stage_channels(self) -> tuple[int, ...]:
        """Channels of each stage's output."""
        return tuple(self.channels * 2**index for index in range(len(self.depths)))

    def stage_strides(self) -> tuple[int, ...]:
        """Input pixels per step of each stage's map."""
        return tuple(self.patch * 2**index for index in range(len(self.depths)))

    def pooled_channels(self) -> int:
        """Channels of ``Features.pooled``."""
        return self.stage_channels()[-1]

    def prefix_tokens(self) -> int:
        """How many of ``Features.tokens`` come before the patches."""
        return 0

    def resize_parameter(
        self, path: str, array: np.ndarray, shape: tuple[int, ...], image_size: tuple[int, int]
    ) -> np.ndarray | None:
        """The relative positions of another window, resampled; ``None`` for anything else."""
        if not path.endswith('/relative_position_bias_table') or array.shape[1] != shape[1]:
            return None
        try:
            return resample_relative_positions(array, self.window)
        except ValueError:
            return None

    def _whole_patches(self, images: Array) -> Array:
        """The images as they are, or padded, so that they divide into patches."""
        check_images(images.shape)
        height, width = images.shape[1:3]
        missing = -height % self.patch, -width % self.patch
        if not self.pad:
            check_whole_patches(images.shape, self.patch)
        return jnp.pad(images, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)))

    @nn.compact
    def __call__(self, images: Float[Array, 'batch height width channels'], train: bool = False) -> Features:
        if self.window < 1:
            raise UserError(f'the window of a Swin transformer must be at least 1, not {self.window}')
        x = self._whole_patches(images)
        x = Conv(
            self.channels, self.patch, self.patch, padding=0, use_bias=True, dtype=self.dtype, name='patch_embedding'
        )(x)
        x = LayerNorm(self.epsilon, self.dtype, name='patch_norm')(x)
        stages = {}
        rates = stochastic_depth_rates(self.stochastic_depth, self.depths)
        for index, channels in enumerate(self.stage_channels()):
            name = f'stage{index + 1}'
            stage = Stage(
                channels,
                self.heads[index],
                index > 0,
                rates[index],
                self.window,
                self.activation,
                self.epsilon,
                self.dtype,
                name=name,
            )
            x = stages[name] = stage(x, train=train)
        x = LayerNorm(self.epsilon, self.dtype, name='norm')(x)
        tokens = x.reshape(x.shape[0], -1, x.shape[-1])
        return Features(stages=stages, pooled=global_average_pool(x), tokens=tokens)
