"""The simple feature pyramid of plain backbones: every level is made of the last map alone.

Source: Li et al. 2022, "Exploring Plain Vision Transformer Backbones for Object Detection", section 3;
detectron2/modeling/backbone/vit.py, ``SimpleFeaturePyramid``.
"""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.features import Features
from backbones.layers.activations import activation
from backbones.layers.convolution import Conv, ConvTranspose, torch_uniform
from backbones.layers.normalisation import LayerNorm
from backbones.layers.pooling import max_pool
from backbones.necks.extra import Extra, coarser
from backbones.necks.levels import Level


class PyramidLevel(nn.Module):
    """One level: the map doubled or halved, a 1x1 and a 3x3 convolution, each with a LayerNorm over the channels.

    A doubling is a transposed 2x2 convolution to half the channels; between two of them are a LayerNorm and a GELU. A
    halving is a max-pool.

    Attributes:
        halvings: how often the map is halved; negative: doubled.
        channels: channels of the output.
        dtype: type of the computation.
    """

    halvings: int
    channels: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'batch height width c']) -> Float[Array, 'batch rows columns channels']:
        """The map of the level."""
        for _ in range(self.halvings):
            x = max_pool(x, 2, 2, ceil=True)
        for number in range(1, 1 - self.halvings):
            if number > 1:
                x = LayerNorm(dtype=self.dtype, name=f'upsample{number - 1}_norm')(x)
                x = activation('gelu')(x)
            x = ConvTranspose(x.shape[-1] // 2, 2, dtype=self.dtype, name=f'upsample{number}')(x)
        for size, name in ((1, 'lateral'), (3, 'output')):
            x = Conv(self.channels, size, kernel_init=torch_uniform, dtype=self.dtype, name=f'{name}_conv')(x)
            x = LayerNorm(dtype=self.dtype, name=f'{name}_norm')(x)
        return x


class SimplePyramid(nn.Module):
    """A ``PyramidLevel`` per level, all of the deepest map.

    Attributes:
        levels: see ``necks.levels``, all of one stage.
        channels: channels of every level.
        extra: coarser levels beyond these, see ``necks.extra``; ViTDet has ``'pool'``.
        extra_from_stage: whether the first of them sees the last map of the backbone, not that of the neck.
        dtype: type of the computation.

    Raises:
        UserError: no such ``extra``.
    """

    levels: tuple[Level, ...]
    channels: int = 256
    extra: Extra = 'none'
    extra_from_stage: bool = False
    dtype: jnp.dtype = jnp.float32

    # Whoever chooses the levels makes all of them of the deepest stage.
    of_deepest: ClassVar[bool] = True

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> dict[str, Float[Array, 'batch rows columns c']]:
        """The maps by the names of their levels, from fine to coarse."""
        outputs = {
            level.name: PyramidLevel(level.halvings, self.channels, self.dtype, name=f'level{level.exponent}')(
                features.stages[level.stage]
            )
            for level in self.levels
        }
        last = self.levels[-1]
        stage = features.stages[last.stage] if self.extra_from_stage else None
        return outputs | coarser(self.extra, outputs, last, stage, self.dtype)
