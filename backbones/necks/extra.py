"""Levels coarser than those of the backbone, for a detector's large objects; every neck has the same.

Source: torchvision/ops/feature_pyramid_network.py, ``LastLevelMaxPool`` and ``LastLevelP6P7``.
"""

from collections.abc import Mapping
from typing import Literal, get_args

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.errors import unknown
from backbones.layers.convolution import Conv, kaiming_uniform
from backbones.necks.levels import Level

# ``'pool'``: one more level, every second pixel of the last one. ``'p6p7'``: two more, by strided 3x3 convolutions, of
# which the second sees the first's output after a ReLU.
Extra = Literal['none', 'pool', 'p6p7']


def coarser(
    extra: Extra,
    outputs: Mapping[str, Float[Array, 'batch rows columns c']],
    last: Level,
    stage: Float[Array, 'batch height width channels'] | None = None,
    dtype: jnp.dtype = jnp.float32,
) -> dict[str, Float[Array, 'batch rows2 columns2 c']]:
    """The extra levels of a neck, by name; to be called where it may create ``extra1`` and ``extra2``.

    Args:
        extra: which.
        outputs: what the neck has made so far.
        last: the coarsest of these levels.
        stage: what the first strided convolution sees; ``None``: the coarsest output.
        dtype: type of the computation.

    Raises:
        UserError: no such way.
    """
    if extra not in get_args(Extra):
        raise unknown('way to add levels to a neck', extra, get_args(Extra))
    x = outputs[last.name]
    if extra == 'none':
        return {}
    if extra == 'pool':
        return {f'p{last.exponent + 1}': x[:, ::2, ::2]}

    def strided(x: Array, name: str) -> Array:
        return Conv(channels, 3, 2, use_bias=True, kernel_init=kaiming_uniform, dtype=dtype, name=name)(x)

    channels = x.shape[-1]
    first = strided(x if stage is None else stage, 'extra1')
    second = strided(nn.relu(first), 'extra2')
    return {f'p{last.exponent + 1}': first, f'p{last.exponent + 2}': second}
