"""Layers on residual branches: stochastic depth and LayerScale."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class StochasticDepth(nn.Module):
    """Drops the residual branch of whole examples with probability ``rate`` and scales up the rest (Huang 2016).

    It has no parameters; the random bits come from the ``'dropout'`` stream.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, 'batch ...'], train: bool = False) -> Float[Array, 'batch ...']:
        if not train or self.rate == 0:
            return x
        kept = jax.random.bernoulli(self.make_rng('dropout'), 1 - self.rate, (x.shape[0],) + (1,) * (x.ndim - 1))
        return jnp.where(kept, x / (1 - self.rate), 0).astype(x.dtype)


def stochastic_depth_rates(last: float, depths: Sequence[int]) -> list[tuple[float, ...]]:
    """Rates per stage and block that grow linearly over all blocks, from 0 at the first to ``last`` at the last."""
    steps = max(sum(depths) - 1, 1)
    starts = [sum(depths[:stage]) for stage in range(len(depths))]
    return [
        tuple(last * block / steps for block in range(start, start + depth))
        for start, depth in zip(starts, depths, strict=True)
    ]


class LayerScale(nn.Module):
    """One learned factor per channel on a residual branch (Touvron et al. 2021)."""

    initial: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, '*batch channels']) -> Float[Array, '*batch channels']:
        scale = self.param('scale', nn.initializers.constant(self.initial), x.shape[-1:], jnp.float32)
        return x * scale.astype(self.dtype)
