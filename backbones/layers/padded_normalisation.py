"""Batch normalisation of a padded batch: examples that are not there do not count in its statistics.

It is a module of its own because features are stored under a hash of the code of ``normalisation``, which this does not
change.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from backbones.layers.normalisation import BatchNorm


class PaddedBatchNorm(BatchNorm):
    """``BatchNorm`` over the examples that are there, with the same parameters and statistics."""

    @nn.compact
    def __call__(
        self,
        x: Float[Array, 'examples *shape channels'],
        train: bool = False,
        there: Bool[Array, 'examples'] | None = None,
    ) -> Float[Array, 'examples *shape channels']:
        """Normalise all examples, by the statistics of those that are there; ``None``: all."""
        there = jnp.ones(len(x), bool) if there is None else there
        channels = x.shape[-1:]
        scale = self.param('scale', self.scale_init, channels, jnp.float32)
        bias = self.param('bias', nn.initializers.zeros, channels, jnp.float32)
        running_mean = self.variable('batch_stats', 'mean', jnp.zeros, channels, jnp.float32)
        running_variance = self.variable('batch_stats', 'var', jnp.ones, channels, jnp.float32)
        mean, variance = running_mean.value, running_variance.value
        if train:
            axes = tuple(range(x.ndim - 1))
            values = x.astype(jnp.float32)
            counted = there.reshape(-1, *[1] * (x.ndim - 1))
            count = jnp.maximum(there.sum() * (x.size // len(x) // x.shape[-1]), 1)
            mean = (values * counted).sum(axes) / count
            variance = (jnp.square(values - mean) * counted).sum(axes) / count
            if not self.is_initializing():
                unbiased = variance * (count / jnp.maximum(count - 1, 1))
                running_mean.value = self.momentum * running_mean.value + (1 - self.momentum) * mean
                running_variance.value = self.momentum * running_variance.value + (1 - self.momentum) * unbiased
        factor = scale * jax.lax.rsqrt(variance + self.epsilon)
        return (x.astype(jnp.float32) * factor + (bias - mean * factor)).astype(self.dtype)
