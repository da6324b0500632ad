"""Attention among the positions of a map whose heads share one projection for keys and one for values."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.layers.attention import dot_product_attention
from backbones.layers.convolution import Conv
from backbones.layers.normalisation import BatchNorm

_xavier_uniform = nn.initializers.xavier_uniform()


class MultiQueryAttention(nn.Module):
    """Every head has its own queries; keys and values are common to all, and may be those of a coarser map.

    Sources: Shazeer 2019, "Fast Transformer Decoding: One Write-Head is All You Need"; Qin et al. 2024, "MobileNetV4",
    section 4; timm/layers/attention2d.py, ``MultiQueryAttention2d``.

    Attributes:
        heads: number of heads.
        head_channels: channels of a head.
        reduction: by how much the map of the keys and values is coarser than that of the queries; 1 for the same map.
        dilation: of the 3x3 kernels that make it coarser.
        epsilon, momentum: as ``BatchNorm`` takes them.
        dtype: type of the computation; scores are float32.
    """

    heads: int
    head_channels: int
    reduction: int = 1
    dilation: int = 1
    epsilon: float = 1e-5
    momentum: float = 0.9
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h w c']:
        batch, rows, columns, channels = x.shape
        conv = partial(Conv, kernel_init=_xavier_uniform, dtype=self.dtype)

        def projected(name: str) -> Float[Array, 'b tokens d']:
            y = x
            if self.reduction > 1:
                coarser = partial(conv, channels, 3, self.reduction, groups=channels, dilation=self.dilation)
                norm = BatchNorm(self.epsilon, self.momentum, self.dtype, name=f'{name}_norm')
                y = norm(coarser(name=f'{name}_conv')(x), train=train)
            return conv(self.head_channels, 1, name=name)(y).reshape(batch, -1, self.head_channels)

        # As all heads see the same keys, each head of a position is just one more query.
        query = conv(self.heads * self.head_channels, 1, name='query')(x)
        mixed = dot_product_attention(
            query.reshape(batch, -1, self.head_channels), projected('key'), projected('value')
        )
        return conv(channels, 1, name='projection')(mixed.reshape(batch, rows, columns, -1))
