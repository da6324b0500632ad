"""EfficientNet as torchvision's ``efficientnet.py`` builds it, and EfficientNet-Lite.

Source: Tan and Le 2019, "EfficientNet: Rethinking Model Scaling"; torchvision/models/efficientnet.py; tensorflow/tpu
``efficientnet/lite``, which leaves out squeeze-and-excitation, uses ReLU6 and does not scale the stem and the head.

Weights that were trained in TensorFlow (lukemelas, transformers, timm's ``tf_*``) have the same shapes but need
``padding='same'`` and ``epsilon=1e-3``; timm's own of B5 need ``epsilon=1e-5``. No file says so: pass the options.
"""

import itertools
import math
from functools import partial
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.features import Features
from backbones.layers.activations import activation
from backbones.layers.convolution import Conv
from backbones.layers.inverted_residual import (
    BlockConfig,
    InvertedResidual,
    Stage,
    into_stages,
    round_channels,
    strides_after,
)
from backbones.layers.normalisation import BatchNorm
from backbones.layers.pooling import global_average_pool

# (expansion, channels, blocks, stride, kernel) of B0's seven groups of blocks.
_GROUPS = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)


class EfficientNet(nn.Module):
    """Five stages (strides 2 to 32); ``pooled`` comes after the head's 1x1 convolution.

    Attributes:
        width: factor on all channels.
        depth: factor on the number of blocks.
        activation: name of the activation used everywhere, including in squeeze-and-excitation.
        squeeze_excitation: whether blocks have it; it narrows to a quarter of the block's input.
        fixed_ends: whether ``width`` spares the stem and the head, and ``depth`` the first and last group of blocks.
        padding: ``None`` for torch's symmetric padding, ``'same'`` for TensorFlow's.
        epsilon: constant that every BatchNorm adds to the variance.
        momentum: share of the old statistics that every BatchNorm keeps.
        stochastic_depth: what the rate at which blocks are skipped while training rises to, linearly from 0: that of
            block ``k`` of ``n``, counted from 0, is ``k / n`` of it, so that no block reaches it.
        dtype: type of the computation.
    """

    width: float
    depth: float
    activation: str = 'silu'
    squeeze_excitation: bool = True
    fixed_ends: bool = False
    padding: Literal['same'] | None = None
    epsilon: float = 1e-5
    momentum: float = 0.9
    stochastic_depth: float = 0.2
    dtype: jnp.dtype = jnp.float32

    @nn.nowrap
    def groups(self) -> list[list[BlockConfig]]:
        """The blocks grouped by the rows of the paper's table 1, as most references count them."""
        scaled = [math.ceil(blocks * self.depth) for _, _, blocks, _, _ in _GROUPS]
        if self.fixed_ends:
            scaled[0], scaled[-1] = _GROUPS[0][2], _GROUPS[-1][2]
        groups, number, inputs = [], 0, self._end_channels(32)
        for (expansion, channels, _, stride, kernel), blocks in zip(_GROUPS, scaled, strict=True):
            channels = round_channels(channels * self.width)
            groups.append([])
            for index in range(blocks):
                step = stride if index == 0 else 1
                squeezed = inputs // 4 if self.squeeze_excitation else 0
                drop_rate = self.stochastic_depth * number / sum(scaled)
                block = BlockConfig(
                    inputs, inputs * expansion, channels, kernel, step, squeezed, self.activation, drop_rate
                )
                groups[-1].append(block)
                inputs, number = channels, number + 1
        return groups

    @nn.nowrap
    def stages(self) -> list[list[BlockConfig]]:
        """The blocks by resolution."""
        return into_stages(itertools.chain(*self.groups()))

    @nn.nowrap
    def _end_channels(self, channels: int) -> int:
        """Channels of the stem or the head."""
        return channels if self.fixed_ends else round_channels(channels * self.width)

    def stage_channels(self) -> tuple[int, ...]:
        """Channels of each stage's output."""
        return tuple(blocks[-1].channels for blocks in self.stages())

    def stage_strides(self) -> tuple[int, ...]:
        """Input pixels per step of each stage's map."""
        return strides_after(2, self.stages())

    def pooled_channels(self) -> int:
        """Channels of ``Features.pooled``."""
        return self._end_channels(1280)

    @nn.compact
    def __call__(self, images: Float[Array, 'batch height width channels'], train: bool = False) -> Features:
        act = activation(self.activation)
        conv = partial(Conv, padding=self.padding, dtype=self.dtype)
        norm = partial(BatchNorm, self.epsilon, self.momentum, self.dtype)
        layer = partial(
            InvertedResidual,
            squeeze_activation=self.activation,
            padding=self.padding,
            epsilon=self.epsilon,
            momentum=self.momentum,
            dtype=self.dtype,
        )
        x = conv(self._end_channels(32), 3, 2, name='stem_conv')(images)
        x = act(norm(name='stem_norm')(x, train=train))
        stages = {}
        for index, blocks in enumerate(self.stages()):
            name = f'stage{index + 1}'
            x = stages[name] = Stage(tuple(blocks), layer, name=name)(x, train=train)
        x = conv(self._end_channels(1280), 1, name='head_conv')(x)
        x = act(norm(name='head_norm')(x, train=train))
        return Features(stages=stages, pooled=global_average_pool(x))
