"""A backbone with a linear classifier on its pooled features."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.layers.attention import Dense


class Classifier(nn.Module):
    """``params`` are ``{'backbone': …, 'head': …}``; the head is the same for every family.

    Attributes:
        backbone: any module that returns ``Features``.
        num_classes: number of logits.
        dropout: share of the pooled features dropped while training.
        dtype: type of the computation; logits are float32.
    """

    backbone: nn.Module
    num_classes: int
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, 'batch height width channels'], train: bool = False
    ) -> Float[Array, 'batch num_classes']:
        pooled = self.backbone(images, train=train).pooled
        pooled = nn.Dropout(self.dropout, deterministic=not train)(pooled)
        logits = Dense(self.num_classes, nn.initializers.zeros, self.dtype, name='head')(pooled)
        return logits.astype(jnp.float32)
