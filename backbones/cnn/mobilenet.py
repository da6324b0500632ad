"""MobileNetV3 as torchvision's ``mobilenetv3.py`` builds it.

Source: Howard et al. 2019, "Searching for MobileNetV3"; torchvision/models/mobilenetv3.py.

Timm's own weights have the same shapes but need ``epsilon=1e-5``; its ``tf_*`` ones need ``padding='same'`` and the
epsilon of 1e-3 that is the default here. No file says so: pass the options.
"""

import itertools
from functools import partial
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.errors import check_output_stride
from backbones.features import Features
from backbones.layers.activations import activation
from backbones.layers.attention import Dense
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

# Per block: expanded channels, output channels, kernel, stride, whether it has squeeze-and-excitation, activation.
Row = tuple[int, int, int, int, bool, str]
_STEM_CHANNELS = 16
LARGE: tuple[Row, ...] = (
    (16, 16, 3, 1, False, 'relu'),
    (64, 24, 3, 2, False, 'relu'),
    (72, 24, 3, 1, False, 'relu'),
    (72, 40, 5, 2, True, 'relu'),
    (120, 40, 5, 1, True, 'relu'),
    (120, 40, 5, 1, True, 'relu'),
    (240, 80, 3, 2, False, 'hard_swish'),
    (200, 80, 3, 1, False, 'hard_swish'),
    (184, 80, 3, 1, False, 'hard_swish'),
    (184, 80, 3, 1, False, 'hard_swish'),
    (480, 112, 3, 1, True, 'hard_swish'),
    (672, 112, 3, 1, True, 'hard_swish'),
    (672, 160, 5, 2, True, 'hard_swish'),
    (960, 160, 5, 1, True, 'hard_swish'),
    (960, 160, 5, 1, True, 'hard_swish'),
)
SMALL: tuple[Row, ...] = (
    (16, 16, 3, 2, True, 'relu'),
    (72, 24, 3, 2, False, 'relu'),
    (88, 24, 3, 1, False, 'relu'),
    (96, 40, 5, 2, True, 'hard_swish'),
    (240, 40, 5, 1, True, 'hard_swish'),
    (240, 40, 5, 1, True, 'hard_swish'),
    (120, 48, 5, 1, True, 'hard_swish'),
    (144, 48, 5, 1, True, 'hard_swish'),
    (288, 96, 5, 2, True, 'hard_swish'),
    (576, 96, 5, 1, True, 'hard_swish'),
    (576, 96, 5, 1, True, 'hard_swish'),
)


class MobileNetV3(nn.Module):
    """Stages of strides 2 to 32 (the small one has no block before stride 4); ``pooled`` comes after a hidden layer.

    Attributes:
        rows: ``LARGE`` or ``SMALL``.
        hidden: width of the layer between the pooling and the classifier.
        activation: name of the activation in the stem, the head and the hidden layer.
        padding: ``None`` for torch's symmetric padding, ``'same'`` for TensorFlow's.
        epsilon: constant that every BatchNorm adds to the variance.
        momentum: share of the old statistics that every BatchNorm keeps.
        output_stride: that of the last stage; 16 dilates all of its depthwise convolutions in place of the stride
            (torchvision's ``dilated=True``); ``None`` is the usual 32.
        for_detection: whether the stages are those of torchvision's detectors: the fifth is the first block of its
            resolution alone, and a sixth of the same stride ends with the last convolution. There is no hidden layer
            then, and ``pooled`` is the mean of that.
        dtype: type of the computation.

    Raises:
        UserError: another output stride.
    """

    rows: tuple[Row, ...]
    hidden: int
    activation: str = 'hard_swish'
    padding: Literal['same'] | None = None
    epsilon: float = 1e-3
    momentum: float = 0.99
    output_stride: int | None = None
    for_detection: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.nowrap
    def blocks(self) -> list[BlockConfig]:
        """All blocks; squeeze-and-excitation narrows to a quarter of the expanded channels."""
        inputs = (_STEM_CHANNELS, *(channels for _, channels, *_ in self.rows))
        return [
            BlockConfig(width, expanded, channels, kernel, stride, round_channels(expanded // 4) * squeezes, act)
            for width, (expanded, channels, kernel, stride, squeezes, act) in zip(inputs, self.rows, strict=False)
        ]

    @nn.nowrap
    def groups(self) -> list[list[BlockConfig]]:
        """The blocks in runs of equal output channels, as timm counts them."""
        return [list(group) for _, group in itertools.groupby(self.blocks(), lambda block: block.channels)]

    @nn.nowrap
    def stages(self) -> list[list[BlockConfig]]:
        """The blocks by resolution, or what would be one without dilation."""
        stages = into_stages(self.blocks())
        if self.output_stride == 16:
            stages[-1] = [block._replace(stride=1, dilation=2) for block in stages[-1]]
        if self.for_detection:
            stages[-1:] = [stages[-1][:1], stages[-1][1:]]
        return stages

    def stage_channels(self) -> tuple[int, ...]:
        """Channels of each stage's output."""
        channels = tuple(blocks[-1].channels for blocks in self.stages())
        return (*channels[:-1], self._head_channels()) if self.for_detection else channels

    def stage_strides(self) -> tuple[int, ...]:
        """Input pixels per step of each stage's map."""
        return strides_after(2, self.stages())

    def output_strides(self) -> tuple[int, ...]:
        """The values that ``output_stride`` can have."""
        return 16, 32

    def pooled_channels(self) -> int:
        """Channels of ``Features.pooled``."""
        return self._head_channels() if self.for_detection else self.hidden

    @nn.nowrap
    def _head_channels(self) -> int:
        return 6 * self.rows[-1][1]

    @nn.compact
    def __call__(self, images: Float[Array, 'batch height width channels'], train: bool = False) -> Features:
        check_output_stride(self.output_stride, self.output_strides())
        act = activation(self.activation)
        conv = partial(Conv, padding=self.padding, dtype=self.dtype)
        norm = partial(BatchNorm, self.epsilon, self.momentum, self.dtype)
        layer = partial(
            InvertedResidual,
            squeeze_activation='relu',
            gate='hard_sigmoid',
            padding=self.padding,
            epsilon=self.epsilon,
            momentum=self.momentum,
            dtype=self.dtype,
        )
        x = conv(_STEM_CHANNELS, 3, 2, name='stem_conv')(images)
        x = act(norm(name='stem_norm')(x, train=train))
        stages = {}
        for index, blocks in enumerate(self.stages()):
            name = f'stage{index + 1}'
            x = stages[name] = Stage(tuple(blocks), layer, name=name)(x, train=train)
        x = conv(self._head_channels(), 1, name='head_conv')(x)
        x = act(norm(name='head_norm')(x, train=train))
        if self.for_detection:
            return Features(stages={**stages, name: x}, pooled=global_average_pool(x))
        x = global_average_pool(x)
        hidden = Dense(self.hidden, nn.initializers.normal(0.01), self.dtype, name='head_dense')
        return Features(stages=stages, pooled=act(hidden(x)))
