"""A linear classifier on a backbone's pooled features."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.features import Features
from backbones.layers.attention import Dense


class DistilledHead(Dense):
    """The mean of two linear heads: one on the class token, and ``distillation`` on the distillation token (DeiT)."""

    @nn.compact
    def __call__(self, x: Float[Array, 'batch 2 channels']) -> Float[Array, 'batch features']:
        distillation = Dense(self.features, self.kernel_init, self.dtype, name='distillation')
        return (super().__call__(x[:, 0]) + distillation(x[:, 1])) / 2


class ClassificationHead(nn.Module):
    """A linear head, ``kernel`` and ``bias``, for every family; only DeiT's distilled models have two.

    Attributes:
        num_classes: number of logits.
        dropout: share of the pooled features dropped while training.
        dtype: type of the computation; logits are float32.
        distilled: whether there are two heads, this one and ``distillation``, on the first two tokens.
    """

    num_classes: int
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32
    distilled: bool = False

    @nn.compact
    def __call__(
        self, features: Features, maps: None = None, size: tuple[int, int] | None = None, train: bool = False
    ) -> Float[Array, 'batch num_classes']:
        seen = features.tokens[:, :2] if self.distilled else features.pooled  # ty: ignore[not-subscriptable]
        # The random stream depends on a module's path: as a child of the model, it drops what it has always dropped.
        owner = self.parent if isinstance(self.parent, nn.Module) else self
        seen = nn.Dropout(self.dropout, name='Dropout_0', parent=owner)(seen, deterministic=not train)
        linear = (DistilledHead if self.distilled else Dense)(self.num_classes, nn.initializers.zeros, self.dtype)
        nn.share_scope(self, linear)
        return linear(seen).astype(jnp.float32)
