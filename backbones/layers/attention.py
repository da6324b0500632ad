"""Multi-head self-attention and the transformer's feed-forward block."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

truncated_normal = nn.initializers.truncated_normal(0.02)


class Dense(nn.Module):
    """Affine map of the last axis, float32 parameters."""

    features: int
    kernel_init: nn.initializers.Initializer = truncated_normal
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, '*batch channels']) -> Float[Array, '*batch features']:
        kernel = self.param('kernel', self.kernel_init, (x.shape[-1], self.features), jnp.float32)
        bias = self.param('bias', nn.initializers.zeros, (self.features,), jnp.float32)
        return jnp.dot(x.astype(self.dtype), kernel.astype(self.dtype)) + bias.astype(self.dtype)


def dot_product_attention(
    query: Float[Array, 'batch heads tokens width'],
    key: Float[Array, 'batch heads tokens width'],
    value: Float[Array, 'batch heads tokens value_width'],
) -> Float[Array, 'batch heads tokens value_width']:
    """Values mixed by the softmax of the scaled products of queries and keys; the softmax is float32.

    Heads come before tokens: both products are then plain batched matrix products, the fastest layout on the CPU.
    """
    scores = jnp.einsum('bhqd,bhkd->bhqk', query * query.shape[-1] ** -0.5, key)
    weights = jax.nn.softmax(scores.astype(jnp.float32)).astype(value.dtype)
    return jnp.einsum('bhqk,bhkd->bhqd', weights, value)


class SelfAttention(nn.Module):
    """Scaled dot-product attention; one packed, biased projection for queries, keys and values, as in timm."""

    heads: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'batch tokens channels']) -> Float[Array, 'batch tokens channels']:
        batch, tokens, channels = x.shape
        width = channels // self.heads
        packed = Dense(3 * channels, dtype=self.dtype, name='qkv')(x)
        query, key, value = packed.reshape(batch, tokens, 3, self.heads, width).transpose(2, 0, 3, 1, 4)
        mixed = dot_product_attention(query, key, value).transpose(0, 2, 1, 3).reshape(batch, tokens, channels)
        return Dense(channels, dtype=self.dtype, name='projection')(mixed)


class FeedForward(nn.Module):
    """Two dense layers with the exact (erf) GELU between them."""

    hidden: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'batch tokens channels']) -> Float[Array, 'batch tokens channels']:
        y = Dense(self.hidden, dtype=self.dtype, name='dense1')(x)
        return Dense(x.shape[-1], dtype=self.dtype, name='dense2')(jax.nn.gelu(y, approximate=False))
