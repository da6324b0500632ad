"""The head of DeepLabv3, as torchvision builds it.

Source: Chen et al. 2017, "Rethinking Atrous Convolution for Semantic Image Segmentation";
torchvision/models/segmentation/deeplabv3.py.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.errors import UserError
from backbones.features import Features
from backbones.heads.segmentation import AuxiliaryHead, Logits, Maps, check_pooled_batch, full_size, single_map
from backbones.layers.blocks import ConvNormActivation
from backbones.layers.convolution import Conv, torch_uniform
from backbones.layers.normalisation import BatchNorm
from backbones.layers.resizing import resize

_Convolution = partial(ConvNormActivation, kernel_init=torch_uniform)


class ImagePooling(nn.Module):
    """The mean of the map through a 1x1 convolution with BatchNorm and ReLU, at every position."""

    channels: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h w channels']:
        if not self.is_initializing():
            check_pooled_batch(x, train, 'the image pooling of DeepLabv3')
        mean = x.mean((1, 2), keepdims=True, dtype=jnp.float32).astype(self.dtype)
        y = Conv(self.channels, 1, kernel_init=torch_uniform, dtype=self.dtype, name='conv')(mean)
        y = nn.relu(BatchNorm(dtype=self.dtype, name='norm')(y, train=train))
        return resize(y, x.shape[1:3])


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: a 1x1 and dilated 3x3 convolutions beside the mean of the map, joined by a 1x1.

    Attributes:
        channels: width of every branch and of the output.
        rates: dilation of each of the 3x3 convolutions.
        dropout: share of the output dropped while training.
        dtype: type of the computation.

    Raises:
        UserError: a rate of less than 1, or training on a batch of one image.
    """

    channels: int = 256
    rates: tuple[int, ...] = (12, 24, 36)
    dropout: float = 0.5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h w channels']:
        if not all(rate >= 1 for rate in self.rates):
            raise UserError(f'the rates of an ASPP are dilations of at least 1, such as (12, 24, 36), not {self.rates}')
        conv = partial(_Convolution, self.channels, dtype=self.dtype)
        branches = [conv(name='branch1')(x, train=train)]
        for number, rate in enumerate(self.rates, start=2):
            branches.append(conv(3, dilation=rate, name=f'branch{number}')(x, train=train))
        branches.append(ImagePooling(self.channels, self.dtype, name='pooling')(x, train=train))
        x = conv(name='project')(jnp.concatenate(branches, axis=-1), train=train)
        return nn.Dropout(self.dropout)(x, deterministic=not train)


class DeepLabV3Head(nn.Module):
    """ASPP, a 3x3 convolution with BatchNorm and ReLU, and a 1x1 classifier.

    Attributes:
        num_classes: number of logits of each pixel.
        channels: width of the ASPP and of the convolution.
        rates: dilations of the ASPP; torchvision has these whatever the output stride.
        dropout: share of the ASPP's output dropped while training.
        auxiliary: whether there is an ``AuxiliaryHead``.
        auxiliary_channels: width of its convolution; ``None``: a quarter of what it sees.
        auxiliary_weight: share of the auxiliary head's loss in the total, for whoever computes it.
        dtype: type of the computation; logits are float32.

    Raises:
        UserError: a rate of less than 1, or training on a batch of one image.
    """

    num_classes: int
    channels: int = 256
    rates: tuple[int, ...] = (12, 24, 36)
    dropout: float = 0.5
    auxiliary: bool = True
    auxiliary_channels: int | None = None
    auxiliary_weight: float = 0.5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, features: Features, maps: Maps = None, size: tuple[int, int] | None = None, train: bool = False
    ) -> Logits:
        if self.auxiliary:
            head = AuxiliaryHead(self.num_classes, self.auxiliary_channels, dtype=self.dtype, name='auxiliary')
            head(features, size, train=train)
        x = single_map(features, maps)
        x = ASPP(self.channels, self.rates, self.dropout, self.dtype, name='aspp')(x, train=train)
        x = _Convolution(self.channels, 3, dtype=self.dtype, name='conv')(x, train=train)
        classifier = partial(Conv, use_bias=True, kernel_init=torch_uniform, dtype=self.dtype, name='classifier')
        return full_size(classifier(self.num_classes, 1)(x), size)
