"""Towers of convolutions, and the convolution that predicts after each: what one-stage detectors learn.

Source: Lin et al. 2017, "Focal Loss for Dense Object Detection"; torchvision/models/detection/retinanet.py, fcos.py.
"""

import math
from collections.abc import Mapping
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.errors import UserError, unknown
from backbones.layers.convolution import Conv
from backbones.layers.normalisation import GroupNorm

normal = nn.initializers.normal(0.01)
NORMS = ('none', 'group')


class Tower(nn.Module):
    """3x3 convolutions of one width, each followed by a ReLU: parameters ``conv1``, ``norm1``, ``conv2``, …

    Attributes:
        depth: number of convolutions.
        channels: channels of each; ``None``: those of the input.
        norm: what stands between a convolution and its ReLU: ``'group'``, a GroupNorm, or ``'none'``.
        use_bias: whether convolutions have a bias.
        dtype: type of the computation.
    """

    depth: int = 4
    channels: int | None = None
    norm: Literal['none', 'group'] = 'none'
    use_bias: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c2']:
        channels = self.channels or x.shape[-1]
        for number in range(1, self.depth + 1):
            convolution = Conv(
                channels, 3, use_bias=self.use_bias, kernel_init=normal, dtype=self.dtype, name=f'conv{number}'
            )
            x = convolution(x)
            if self.norm == 'group':
                x = GroupNorm(dtype=self.dtype, name=f'norm{number}')(x)
            x = nn.relu(x)
        return x


def prediction(features: int, dtype: jnp.dtype, name: str, begins_with: float = 0.0) -> Conv:
    """The 3x3 convolution after a tower, whose outputs begin near a value."""
    bias = nn.initializers.constant(begins_with)
    return Conv(features, 3, use_bias=True, kernel_init=normal, bias_init=bias, dtype=dtype, name=name)


def logit(probability: float) -> float:
    """What the sigmoid makes a probability of."""
    return math.log(probability / (1 - probability))


def checked(maps: Mapping[str, Array] | None, norm: str, depth: int) -> Mapping[str, Array]:
    """The maps, unless a head with these options cannot be made.

    Raises:
        UserError: there is no neck, or one whose levels differ in channels, an unknown norm, or a negative depth.
    """
    if maps is None:
        raise UserError("a one-stage detector needs a neck, which gives it levels such as 'p3'; pass neck='fpn'")
    channels = [x.shape[-1] for x in maps.values()]
    if len(set(channels)) > 1:
        raise UserError(
            f'the head has one tower for all levels, but these have {channels} channels; make the neck with '
            f"neck_options={{'max_channels': {channels[0]}, 'channels': {channels[0]}}}, or take the head 'yolo', or "
            "the neck 'fpn'"
        )
    if norm not in NORMS:
        raise unknown('norm of the head', norm, NORMS)
    if depth < 0:
        raise UserError(f'depth of the head must be at least 0, not {depth}')
    return maps
