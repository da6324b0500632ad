"""What segmentation heads have in common, and the two plainest: a linear one and that of an FCN.

A head sees the backbone's ``Features`` and, where there is a neck, the neck's maps. Its logits are computed on a map
and brought to the size of the images by bilinear interpolation (``align_corners=False``).
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.errors import UserError
from backbones.features import Features
from backbones.layers.blocks import ConvNormActivation
from backbones.layers.convolution import Conv, torch_uniform
from backbones.layers.normalisation import BatchNorm
from backbones.layers.resizing import resize

Maps = dict[str, Float[Array, 'batch rows columns channels']] | None
Logits = Float[Array, 'batch height width classes']


def single_map(features: Features, maps: Maps) -> Float[Array, 'batch rows columns channels']:
    """The map that a head of one map sees: the neck's finest level or, without a neck, the backbone's last stage."""
    return list(features.stages.values())[-1] if maps is None else next(iter(maps.values()))


def full_size(logits: Float[Array, 'batch rows columns classes'], size: tuple[int, int] | None) -> Logits:
    """Float32 logits at the size of the images; as they are where no size is given."""
    logits = logits.astype(jnp.float32)
    return logits if size is None else resize(logits, size)


def check_pooled_batch(x: Array, train: bool, what: str) -> None:
    """Refuse to train on one image where a BatchNorm sees a single value per channel and image.

    Its variance would be zero, its output would not depend on the image, and its running statistics would be lost.

    Raises:
        UserError: a batch of one image in training.
    """
    if train and x.shape[0] == 1:
        raise UserError(
            f'{what} normalises one value per image and channel, so it cannot be trained on a batch of 1 image; take '
            "at least 2 images per micro-batch, or another head, such as 'fcn'"
        )


def fcn(
    x: Float[Array, 'batch rows columns channels'],
    num_classes: int,
    channels: int | None,
    dropout: float,
    dtype: jnp.dtype,
    train: bool,
) -> Float[Array, 'batch rows columns classes']:
    """The layers of an FCN's head, ``conv`` and ``classifier``, inside the module that calls it.

    ``channels`` is the width of the 3x3 convolution; ``None``: a quarter of the map's.
    """
    width = channels or max(x.shape[-1] // 4, 1)
    x = ConvNormActivation(width, 3, kernel_init=torch_uniform, dtype=dtype, name='conv')(x, train=train)
    x = nn.Dropout(dropout)(x, deterministic=not train)
    return Conv(num_classes, 1, use_bias=True, kernel_init=torch_uniform, dtype=dtype, name='classifier')(x)


class AuxiliaryHead(nn.Module):
    """An FCN's head on the stage before the last, which helps the shallow stages to train.

    It is computed only with ``train=True``; its float32 logits, at the size of the images, are sown as ``logits`` into
    the collection ``auxiliary_logits``. It sees the backbone's own map, also where there is a neck.
    """

    num_classes: int
    channels: int | None = None
    dropout: float = 0.1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, features: Features, size: tuple[int, int] | None, train: bool = False) -> None:
        if train or self.is_initializing():
            x = list(features.stages.values())[-2]
            logits = fcn(x, self.num_classes, self.channels, self.dropout, self.dtype, train)
            if not self.is_initializing():
                self.sow('auxiliary_logits', 'logits', full_size(logits, size))


class LinearSegmentationHead(nn.Module):
    """A BatchNorm and a linear classifier of every position: what DINOv2 and DINOv3 judge features by.

    It sees a transformer's patches after the final normalisation, the last map of any other backbone, or the finest
    level of a neck.

    Source: Oquab et al. 2023, "DINOv2", section 7.4; dinov3/eval/segmentation/models/heads/linear_head.py.

    Attributes:
        num_classes: number of logits of each pixel.
        dropout: share of the channels dropped (for all positions of an image) while training.
        dtype: type of the computation; logits are float32.
    """

    num_classes: int
    dropout: float = 0.1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, features: Features, maps: Maps = None, size: tuple[int, int] | None = None, train: bool = False
    ) -> Logits:
        x = single_map(features, maps)
        if maps is None and features.tokens is not None:
            # The patches are the last of the tokens.
            x = features.tokens[:, -x.shape[1] * x.shape[2] :].reshape(x.shape)
        x = nn.Dropout(self.dropout, broadcast_dims=(1, 2))(x, deterministic=not train)
        x = BatchNorm(dtype=self.dtype, name='norm')(x, train=train)
        init = nn.initializers.normal(0.01)
        logits = Conv(self.num_classes, 1, use_bias=True, kernel_init=init, dtype=self.dtype, name='classifier')(x)
        return full_size(logits, size)


class FCNHead(nn.Module):
    """A 3x3 convolution with BatchNorm and ReLU, dropout, and a 1x1 classifier, as torchvision's FCN has them.

    Source: Long et al. 2015, "Fully Convolutional Networks for Semantic Segmentation";
    torchvision/models/segmentation/fcn.py.

    Attributes:
        num_classes: number of logits of each pixel.
        channels: width of the convolution; ``None``: a quarter of what it sees.
        dropout: share of its values dropped while training.
        auxiliary: whether there is an ``AuxiliaryHead`` of the same kind.
        auxiliary_weight: share of the auxiliary head's loss in the total, for whoever computes it.
        dtype: type of the computation; logits are float32.
    """

    num_classes: int
    channels: int | None = None
    dropout: float = 0.1
    auxiliary: bool = True
    auxiliary_weight: float = 0.5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, features: Features, maps: Maps = None, size: tuple[int, int] | None = None, train: bool = False
    ) -> Logits:
        if self.auxiliary:
            head = AuxiliaryHead(self.num_classes, self.channels, self.dropout, self.dtype, name='auxiliary')
            head(features, size, train=train)
        x = single_map(features, maps)
        return full_size(fcn(x, self.num_classes, self.channels, self.dropout, self.dtype, train), size)
