"""Feature Pyramid Network, as torchvision builds it.

Source: Lin et al. 2017, "Feature Pyramid Networks for Object Detection"; torchvision/ops/feature_pyramid_network.py.
"""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.features import Features
from backbones.layers.blocks import ConvNormActivation
from backbones.layers.convolution import Conv
from backbones.necks.levels import Level, gather

# Torch's kaiming_uniform_ with a=1.
kaiming_uniform = nn.initializers.variance_scaling(1.0, 'fan_in', 'uniform')


class FPN(nn.Module):
    """A 1x1 convolution per level, added from coarse to fine, then a 3x3 convolution per level.

    Attributes:
        levels: see ``necks.levels``.
        channels: channels of every level.
        extra: coarser levels beyond these: ``'pool'`` takes every second pixel of the last (one more), ``'p6p7'``
            strided convolutions (two more).
        extra_from_stage: whether the first strided convolution sees the last map of the backbone, not that of the neck
            (torchvision's RetinaNet v2).
        norm: whether convolutions have a BatchNorm in place of a bias.
        dtype: type of the computation.
    """

    levels: tuple[Level, ...]
    channels: int = 256
    extra: Literal['none', 'pool', 'p6p7'] = 'none'
    extra_from_stage: bool = False
    norm: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> dict[str, Float[Array, 'batch rows columns c']]:
        """The maps by the names of their levels, from fine to coarse."""
        maps = gather(self.levels, features)
        merged: Array | None = None
        outputs = {}
        for name, x in reversed(maps.items()):
            lateral = self._convolve(x, 1, f'lateral{name[1:]}', train)
            merged = lateral if merged is None else lateral + _nearest(merged, lateral.shape[1:3])
            outputs[name] = self._convolve(merged, 3, f'output{name[1:]}', train)
        outputs = dict(reversed(outputs.items()))
        last = self.levels[-1]
        if self.extra == 'pool':
            outputs[f'p{last.exponent + 1}'] = outputs[last.name][:, ::2, ::2]
        elif self.extra == 'p6p7':
            x = maps[last.name] if self.extra_from_stage else outputs[last.name]
            for number in (1, 2):
                name = f'p{last.exponent + number}'
                x = outputs[name] = self._strided(nn.relu(x) if number == 2 else x, f'extra{number}')
        return outputs

    def _convolve(self, x: Array, size: int, name: str, train: bool) -> Array:
        if self.norm:
            layer = ConvNormActivation(
                self.channels, size, activation='none', dtype=self.dtype, kernel_init=kaiming_uniform, name=name
            )
            return layer(x, train=train)
        return Conv(self.channels, size, use_bias=True, kernel_init=kaiming_uniform, dtype=self.dtype, name=name)(x)

    def _strided(self, x: Array, name: str) -> Array:
        layer = Conv(self.channels, 3, 2, use_bias=True, kernel_init=kaiming_uniform, dtype=self.dtype, name=name)
        return layer(x)


def _nearest(x: Float[Array, 'b h w c'], size: tuple[int, ...]) -> Float[Array, 'b h2 w2 c']:
    """Nearest neighbour as torch has it: pixel i comes from ``floor(i * h / h2)``."""
    for axis, target in zip((1, 2), size, strict=True):
        if x.shape[axis] != target:
            x = jnp.take(x, jnp.arange(target) * x.shape[axis] // target, axis=axis)
    return x
