"""VGG, with or without BatchNorm, as torchvision builds it.

Source: Simonyan and Zisserman 2015, "Very Deep Convolutional Networks for Large-Scale Image Recognition";
torchvision/models/vgg.py; the stages are those of timm/models/vgg.py.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.errors import check_image_size
from backbones.features import Features
from backbones.layers.activations import activation
from backbones.layers.attention import Dense
from backbones.layers.convolution import Conv
from backbones.layers.normalisation import BatchNorm
from backbones.layers.pooling import adaptive_average_pool, max_pool

_CHANNELS = (64, 128, 256, 512, 512)


class Stage(nn.Module):
    """3x3 convolutions at one resolution, with a bias even where a BatchNorm follows."""

    depth: int
    channels: int
    batch_norm: bool
    activation: str = 'relu'
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h w channels']:
        for index in range(1, self.depth + 1):
            x = Conv(self.channels, 3, use_bias=True, dtype=self.dtype, name=f'conv{index}')(x)
            if self.batch_norm:
                x = BatchNorm(self.epsilon, dtype=self.dtype, name=f'norm{index}')(x, train=train)
            x = activation(self.activation)(x)
        return x


class PreLogits(nn.Module):
    """The two hidden fully connected layers, with dropout between them."""

    channels: int
    activation: str = 'relu'
    dropout: float = 0.5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b channels']:
        init = nn.initializers.normal(0.01)
        x = x.reshape(x.shape[0], -1)
        x = activation(self.activation)(Dense(self.channels, init, self.dtype, name='dense1')(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return activation(self.activation)(Dense(self.channels, init, self.dtype, name='dense2')(x))


class VGG(nn.Module):
    """Six stages, as timm's ``features_only`` gives them: the maps before each of the five max-pools (strides 1 to 16)
    and what the last pool makes of them (stride 32, without parameters).

    ``pooled`` is what the last linear layer sees: the last stage averaged to 7x7 bins, after the hidden fully
    connected layers. Where the last stage is larger than 7x7, timm's network differs: it slides the first of these
    layers over the map and averages the results.

    Attributes:
        depths: convolutions per stage.
        batch_norm: whether a BatchNorm follows each convolution.
        hidden_channels: channels of each of the two hidden fully connected layers.
        hidden_dropout: share dropped between them while training.
        activation: name of the activation after each convolution and each hidden layer.
        epsilon: constant that every BatchNorm adds to the variance.
        dtype: type of the computation.

    Raises:
        UserError: an image side of less than 32 pixels.
    """

    depths: tuple[int, ...]
    batch_norm: bool = False
    hidden_channels: int = 4096
    hidden_dropout: float = 0.5
    activation: str = 'relu'
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    def stage_channels(self) -> tuple[int, ...]:
        """Channels of each stage's output."""
        return (*_CHANNELS, _CHANNELS[-1])

    def stage_strides(self) -> tuple[int, ...]:
        """Input pixels per step of each stage's map."""
        return (1, 2, 4, 8, 16, 32)

    def pooled_channels(self) -> int:
        """Channels of ``Features.pooled``."""
        return self.hidden_channels

    @nn.compact
    def __call__(self, images: Float[Array, 'batch height width channels'], train: bool = False) -> Features:
        check_image_size(images.shape, 32)
        x, stages = images, {}
        for index, (depth, channels) in enumerate(zip(self.depths, _CHANNELS, strict=True), start=1):
            name = f'stage{index}'
            stage = Stage(depth, channels, self.batch_norm, self.activation, self.epsilon, self.dtype, name=name)
            stages[name] = stage(x, train=train)
            x = max_pool(stages[name], window=2, stride=2)
        stages['stage6'] = x
        hidden = PreLogits(self.hidden_channels, self.activation, self.hidden_dropout, self.dtype, name='pre_logits')
        return Features(stages=stages, pooled=hidden(adaptive_average_pool(x, 7), train=train))
