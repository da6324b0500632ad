"""Multi-head attention, pooling by attention, and the transformer's feed-forward block."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.layers.activations import activation
from backbones.layers.normalisation import LayerNorm

truncated_normal = nn.initializers.truncated_normal(0.02)


class Dense(nn.Module):
    """Affine map of the last axis, float32 parameters."""

    features: int
    kernel_init: nn.initializers.Initializer = truncated_normal
    dtype: jnp.dtype = jnp.float32
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, '*batch channels']) -> Float[Array, '*batch features']:
        kernel = self.param('kernel', self.kernel_init, (x.shape[-1], self.features), jnp.float32)
        y = jnp.dot(x.astype(self.dtype), kernel.astype(self.dtype))
        if self.use_bias:
            y += self.param('bias', nn.initializers.zeros, (self.features,), jnp.float32).astype(self.dtype)
        return y


def dot_product_attention(
    query: Float[Array, 'batch heads queries width'],
    key: Float[Array, 'batch heads tokens width'],
    value: Float[Array, 'batch heads tokens value_width'],
) -> Float[Array, 'batch heads queries value_width']:
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
    """Two dense layers with an activation between them, by default the exact (erf) GELU."""

    hidden: int
    dtype: jnp.dtype = jnp.float32
    activation: str = 'gelu'

    @nn.compact
    def __call__(self, x: Float[Array, 'batch tokens channels']) -> Float[Array, 'batch tokens channels']:
        y = activation(self.activation)(Dense(self.hidden, dtype=self.dtype, name='dense1')(x))
        return Dense(x.shape[-1], dtype=self.dtype, name='dense2')(y)


class QueryKeyValue(nn.Module):
    """Packed, biased projection of two sequences: the queries of one, the keys and values of the other."""

    heads: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, queries: Float[Array, 'batch queries channels'], tokens: Float[Array, 'batch tokens channels']
    ) -> list[Float[Array, 'batch heads length width']]:
        batch, _, channels = tokens.shape
        kernel = self.param('kernel', truncated_normal, (channels, 3 * channels), jnp.float32)
        bias = self.param('bias', nn.initializers.zeros, (3 * channels,), jnp.float32)
        parts = zip(jnp.split(kernel, 3, axis=1), jnp.split(bias, 3), strict=True)
        projected = []
        for sequence, (weight, offset) in zip((queries, tokens, tokens), parts, strict=True):
            y = jnp.dot(sequence.astype(self.dtype), weight.astype(self.dtype)) + offset.astype(self.dtype)
            projected.append(y.reshape(batch, -1, self.heads, channels // self.heads).transpose(0, 2, 1, 3))
        return projected


class AttentionPooling(nn.Module):
    """All tokens as one: a learned query attends to them, and a residual feed-forward block follows.

    Source: ``MAPHead`` of google-research/big_vision ``models/vit.py``, after Lee et al. 2019, "Set Transformer".
    """

    heads: int
    epsilon: float = 1e-6
    activation: str = 'gelu'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, tokens: Float[Array, 'batch tokens channels']) -> Float[Array, 'batch channels']:
        batch, _, channels = tokens.shape
        initialiser = nn.initializers.truncated_normal(channels**-0.5)
        probe = self.param('probe', initialiser, (1, 1, channels), jnp.float32)
        probe = jnp.broadcast_to(probe, (batch, 1, channels))
        mixed = dot_product_attention(*QueryKeyValue(self.heads, self.dtype, name='qkv')(probe, tokens))
        x = Dense(channels, dtype=self.dtype, name='projection')(mixed.reshape(batch, 1, channels))
        y = LayerNorm(self.epsilon, self.dtype, name='norm')(x)
        return (x + FeedForward(4 * channels, self.dtype, self.activation, name='mlp')(y))[:, 0]
