"""The inverted residual block of EfficientNet and MobileNetV3, and its configuration.

Source: Sandler et al. 2018, "MobileNetV2"; with squeeze-and-excitation as in Howard et al. 2019 and Tan and Le 2019.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.layers.activations import activation
from backbones.layers.blocks import SqueezeExcitation
from backbones.layers.convolution import Conv
from backbones.layers.normalisation import BatchNorm
from backbones.layers.regularisation import StochasticDepth


def round_channels(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of ``divisor`` that is at least 90 % of ``channels``."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


class BlockConfig(NamedTuple):
    """What distinguishes one block of a network from the others.

    Attributes:
        inputs: channels of its input.
        expanded: channels inside; there is no expansion where they equal those of the input.
        channels: channels of its output.
        kernel: side of the depthwise kernel.
        stride: step of the depthwise kernel.
        squeezed: channels inside the squeeze-and-excitation; 0 leaves it out.
        activation: name of the activation after the expansion and after the depthwise convolution.
        drop_rate: share of the examples that skip the block while training.
        dilation: distance in pixels between neighbouring values of the depthwise kernel.
    """

    inputs: int
    expanded: int
    channels: int
    kernel: int
    stride: int
    squeezed: int
    activation: str
    drop_rate: float = 0.0
    dilation: int = 1


class _Strided(Protocol):
    """A block that says its stride."""

    @property
    def stride(self) -> int: ...


Strided = TypeVar('Strided', bound=_Strided)


def into_stages(blocks: Iterable[Strided]) -> list[list[Strided]]:
    """The blocks of each resolution: every strided block begins a stage."""
    stages: list[list[Strided]] = []
    for block in blocks:
        if block.stride > 1 or not stages:
            stages.append([])
        stages[-1].append(block)
    return stages


def strides_after(stride: int, stages: Iterable[Sequence[_Strided]]) -> tuple[int, ...]:
    """Input pixels per step of each stage's map, after a stem of this stride; 1 where there is none before them."""
    return tuple(stride := stride * blocks[0].stride for blocks in stages)


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, linear 1x1 projection; the input is added where the shape allows.

    Attributes:
        block: its channels, kernel, stride and activation.
        squeeze_activation: name of the activation inside the squeeze-and-excitation.
        gate: last activation of the squeeze-and-excitation.
        padding: that of the depthwise convolution, as ``Conv`` takes it.
        epsilon, momentum: as ``BatchNorm`` takes them.
        dtype: type of the computation.
    """

    block: BlockConfig
    squeeze_activation: str
    gate: Literal['sigmoid', 'hard_sigmoid'] = 'sigmoid'
    padding: Literal['same'] | None = None
    epsilon: float = 1e-5
    momentum: float = 0.9
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h2 w2 c2']:
        block, act = self.block, activation(self.block.activation)
        conv = partial(Conv, padding=self.padding, dtype=self.dtype)
        norm = partial(BatchNorm, self.epsilon, self.momentum, self.dtype)
        y = x
        if block.expanded != block.inputs:
            y = conv(block.expanded, 1, name='expand_conv')(y)
            y = act(norm(name='expand_norm')(y, train=train))
        depthwise = partial(conv, groups=block.expanded, dilation=block.dilation)
        y = depthwise(block.expanded, block.kernel, block.stride, name='depthwise_conv')(y)
        y = act(norm(name='depthwise_norm')(y, train=train))
        if block.squeezed:
            squeeze = partial(SqueezeExcitation, block.squeezed, self.squeeze_activation, self.gate, self.dtype)
            y = squeeze(name='squeeze_excitation')(y)
        y = conv(block.channels, 1, name='project_conv')(y)
        y = norm(name='project_norm')(y, train=train)
        if block.stride > 1 or block.inputs != block.channels:
            return y
        return x + StochasticDepth(block.drop_rate, name='stochastic_depth')(y, train=train)


class Stage(nn.Module):
    """The blocks of one resolution; ``layer`` builds the module of a block."""

    blocks: tuple[Any, ...]
    layer: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h2 w2 c2']:
        for number, block in enumerate(self.blocks, start=1):
            x = self.layer(block, name=f'block{number}')(x, train=train)
        return x
