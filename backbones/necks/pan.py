"""Path aggregation: a Feature Pyramid Network, and a way back from fine to coarse.

Source: Liu et al. 2018, "Path Aggregation Network for Instance Segmentation", section 3.1, with a BatchNorm after every
convolution. Levels are added, as there; YOLO's necks, which go by the same name, join them and have blocks of their own
in between.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.features import Features
from backbones.layers.blocks import ConvNormActivation
from backbones.layers.convolution import kaiming_uniform
from backbones.layers.resizing import resize
from backbones.necks.extra import Extra, coarser
from backbones.necks.fpn import FPN
from backbones.necks.levels import Level, gather


class PAN(nn.Module):
    """The maps of an FPN, then from fine to coarse: a strided 3x3 convolution, the sum with the next map, a 3x3 one.

    Convolutions on the way back have a BatchNorm and a ReLU, those of the FPN a BatchNorm alone. The finest level is
    the FPN's own. Where a strided map and the next one differ in size (a backbone that rounds odd sizes down), the
    strided one is brought to the other's by nearest neighbour.

    Attributes:
        levels: see ``necks.levels``.
        channels: channels of every level.
        extra: coarser levels beyond these, see ``necks.extra``.
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

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> dict[str, Float[Array, 'batch rows columns c']]:
        """The maps by the names of their levels, from fine to coarse."""
        pyramid = FPN(self.levels, self.channels, norm=True, dtype=self.dtype, name='fpn')(features, train=train)
        outputs: dict[str, Array] = {}
        merged: Array | None = None
        for name, x in pyramid.items():
            if merged is not None:
                down = self._convolve(merged, 2, f'down{name[1:]}', train)
                x = self._convolve(x + resize(down, x.shape[1:3], 'nearest'), 1, f'output{name[1:]}', train)
            merged = outputs[name] = x
        last = self.levels[-1]
        stage = gather([last], features)[last.name] if self.extra_from_stage else None
        return outputs | coarser(self.extra, outputs, last, stage, self.dtype)

    def _convolve(self, x: Array, stride: int, name: str, train: bool) -> Array:
        layer = ConvNormActivation(self.channels, 3, stride, kernel_init=kaiming_uniform, dtype=self.dtype, name=name)
        return layer(x, train=train)
