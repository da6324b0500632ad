"""The backbones of YOLO11 and YOLO26: layers 0 to 10 of ultralytics' detectors, up to SPPF and C2PSA.

The two have the same arrays. YOLO26 leaves the first convolution of its SPPF without an activation, and adds the
SPPF's input to its output. Modules bear ultralytics' names.

Source: ultralytics/nn/modules/{conv,block}.py, ultralytics/cfg/models/{11/yolo11,26/yolo26}.yaml, and ``parse_model``
of ultralytics/nn/tasks.py for the scaling.
"""

import math
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.errors import UserError
from backbones.features import Features
from backbones.layers.attention import dot_product_attention
from backbones.layers.blocks import ConvNormActivation
from backbones.layers.convolution import torch_uniform
from backbones.layers.pooling import global_average_pool, max_pool

# For stages 2 to 5, before scaling: channels of the strided convolution and of the output, the share of these in each
# branch of the C3k2, and whether its blocks are C3ks at every scale.
_STAGES = (
    (128, 256, 0.25, False),
    (256, 512, 0.25, False),
    (512, 512, 0.5, True),
    (1024, 1024, 0.5, True),
)

# Makes a ConvNormActivation with the model's activation, epsilon, momentum and dtype.
Conv = Callable[..., ConvNormActivation]


def convolution(activation: str, epsilon: float, momentum: float, dtype: jnp.dtype) -> Conv:
    """The convolutions of a model, with torch's own initialisation, which ultralytics keeps."""
    return partial(
        ConvNormActivation,
        activation=activation,
        epsilon=epsilon,
        momentum=momentum,
        dtype=dtype,
        kernel_init=torch_uniform,
    )


class Bottleneck(nn.Module):
    """Two 3x3 convolutions, added to the input."""

    hidden: int
    conv: Conv

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h w c']:
        y = self.conv(self.hidden, 3, name='conv1')(x, train=train)
        return x + self.conv(x.shape[-1], 3, name='conv2')(y, train=train)


class C3k(nn.Module):
    """Two bottlenecks on one branch of half the channels, none on the other, both joined by a 1x1 convolution."""

    conv: Conv

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h w c']:
        hidden = x.shape[-1] // 2
        y = self.conv(hidden, 1, name='conv1')(x, train=train)
        for index in range(2):
            y = Bottleneck(hidden, self.conv, name=f'block{index + 1}')(y, train=train)
        y = jnp.concatenate([y, self.conv(hidden, 1, name='conv2')(x, train=train)], axis=-1)
        return self.conv(x.shape[-1], 1, name='conv3')(y, train=train)


