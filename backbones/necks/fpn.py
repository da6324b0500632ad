"""Feature Pyramid Network, as torchvision builds it.

Source: Lin et al. 2017, "Feature Pyramid Networks for Object Detection"; torchvision/ops/feature_pyramid_network.py.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.features import Features
from backbones.layers.blocks import ConvNormActivation
from backbones.layers.convolution import Conv, kaiming_uniform
from backbones.layers.resizing import resize
from backbones.necks.extra import Extra, coarser
from backbones.necks.levels import Level, gather


class FPN(nn.Module):
    """A 1x1 convolution per level, added from coarse to fine, then a 3x3 convolution per level.

    Attributes:
        levels: see ``necks.levels``.
        channels: channels of every level.
        extra: coarser levels beyond these, see ``necks.extra``.
        extra_from_stage: whether the first strided convolution sees the last map of the backbone, not that of the neck
            (torchvision's RetinaNet v2).
        norm: whether convolutions have a BatchNorm in place of a bias.
        dtype: type of the computation.

    Raises:
        UserError: no such ``extra``.
    """

    levels: tuple[Level, ...]
    channels: int = 256
    extra: Extra = 'none'
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
            merged = lateral if merged is None else lateral + resize(merged, lateral.shape[1:3], 'nearest')
            outputs[name] = self._convolve(merged, 3, f'output{name[1:]}', train)
        outputs = dict(reversed(outputs.items()))
        stage = maps[self.levels[-1].name] if self.extra_from_stage else None
        return outputs | coarser(self.extra, outputs, self.levels[-1], stage, self.dtype)

    def _convolve(self, x: Array, size: int, name: str, train: bool) -> Array:
        if self.norm:
            layer = ConvNormActivation(
                self.channels, size, activation='none', dtype=self.dtype, kernel_init=kaiming_uniform, name=name
            )
            return layer(x, train=train)
        return Conv(self.channels, size, use_bias=True, kernel_init=kaiming_uniform, dtype=self.dtype, name=name)(x)
