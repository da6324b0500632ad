"""ResNet, version 1.5 (the stride sits on the 3x3 convolution), ResNeXt and Wide ResNet, as torchvision builds them.

Source: He et al. 2016, "Deep Residual Learning for Image Recognition"; Xie et al. 2017, "Aggregated Residual
Transformations for Deep Neural Networks"; Zagoruyko and Komodakis 2016, "Wide Residual Networks";
torchvision/models/resnet.py.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.errors import UserError, check_output_stride
from backbones.features import Features
from backbones.layers.convolution import Conv
from backbones.layers.normalisation import BatchNorm
from backbones.layers.pooling import global_average_pool, max_pool


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside the identity, or beside a strided 1x1 convolution where the shape changes.

    Raises:
        UserError: ``groups`` or ``base_width``, which only a bottleneck can vary, are not the usual 1 and 64.
    """

    channels: int
    stride: int = 1
    groups: int = 1
    base_width: int = 64
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32
    first_dilation: int = 1
    dilation: int = 1

    expansion = 1

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h2 w2 c2']:
        if (self.groups, self.base_width) != (1, 64):
            raise UserError(
                f'a ResNet of basic blocks has groups=1 and base_width=64, not {self.groups} and {self.base_width}; '
                'ResNeXt and Wide ResNet are of bottlenecks, such as resnet50'
            )
        y = Conv(self.channels, 3, self.stride, dtype=self.dtype, dilation=self.first_dilation, name='conv1')(x)
        y = nn.relu(BatchNorm(self.epsilon, dtype=self.dtype, name='norm1')(y, train=train))
        y = Conv(self.channels, 3, dtype=self.dtype, dilation=self.dilation, name='conv2')(y)
        y = BatchNorm(self.epsilon, dtype=self.dtype, name='norm2')(y, train=train)
        return nn.relu(y + _shortcut(self, x, self.channels, train))


class Bottleneck(nn.Module):
    """1x1 reduction, 3x3 in groups, 1x1 expansion to four times the channels.

    Raises:
        UserError: ``groups`` or ``base_width`` is less than 1.
    """

    channels: int
    stride: int = 1
    groups: int = 1
    base_width: int = 64
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32
    first_dilation: int = 1
    dilation: int = 1

    expansion = 4

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h2 w2 c2']:
        if min(self.groups, self.base_width) < 1:
            raise UserError(f'groups and base_width must be at least 1, not {self.groups} and {self.base_width}')
        width = self.channels * self.base_width // 64 * self.groups
        expanded = self.channels * self.expansion
        y = Conv(width, 1, dtype=self.dtype, name='conv1')(x)
        y = nn.relu(BatchNorm(self.epsilon, dtype=self.dtype, name='norm1')(y, train=train))
        y = Conv(
            width, 3, self.stride, groups=self.groups, dtype=self.dtype, dilation=self.first_dilation, name='conv2'
        )(y)
        y = nn.relu(BatchNorm(self.epsilon, dtype=self.dtype, name='norm2')(y, train=train))
        y = Conv(expanded, 1, dtype=self.dtype, name='conv3')(y)
        y = BatchNorm(self.epsilon, dtype=self.dtype, name='norm3')(y, train=train)
        return nn.relu(y + _shortcut(self, x, expanded, train))


def _shortcut(block: BasicBlock | Bottleneck, x: Array, channels: int, train: bool) -> Array:
    """The identity, or a projection where the block changes the resolution or the channels."""
    if block.stride == 1 and x.shape[-1] == channels:
        return x
    x = Conv(channels, 1, block.stride, dtype=block.dtype, name='shortcut_conv')(x)
    return BatchNorm(block.epsilon, dtype=block.dtype, name='shortcut_norm')(x, train=train)