class C3k2(nn.Module):
    """Two branches and a chain of blocks on the second; all maps on the way are joined by a 1x1 convolution.

    With ``head_channels``, every block is a bottleneck and attention, and ``nested`` says nothing (the neck of YOLO26).
    """

    channels: int
    branch: int
    depth: int
    nested: bool
    conv: Conv
    head_channels: int | None = None

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h w channels']:
        maps = jnp.split(self.conv(2 * self.branch, 1, name='conv1')(x, train=train), 2, axis=-1)
        for index in range(self.depth):
            maps.append(self._block(f'block{index + 1}')(maps[-1], train=train))
        return self.conv(self.channels, 1, name='conv2')(jnp.concatenate(maps, axis=-1), train=train)

    def _block(self, name: str) -> nn.Module:
        if self.head_channels is not None:
            return AttentionBottleneck(self.branch // 2, self.head_channels, self.conv, name=name)
        return C3k(self.conv, name=name) if self.nested else Bottleneck(self.branch // 2, self.conv, name=name)


class SPPF(nn.Module):
    """Spatial pyramid pooling, fast: max-pools of stride 1 in a chain, all joined by a 1x1 convolution."""

    activation: str
    shortcut: bool
    window: int
    pools: int
    conv: Conv

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h w c']:
        maps = [self.conv(x.shape[-1] // 2, 1, activation=self.activation, name='conv1')(x, train=train)]
        for _ in range(self.pools):
            maps.append(max_pool(maps[-1], self.window, stride=1, padding=self.window // 2))
        y = self.conv(x.shape[-1], 1, name='conv2')(jnp.concatenate(maps, axis=-1), train=train)
        return x + y if self.shortcut else y


class Attention(nn.Module):
    """Self-attention among all positions; keys half as wide as values, and a 3x3 depthwise term for the positions.

    The packed projection holds query, key and value of the first head, then those of the second, and so on.
    """

    head_channels: int
    conv: Conv

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h w c']:
        batch, height, width, channels = x.shape
        heads = max(channels // self.head_channels, 1)
        if channels % heads:
            divisors = [each for each in range(1, channels + 1) if channels % each == 0]
            nearest = min(divisors, key=lambda each: abs(each - self.head_channels))
            raise UserError(
                f'{channels} channels do not divide into {heads} heads (head_channels={self.head_channels}); '
                f'the nearest head_channels that does is {nearest}'
            )
        value_width = channels // heads
        key_width = value_width // 2
        linear = partial(self.conv, activation='none')
        packed = linear(channels + 2 * key_width * heads, 1, name='qkv')(x, train=train)
        packed = packed.reshape(batch, height * width, heads, -1).transpose(0, 2, 1, 3)
        query, key, value = jnp.split(packed, [key_width, 2 * key_width], axis=-1)
        mixed, value = (
            each.transpose(0, 2, 1, 3).reshape(x.shape) for each in (dot_product_attention(query, key, value), value)
        )
        position = linear(channels, 3, groups=channels, name='position')(value, train=train)
        return linear(channels, 1, name='projection')(mixed + position, train=train)


class PSABlock(nn.Module):
    """Attention and two 1x1 convolutions, each added to its input."""

    head_channels: int
    conv: Conv

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h w c']:
        x = x + Attention(self.head_channels, self.conv, name='attention')(x, train=train)
        y = self.conv(2 * x.shape[-1], 1, name='mlp_conv1')(x, train=train)
        return x + self.conv(x.shape[-1], 1, activation='none', name='mlp_conv2')(y, train=train)


class AttentionBottleneck(nn.Module):
    """A bottleneck, and attention after it."""

    hidden: int
    head_channels: int
    conv: Conv

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h w c']:
        x = Bottleneck(self.hidden, self.conv, name='bottleneck')(x, train=train)
        return PSABlock(self.head_channels, self.conv, name='psa')(x, train=train)


class C2PSA(nn.Module):
    """Two branches, a chain of attention blocks on the second, both joined by a 1x1 convolution."""

    depth: int
    head_channels: int
    conv: Conv

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h w c']:
        hidden = x.shape[-1] // 2
        first, second = jnp.split(self.conv(2 * hidden, 1, name='conv1')(x, train=train), 2, axis=-1)
        for index in range(self.depth):
            second = PSABlock(self.head_channels, self.conv, name=f'block{index + 1}')(second, train=train)
        joined = jnp.concatenate([first, second], axis=-1)
        return self.conv(x.shape[-1], 1, name='conv2')(joined, train=train)


class Stage(nn.Module):
    """A strided convolution, a C3k2, and whatever else is at the same resolution."""

    down_channels: int
    c3k2: Callable[[], C3k2]
    tail: tuple[Callable[[], nn.Module], ...]
    conv: Conv

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h2 w2 c2']:
        x = self.conv(self.down_channels, 3, 2, name='downsample')(x, train=train)
        for layer in (self.c3k2, *self.tail):
            x = layer()(x, train=train)
        return x


class YOLO(nn.Module):
    """Five stages (strides 2 to 32); ``stage1`` is the first convolution, ``stage5`` comes after C2PSA.

    The reference has no classifier after these layers: ``pooled`` is the global average of ``stage5``. Ultralytics'
    classification models (``yolo11n-cls``) have a different backbone, without SPPF.

    Attributes:
        depth: factor on the two blocks of each C3k2 and of C2PSA.
        width: factor on all channels.
        max_channels: limit on the channels before that factor.
        nested: whether the blocks of the first two C3k2s are C3ks too, as in ultralytics from size m on.
        sppf_activation: name of the activation after the first convolution of SPPF; ``'none'`` in YOLO26.
        sppf_shortcut: whether SPPF adds its input to its output, as in YOLO26.
        sppf_window, sppf_pools: side of SPPF's max-pools in pixels, and how many are chained.
        head_channels: channels per attention head, from which the number of heads follows.
        activation: name of the activation after every convolution that is not linear.
        epsilon, momentum: those of every BatchNorm.
        dtype: type of the computation.

    Raises:
        UserError: channels that do not divide among the attention heads.
    """

    depth: float
    width: float
    max_channels: int
    nested: bool
    sppf_activation: str
    sppf_shortcut: bool
    sppf_window: int = 5
    sppf_pools: int = 3
    head_channels: int = 64
    activation: str = 'silu'
    epsilon: float = 1e-3
    momentum: float = 0.97
    dtype: jnp.dtype = jnp.float32

    def _scaled(self, channels: int) -> int:
        """Channels at this width, rounded up to a multiple of eight."""
        return math.ceil(min(channels, self.max_channels) * self.width / 8) * 8

    def stage_channels(self) -> tuple[int, ...]:
        """Channels of each stage's output."""
        return tuple(self._scaled(channels) for channels in (64, *(channels for _, channels, *_ in _STAGES)))

    def stage_strides(self) -> tuple[int, ...]:
        """Input pixels per step of each stage's map."""
        return (2, 4, 8, 16, 32)

    def pooled_channels(self) -> int:
        """Channels of ``Features.pooled``."""
        return self.stage_channels()[-1]

    @nn.compact
    def __call__(self, images: Float[Array, 'batch height width channels'], train: bool = False) -> Features:
        conv = convolution(self.activation, self.epsilon, self.momentum, self.dtype)
        depth = max(round(2 * self.depth), 1)
        pyramid = (self.sppf_activation, self.sppf_shortcut, self.sppf_window, self.sppf_pools)
        tail = (
            partial(SPPF, *pyramid, conv, name='sppf'),
            partial(C2PSA, depth, self.head_channels, conv, name='c2psa'),
        )
        x = conv(self._scaled(64), 3, 2, name='stage1')(images, train=train)
        stages = {'stage1': x}
        for index, (down_channels, channels, share, nested) in enumerate(_STAGES):
            name, channels = f'stage{index + 2}', self._scaled(channels)
            branch = int(channels * share)
            c3k2 = partial(C3k2, channels, branch, depth, nested or self.nested, conv, name='c3k2')
            last = index == len(_STAGES) - 1
            stage = Stage(self._scaled(down_channels), c3k2, tail if last else (), conv, name=name)
            x = stages[name] = stage(x, train=train)
        return Features(stages=stages, pooled=global_average_pool(x))
