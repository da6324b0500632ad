"""Hiera as timm's ``hiera.py`` builds it.

Source: Ryali et al. 2023, "Hiera: A Hierarchical Vision Transformer without the Bells-and-Whistles"; timm/models/
hiera.py; facebookresearch/hiera.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from backbones.errors import UserError, check_whole_patches
from backbones.features import Features
from backbones.layers.attention import Dense, FeedForward, truncated_normal
from backbones.layers.convolution import Conv
from backbones.layers.mask_unit_attention import MaskUnitAttention
from backbones.layers.normalisation import LayerNorm
from backbones.layers.pooling import global_average_pool, max_pool
from backbones.layers.positions import resample_positions, table_for
from backbones.layers.regularisation import StochasticDepth, stochastic_depth_rates


class Block(nn.Module):
    """Pre-norm attention and feed-forward, each added to its input; the first block of a stage halves the map.

    Attributes:
        features: output channels; where they differ from the input's, what the attention is added to is projected.
        heads: attention heads.
        unit: side of the windows in positions, before the map is halved; ``None`` for attention among all positions.
        pool: whether the map is halved.
        stochastic_depth: rate at which either branch is dropped while training.
        activation, epsilon, dtype: as for the whole network.
    """

    features: int
    heads: int
    unit: int | None
    pool: bool
    stochastic_depth: float
    activation: str = 'gelu'
    epsilon: float = 1e-6
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h2 w2 features']:
        y = LayerNorm(self.epsilon, self.dtype, name='norm1')(x)
        if self.features != x.shape[-1]:
            x = Dense(self.features, dtype=self.dtype, name='shortcut')(y)
        if self.pool:
            x = max_pool(x, 2, 2)
        attention = MaskUnitAttention(self.features, self.heads, self.unit, self.pool, self.dtype, name='attention')
        x = x + StochasticDepth(self.stochastic_depth)(attention(y), train=train)
        y = LayerNorm(self.epsilon, self.dtype, name='norm2')(x)
        y = FeedForward(4 * self.features, self.dtype, self.activation, name='mlp')(y)
        return x + StochasticDepth(self.stochastic_depth)(y, train=train)


class Stage(nn.Module):
    """A chain of blocks, given by what distinguishes them: ``(unit, pool, stochastic_depth)``."""

    features: int
    heads: int
    blocks: tuple[tuple[int | None, bool, float], ...]
    activation: str
    epsilon: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h2 w2 features']:
        for number, options in enumerate(self.blocks, start=1):
            constants = self.activation, self.epsilon, self.dtype
            x = Block(self.features, self.heads, *options, *constants, name=f'block{number}')(x, train=train)
        return x


class Hiera(nn.Module):
    """Four stages (strides 4 to 32); ``pooled`` is the normalised mean of the last map, whose positions are ``tokens``.

    Images divide into mask units, of ``patch * unit`` pixels. The table of positions is resampled in the forward pass
    where images have another size than it was made for.

    Attributes:
        channels: channels of the first stage; each further one has twice as many.
        depths: blocks per stage.
        heads: attention heads of the first stage; each further one has twice as many.
        windows: whether the blocks of a stage attend inside mask units. The first block of a stage does what those of
            the stage before do.
        patch: stride of the overlapping patches in pixels.
        unit: side of a mask unit, in patches; it is halved with the map.
        stochastic_depth: rate of the last block while training; rates grow linearly from 0 at the first.
        activation: a name of ``layers.activations``.
        epsilon: constant that every normalisation adds to the variance.
        position_method: how positions are resampled, a name of ``layers.positions.METHODS``.
        dtype: type of the computation.

    Raises:
        UserError: an image that is no multiple of a mask unit or to which positions cannot be resampled, a mask unit
            that cannot be halved before every stage, stages without a value in ``windows``, channels that do not divide
            into the heads, an unknown activation or way to resample.
    """

    channels: int
    depths: tuple[int, ...]
    heads: int = 1
    windows: tuple[bool, ...] = (True, True, False, False)
    patch: int = 4
    unit: int = 8
    stochastic_depth: float = 0.0
    activation: str = 'gelu'
    epsilon: float = 1e-6
    position_method: str = 'timm'
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
        """The position table for images of another height and width, resampled; ``None`` for anything else."""
        if path != 'position_embedding' or array.shape[2] != shape[2]:
            return None
        rows, columns = (side // self.patch for side in image_size)
        return table_for(array, (rows, columns), 0, self.position_method)

    @nn.nowrap
    def stages(self) -> list[tuple[tuple[int | None, bool, float], ...]]:
        """The blocks of each stage."""
        if len(self.windows) < len(self.depths):
            raise UserError(
                f'windows of a Hiera must have a value for each of its {len(self.depths)} stages, as depths has, not '
                f'{len(self.windows)}: {self.windows}'
            )
        result = []
        for stage, rates in enumerate(stochastic_depth_rates(self.stochastic_depth, self.depths)):
            blocks = []
            for number, rate in enumerate(rates):
                pool = stage > 0 and number == 0
                before = stage - pool
                blocks.append((self.unit // 2**before if self.windows[before] else None, pool, rate))
            result.append(tuple(blocks))
        return result

    @nn.compact
    def __call__(self, images: Float[Array, 'batch height width channels'], train: bool = False) -> Features:
        halvings = 2 ** (len(self.depths) - 1)
        if self.unit < 1 or self.unit % halvings:
            raise UserError(f'the mask unit of a Hiera must be a multiple of {halvings}, not {self.unit}')
        check_whole_patches(images.shape, self.patch * self.unit, can_pad=False, noun='mask units')
        embed = Conv(self.channels, 7, self.patch, use_bias=True, dtype=self.dtype, name='patch_embedding')
        x = embed(images)
        x = x + self._positions((x.shape[1], x.shape[2])).reshape(1, *x.shape[1:])
        stages = {}
        for index, (features, blocks) in enumerate(zip(self.stage_channels(), self.stages(), strict=True)):
            name, heads = f'stage{index + 1}', self.heads * 2**index
            stage = Stage(features, heads, blocks, self.activation, self.epsilon, self.dtype, name=name)
            x = stages[name] = stage(x, train=train)
        pooled = LayerNorm(self.epsilon, self.dtype, name='norm')(global_average_pool(x))
        return Features(stages=stages, pooled=pooled, tokens=x.reshape(x.shape[0], -1, x.shape[-1]))

    def _positions(self, grid: tuple[int, int]) -> Array:
        """The table of positions for a grid, whatever grid the stored one was made for."""
        if self.has_variable('params', 'position_embedding'):
            # Read as it is stored: ``param`` would insist on the shape that these images imply.
            table = self.get_variable('params', 'position_embedding')
        else:
            shape = (1, grid[0] * grid[1], self.channels)
            table = self.param('position_embedding', truncated_normal, shape, jnp.float32)
        return resample_positions(table, grid, 0, self.position_method).astype(self.dtype)
