"""GoogLeNet (Inception v1) with BatchNorm, as torchvision builds it.

Source: Szegedy et al. 2015, "Going Deeper with Convolutions"; torchvision/models/googlenet.py.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.errors import UserError, check_image_size
from backbones.features import Features
from backbones.layers.activations import activation
from backbones.layers.attention import Dense
from backbones.layers.blocks import ConvNormActivation
from backbones.layers.pooling import adaptive_average_pool, global_average_pool, max_pool

# Torchvision's is truncated, but only at 200 standard deviations.
_init = nn.initializers.normal(0.01)
_Convolution = partial(ConvNormActivation, kernel_init=_init)


class Inception(nn.Module):
    """Four branches side by side: a 1x1 convolution, two reductions with a 3x3 each, and a max-pool with a projection.

    The third branch is 5x5 in the paper, but 3x3 in torchvision and hence in the published weights.

    Attributes:
        channels: output channels of each branch.
        reduced: channels that the second and the third branch are reduced to.
        activation, epsilon: those of every convolution and its BatchNorm.
        dtype: type of the computation.
    """

    channels: tuple[int, int, int, int]
    reduced: tuple[int, int]
    activation: str = 'relu'
    epsilon: float = 1e-3
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h w c2']:
        conv = partial(_Convolution, activation=self.activation, epsilon=self.epsilon, dtype=self.dtype)
        reduced2 = conv(self.reduced[0], name='branch2_reduce')(x, train=train)
        reduced3 = conv(self.reduced[1], name='branch3_reduce')(x, train=train)
        pooled = max_pool(x, window=3, stride=1, padding=1)
        branches = [
            conv(self.channels[0], name='branch1')(x, train=train),
            conv(self.channels[1], 3, name='branch2')(reduced2, train=train),
            conv(self.channels[2], 3, name='branch3')(reduced3, train=train),
            conv(self.channels[3], name='branch4')(pooled, train=train),
        ]
        return jnp.concatenate(branches, axis=-1)


# Per stage: the window of the max-pool before it, the kind of its blocks, and the arguments of each block (channels,
# kernel size and stride of a convolution; channels and reduced channels of an inception).
_STAGES: tuple[tuple[int | None, Callable[..., nn.Module], tuple[tuple, ...]], ...] = (
    (None, _Convolution, ((64, 7, 2),)),
    (3, _Convolution, ((64, 1), (192, 3))),
    (3, Inception, (((64, 128, 32, 32), (96, 16)), ((128, 192, 96, 64), (128, 32)))),
    (
        3,
        Inception,
        (
            ((192, 208, 48, 64), (96, 16)),
            ((160, 224, 64, 64), (112, 24)),
            ((128, 256, 64, 64), (128, 24)),
            ((112, 288, 64, 64), (144, 32)),
            ((256, 320, 128, 128), (160, 32)),
        ),
    ),
    (2, Inception, (((256, 320, 128, 128), (160, 32)), ((384, 384, 128, 128), (192, 48)))),
)


class Stage(nn.Module):
    """The max-pool and the blocks of one row of ``_STAGES``; returns the output of each block."""

    index: int
    activation: str = 'relu'
    epsilon: float = 1e-3
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> list[Float[Array, 'b h2 w2 _']]:
        window, kind, blocks = _STAGES[self.index]
        if window:
            x = max_pool(x, window, stride=2, ceil=True)
        outputs = []
        for number, arguments in enumerate(blocks, start=1):
            block = kind(
                *arguments,
                activation=self.activation,
                epsilon=self.epsilon,
                dtype=self.dtype,
                name=f'block{number}',
            )
            x = block(x, train=train)
            outputs.append(x)
        return outputs


class AuxiliaryHead(nn.Module):
    """A classifier on a map inside the network: average pool to 4x4, 1x1 convolution, two fully connected layers.

    With ``train=True`` its float32 logits are sown as ``logits`` into the collection ``auxiliary_logits``.
    """

    num_classes: int
    dropout: float = 0.7
    activation: str = 'relu'
    epsilon: float = 1e-3
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> None:
        conv = _Convolution(128, activation=self.activation, epsilon=self.epsilon, dtype=self.dtype, name='conv')
        x = conv(adaptive_average_pool(x, 4), train=train)
        x = Dense(1024, _init, self.dtype, name='dense1')(x.reshape(x.shape[0], -1))
        x = nn.Dropout(self.dropout, deterministic=not train)(activation(self.activation)(x))
        logits = Dense(self.num_classes, _init, self.dtype, name='dense2')(x)
        if train and not self.is_initializing():
            self.sow('auxiliary_logits', 'logits', logits.astype(jnp.float32))


class GoogLeNet(nn.Module):
    """Five stages (strides 2 to 32): torchvision's ``conv1``, ``conv3``, ``inception3b``, ``inception4e`` and
    ``inception5b``, each before the max-pool that follows.

    The published weights expect images normalised with a mean and a standard deviation of 0.5 (torchvision's
    ``transform_input``). Their auxiliary heads are untrained.

    Attributes:
        auxiliary_classes: number of classes of the two auxiliary heads, which help the shallow stages to train; they
            see the first and the fourth block of ``stage4`` and are computed only with ``train=True``, when their
            logits are sown into the collection ``auxiliary_logits``; 0 for no such heads.
        auxiliary_dropout: share of their hidden features dropped while training.
        activation, epsilon: those of every convolution and its BatchNorm.
        dtype: type of the computation.

    Raises:
        UserError: an image side of less than 15 pixels, or a negative number of classes.
    """

    auxiliary_classes: int = 0
    auxiliary_dropout: float = 0.7
    activation: str = 'relu'
    epsilon: float = 1e-3
    dtype: jnp.dtype = jnp.float32

    def stage_channels(self) -> tuple[int, ...]:
        """Channels of each stage's output."""
        return (64, 192, 480, 832, 1024)

    def stage_strides(self) -> tuple[int, ...]:
        """Input pixels per step of each stage's map."""
        return (2, 4, 8, 16, 32)

    def pooled_channels(self) -> int:
        """Channels of ``Features.pooled``."""
        return self.stage_channels()[-1]

    @nn.compact
    def __call__(self, images: Float[Array, 'batch height width channels'], train: bool = False) -> Features:
        check_image_size(images.shape, 15)
        if self.auxiliary_classes < 0:
            raise UserError(
                'auxiliary_classes must be the number of classes, or 0 for no auxiliary heads, '
                f'not {self.auxiliary_classes}'
            )
        x, outputs = images, {}
        for index in range(len(_STAGES)):
            name = f'stage{index + 1}'
            outputs[name] = Stage(index, self.activation, self.epsilon, self.dtype, name=name)(x, train=train)
            x = outputs[name][-1]
        if self.auxiliary_classes and (train or self.is_initializing()):
            for name, block in (('auxiliary1', 0), ('auxiliary2', 3)):
                head = AuxiliaryHead(
                    self.auxiliary_classes,
                    self.auxiliary_dropout,
                    self.activation,
                    self.epsilon,
                    self.dtype,
                    name=name,
                )
                head(outputs['stage4'][block], train=train)
        return Features(stages={name: blocks[-1] for name, blocks in outputs.items()}, pooled=global_average_pool(x))
