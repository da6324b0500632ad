"""Attention inside mask units, or among all positions of a map, with queries that may be pooled."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.layers.attention import Dense, check_heads, dot_product_attention, merge_heads
from backbones.layers.pooling import max_pool


def into_windows(
    x: Float[Array, 'batch height width channels'], window: tuple[int, int]
) -> Float[Array, 'batch windows tokens channels']:
    """The positions of a map by windows of so many rows and columns, which divide the map."""
    batch, height, width, channels = x.shape
    rows, columns = window
    x = x.reshape(batch, height // rows, rows, width // columns, columns, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, -1, rows * columns, channels)


def from_windows(
    x: Float[Array, 'batch windows tokens channels'], window: tuple[int, int], grid: tuple[int, int]
) -> Float[Array, 'batch height width channels']:
    """The inverse of ``into_windows``, for a map of ``grid`` rows and columns."""
    (height, width), (rows, columns) = grid, window
    x = x.reshape(-1, height // rows, width // columns, rows, columns, x.shape[-1]).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, height, width, x.shape[-1])


class MaskUnitAttention(nn.Module):
    """Scaled dot-product attention with one packed projection, which may change the number of channels.

    Source: Ryali et al. 2023, "Hiera: A Hierarchical Vision Transformer without the Bells-and-Whistles", section 3.2.

    Attributes:
        features: output channels.
        heads: number of heads.
        unit: side of the windows in positions, before queries are pooled; ``None`` for attention among all positions.
        pool: whether each 2x2 neighbourhood of queries becomes its maximum, which halves the map.
        dtype: type of the computation; scores are float32.

    Raises:
        UserError: ``features`` do not divide into so many heads.
    """

    features: int
    heads: int
    unit: int | None = None
    pool: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'batch height width channels']) -> Float[Array, 'batch h2 w2 features']:
        check_heads(self.heads, self.features)
        query, key, value = jnp.split(Dense(3 * self.features, dtype=self.dtype, name='qkv')(x), 3, axis=-1)
        window = (x.shape[1], x.shape[2]) if self.unit is None else (self.unit, self.unit)
        pooled = window
        if self.pool:
            query, pooled = max_pool(query, 2, 2), (window[0] // 2, window[1] // 2)

        def split(part: Array, window: tuple[int, int]) -> Float[Array, 'batch windows heads tokens width']:
            tokens = into_windows(part, window)
            return jnp.moveaxis(tokens.reshape(*tokens.shape[:-1], self.heads, -1), -2, -3)

        mixed = merge_heads(dot_product_attention(split(query, pooled), split(key, window), split(value, window)))
        mixed = from_windows(mixed, pooled, (query.shape[1], query.shape[2]))
        return Dense(self.features, dtype=self.dtype, name='projection')(mixed)
