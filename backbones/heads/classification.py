"""A backbone with a linear classifier on its pooled features."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.layers.attention import Dense


class DistilledHead(Dense):
    """The mean of two linear heads: one on the class token, and ``distillation`` on the distillation token (DeiT)."""

    @nn.compact
    def __call__(self, x: Float[Array, 'batch 2 channels']) -> Float[Array, 'batch features']:
        distillation = Dense(self.features, self.kernel_init, self.dtype, name='distillation')
        return (super().__call__(x[:, 0]) + distillation(x[:, 1])) / 2


class Classifier(nn.Module):
    """``params`` are ``{'backbone': …, 'head': …}``; the head is the same for every family but DeiT's distilled one.

    Attributes:
        backbone: any module that returns ``Features``.
        num_classes: number of logits.
        dropout: share of the pooled features dropped while training.
        dtype: type of the computation; logits are float32.
        distilled: whether there are two heads, ``head`` and ``head/distillation``, on the first two tokens.
    """

    backbone: nn.Module
    num_classes: int
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32
    distilled: bool = False

    @nn.compact
    def __call__(
        self, images: Float[Array, 'batch height width channels'], train: bool = False
    ) -> Float[Array, 'batch num_classes']:
        features = self.backbone(images, train=train)
        seen = features.tokens[:, :2] if self.distilled else features.pooled
        seen = nn.Dropout(self.dropout, deterministic=not train)(seen)
        head = DistilledHead if self.distilled else Dense
        logits = head(self.num_classes, nn.initializers.zeros, self.dtype, name='head')(seen)
        return logits.astype(jnp.float32)