class Stage(nn.Module):
    """A chain of blocks at one resolution; the first one has the stride.

    ``dilation`` is that of the first block's 3x3 convolution (of a basic block: of the first of its two) and of all
    others, which differ where the stage is dilated in place of its stride.
    """

    block: type[BasicBlock] | type[Bottleneck]
    depth: int
    channels: int
    stride: int
    groups: int = 1
    base_width: int = 64
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32
    dilation: tuple[int, int] = (1, 1)

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h2 w2 c2']:
        for index in range(self.depth):
            stride = self.stride if index == 0 else 1
            block = self.block(
                self.channels,
                stride,
                self.groups,
                self.base_width,
                self.epsilon,
                self.dtype,
                self.dilation[min(index, 1)],
                self.dilation[1],
                name=f'block{index + 1}',
            )
            x = block(x, train=train)
        return x


class ResNet(nn.Module):
    """Four stages after a stem.

    Attributes:
        block: ``BasicBlock`` or ``Bottleneck``.
        depths: blocks per stage.
        channels: inner channels per stage.
        stem_channels: channels of the stem's convolution.
        groups: groups of a bottleneck's 3x3 convolution (ResNeXt's cardinality).
        base_width: channels of each group in the first stage's bottlenecks (torchvision's ``width_per_group``).
        small_images: a 3x3 stem of stride 1 without a pool, for images of about 32 pixels (He et al. 2016, section
            4.2), in place of the 7x7 of stride 2 and the 3x3 max-pool of stride 2.
        epsilon: that of every BatchNorm; torchvision's RetinaNet runs its first weights with 0.
        output_stride: that of the last stage. Where it is less than usual, the last stages have dilated convolutions in
            place of their strides (torchvision's ``replace_stride_with_dilation``); ``None`` for no such stage.
        dtype: type of the computation.

    Raises:
        UserError: an output stride that is not among ``output_strides()``.
    """

    block: type[BasicBlock] | type[Bottleneck]
    depths: tuple[int, ...]
    channels: tuple[int, ...] = (64, 128, 256, 512)
    stem_channels: int = 64
    groups: int = 1
    base_width: int = 64
    small_images: bool = False
    epsilon: float = 1e-5
    output_stride: int | None = None
    dtype: jnp.dtype = jnp.float32

    def stage_channels(self) -> tuple[int, ...]:
        """Channels of each stage's output."""
        return tuple(self.block.expansion * channels for channels in self.channels)

    def stage_strides(self) -> tuple[int, ...]:
        """Input pixels per step of each stage's map."""
        usual = self._usual_strides()
        return tuple(min(stride, self.output_stride or stride) for stride in usual)

    def output_strides(self) -> tuple[int, ...]:
        """The values that ``output_stride`` can have."""
        return self._usual_strides()[1:]

    def _usual_strides(self) -> tuple[int, ...]:
        first = 1 if self.small_images else 4
        return tuple(first * 2**index for index in range(len(self.depths)))

    def pooled_channels(self) -> int:
        """Channels of ``Features.pooled``."""
        return self.stage_channels()[-1]

    @nn.compact
    def __call__(self, images: Float[Array, 'batch height width channels'], train: bool = False) -> Features:
        check_output_stride(self.output_stride, self.output_strides())
        size, stride = (3, 1) if self.small_images else (7, 2)
        x = Conv(self.stem_channels, size, stride, dtype=self.dtype, name='stem_conv')(images)
        x = nn.relu(BatchNorm(self.epsilon, dtype=self.dtype, name='stem_norm')(x, train=train))
        if not self.small_images:
            x = max_pool(x, window=3, stride=2, padding=1)
        stages, strides, usual = {}, self.stage_strides(), self._usual_strides()
        for index, (depth, channels) in enumerate(zip(self.depths, self.channels, strict=True)):
            before = max(index - 1, 0)
            name, stride = f'stage{index + 1}', strides[index] // strides[before]
            # The first block of a dilated stage keeps the dilation of the stage before.
            dilation = usual[before] // strides[before], usual[index] // strides[index]
            stage = Stage(
                self.block,
                depth,
                channels,
                stride,
                self.groups,
                self.base_width,
                self.epsilon,
                self.dtype,
                dilation,
                name=name,
            )
            x = stages[name] = stage(x, train=train)
        return Features(stages=stages, pooled=global_average_pool(x))
