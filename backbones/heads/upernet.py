"""The head of UPerNet: pyramid pooling of the coarsest map, and a feature pyramid whose levels are joined.

Source: Xiao et al. 2018, "Unified Perceptual Parsing for Scene Understanding"; transformers,
models/upernet/modeling_upernet.py, and mmsegmentation, mmseg/models/decode_heads/uper_head.py, which it follows.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.errors import UserError
from backbones.features import Features
from backbones.heads.segmentation import AuxiliaryHead, Logits, Maps, check_pooled_batch, full_size
from backbones.layers.blocks import ConvNormActivation
from backbones.layers.convolution import Conv
from backbones.layers.pooling import adaptive_average_pool
from backbones.layers.resizing import resize
from backbones.necks.levels import Level, gather

_normal = nn.initializers.normal(0.01)


class PyramidPooling(nn.Module):
    """A map beside its means over grids of several sizes, joined by a 3x3 convolution (Zhao et al. 2017, PSPNet).

    Attributes:
        channels: width of every branch and of the output.
        scales: rows and columns of each grid.
        dtype: type of the computation.
    """

    channels: int
    scales: tuple[int, ...] = (1, 2, 3, 6)
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h w channels']:
        conv = partial(ConvNormActivation, self.channels, dtype=self.dtype)
        branches = [x]
        for number, scale in enumerate(self.scales, start=1):
            pooled = adaptive_average_pool(x, scale)
            if scale == 1 and not self.is_initializing():
                check_pooled_batch(x, train, 'the pyramid pooling of UPerNet')
            branches.append(resize(conv(name=f'branch{number}')(pooled, train=train), x.shape[1:3]))
        return conv(3, name='project')(jnp.concatenate(branches, axis=-1), train=train)


class UPerNetHead(nn.Module):
    """A 1x1 convolution per level (the coarsest: pyramid pooling), added from coarse to fine, a 3x3 one per level but
    the coarsest, all levels joined at the finest by another, and a 1x1 classifier.

    Attributes:
        num_classes: number of logits of each pixel.
        levels: which stages are seen where there is no neck, see ``necks.levels``; of a neck, all levels are.
        channels: width of every convolution.
        scales: grids of the pyramid pooling.
        dropout: share of the joined map dropped while training.
        auxiliary: whether there is an ``AuxiliaryHead``.
        auxiliary_channels: width of its convolution.
        auxiliary_weight: share of the auxiliary head's loss in the total, for whoever computes it.
        dtype: type of the computation; logits are float32.

    Raises:
        UserError: neither levels nor a neck, or training on a batch of one image.
    """

    num_classes: int
    levels: tuple[Level, ...] = ()
    channels: int = 512
    scales: tuple[int, ...] = (1, 2, 3, 6)
    dropout: float = 0.1
    auxiliary: bool = True
    auxiliary_channels: int = 256
    auxiliary_weight: float = 0.4
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, features: Features, maps: Maps = None, size: tuple[int, int] | None = None, train: bool = False
    ) -> Logits:
        if maps is None and not self.levels:
            raise UserError('UPerNet needs levels=levels.choose(backbone, (4, 8, 16, 32)) or a neck')
        if self.auxiliary:
            head = AuxiliaryHead(self.num_classes, self.auxiliary_channels, dtype=self.dtype, name='auxiliary')
            head(features, size, train=train)
        conv = partial(ConvNormActivation, self.channels, dtype=self.dtype)
        *finer, (_, coarsest) = (gather(self.levels, features) if maps is None else maps).items()
        pool = PyramidPooling(self.channels, self.scales, self.dtype, name='pyramid_pooling')
        merged = pool(coarsest, train=train)
        outputs = [merged]
        for name, x in reversed(finer):
            lateral = conv(name=f'lateral{name[1:]}')(x, train=train)
            merged = lateral + resize(merged, lateral.shape[1:3])
            outputs.append(conv(3, name=f'output{name[1:]}')(merged, train=train))
        joined = [resize(each, outputs[-1].shape[1:3]) for each in reversed(outputs)]
        x = conv(3, name='project')(jnp.concatenate(joined, axis=-1), train=train)
        x = nn.Dropout(self.dropout)(x, deterministic=not train)
        classifier = Conv(self.num_classes, 1, use_bias=True, kernel_init=_normal, dtype=self.dtype, name='classifier')
        return full_size(classifier(x), size)
