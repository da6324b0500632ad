"""Normalisation with the conventions of the reference implementations spelled out.

``momentum`` is the share of the *old* running value that is kept (1 - torch's ``momentum``), and every epsilon is
explicit: flax's defaults differ from torch's everywhere.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, as torch computes it.

    Training normalises with the batch's biased variance and tracks the *unbiased* one, which flax's own module does
    not. Statistics are float32 whatever the type of the computation. With ``train=False`` the running statistics are
    used and kept; a frozen layer is run that way (see ``backbones.freezing``).
    """

    epsilon: float = 1e-5
    momentum: float = 0.9
    dtype: jnp.dtype = jnp.float32
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Float[Array, '*batch channels'], train: bool = False) -> Float[Array, '*batch channels']:
        channels = x.shape[-1:]
        scale = self.param('scale', self.scale_init, channels, jnp.float32)
        bias = self.param('bias', nn.initializers.zeros, channels, jnp.float32)
        running_mean = self.variable('batch_stats', 'mean', jnp.zeros, channels, jnp.float32)
        running_variance = self.variable('batch_stats', 'var', jnp.ones, channels, jnp.float32)
        if train:
            y, mean, variance = _over_batch(x.astype(jnp.float32), scale, bias, self.epsilon)
            if not self.is_initializing():
                count = x.size // x.shape[-1]
                unbiased = variance * (count / max(count - 1, 1))
                # Kept only where the caller makes the collection mutable (calibration of untrained networks).
                self.sow('batch_moments', 'mean', mean)
                self.sow('batch_moments', 'var', unbiased)
                running_mean.value = self.momentum * running_mean.value + (1 - self.momentum) * mean
                running_variance.value = self.momentum * running_variance.value + (1 - self.momentum) * unbiased
            return y.astype(self.dtype)
        mean, variance = running_mean.value, running_variance.value
        # One multiply-add per value: the per-channel factors are folded first. It is done in float32 and rounded once;
        # in bfloat16 the two terms would cancel to a wrong mean wherever a channel's mean exceeds its deviation.
        factor = scale * jax.lax.rsqrt(variance + self.epsilon)
        return (x.astype(jnp.float32) * factor + (bias - mean * factor)).astype(self.dtype)


@jax.custom_jvp
def _over_batch(
    x: Float[Array, '*batch channels'],
    scale: Float[Array, ' channels'],
    bias: Float[Array, ' channels'],
    epsilon: float,
) -> tuple[Float[Array, '*batch channels'], Float[Array, ' channels'], Float[Array, ' channels']]:
    """Each channel with zero mean and unit variance, then ``scale`` and ``bias``; the mean and the variance."""
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes)
    variance = jnp.square(x - mean).mean(axes)
    return (x - mean) * (scale * jax.lax.rsqrt(variance + epsilon)) + bias, mean, variance


@_over_batch.defjvp
def _over_batch_derivative(primals: tuple, tangents: tuple) -> tuple:
    """Written so that its transpose passes over the maps twice: for two sums per channel, and for the gradient."""
    x, scale, _, epsilon = primals
    of_x, of_scale, of_bias, _ = tangents
    y, mean, variance = _over_batch(*primals)
    axes = tuple(range(x.ndim - 1))
    root = jax.lax.rsqrt(variance + epsilon)
    of_mean = of_x.mean(axes)
    covariance = (x * of_x).mean(axes) - mean * of_mean
    slope = root * (of_scale - scale * root * root * covariance)
    factor = scale * root
    of_y = factor * of_x + slope * x + (of_bias - factor * of_mean - slope * mean)
    return (y, mean, variance), (of_y, of_mean, 2 * covariance)


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis, with statistics in float32."""

    epsilon: float = 1e-6
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, '*batch channels']) -> Float[Array, '*batch channels']:
        scale = self.param('scale', nn.initializers.ones, x.shape[-1:], jnp.float32)
        bias = self.param('bias', nn.initializers.zeros, x.shape[-1:], jnp.float32)
        return layer_norm(x.astype(jnp.float32), scale, bias, self.epsilon).astype(self.dtype)


# Compiled as a function of its own name, by which an exporter knows it.
@jax.jit
def layer_norm(
    x: Float[Array, '*batch channels'],
    scale: Float[Array, ' channels'],
    bias: Float[Array, ' channels'],
    epsilon: float,
) -> Float[Array, '*batch channels']:
    """Zero mean and unit variance over the last axis, then ``scale`` and ``bias``."""
    return _over_channels(x, scale, bias, epsilon)


@jax.custom_jvp
def _over_channels(x: Array, scale: Array, bias: Array, epsilon: float) -> Array:
    mean = x.mean(-1, keepdims=True)
    variance = jnp.square(x - mean).mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + epsilon) * scale + bias


@_over_channels.defjvp
def _over_channels_derivative(primals: tuple, tangents: tuple) -> tuple:
    """Of what it needs, only ``x`` is as large as ``x``: differentiation would keep three more."""
    x, scale, _, epsilon = primals
    of_x, of_scale, of_bias, _ = tangents
    centred = x - x.mean(-1, keepdims=True)
    root = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + epsilon)
    normalised = centred * root
    along = of_x - of_x.mean(-1, keepdims=True) - normalised * (normalised * of_x).mean(-1, keepdims=True)
    return _over_channels(*primals), root * along * scale + normalised * of_scale + of_bias


class GlobalResponseNorm(nn.Module):
    """Channels weighted by their norm over a map, as a share of the mean norm of all channels; added to the input.

    Source: Woo et al. 2023, "ConvNeXt V2"; facebookresearch/ConvNeXt-V2, models/utils.py, GRN.

    Attributes:
        epsilon: added to the mean norm.
        dtype: type of the result; norms are computed in float32.
    """

    epsilon: float = 1e-6
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'batch height width channels']) -> Float[Array, 'batch height width channels']:
        scale = self.param('scale', nn.initializers.zeros, x.shape[-1:], jnp.float32)
        bias = self.param('bias', nn.initializers.zeros, x.shape[-1:], jnp.float32)
        values = x.astype(jnp.float32)
        total = jnp.square(values).sum((1, 2), keepdims=True)
        # The root has no gradient at zero, where torch takes zero: a channel that is zero on the whole map.
        norm = jnp.where(total > 0, jnp.sqrt(jnp.where(total > 0, total, 1)), 0)
        share = norm / (norm.mean(-1, keepdims=True) + self.epsilon)
        return (values + bias + scale * (values * share)).astype(self.dtype)


class GroupNorm(nn.Module):
    """Group normalisation over the positions of an image and the channels of a group, with statistics in float32.

    Source: Wu and He 2018, "Group Normalization".

    Attributes:
        groups: number of groups. Where the channels are no multiple of it, there are fewer: the most that divide the
            channels into groups of at least four.
        epsilon: added to the variance.
        dtype: type of the computation.
    """

    groups: int = 32
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'batch height width channels']) -> Float[Array, 'batch height width channels']:
        channels = x.shape[-1]
        groups = self.groups
        if channels % groups:
            most = max(min(groups, channels // 4), 1)
            groups = next(number for number in range(most, 0, -1) if channels % number == 0)
        scale = self.param('scale', nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param('bias', nn.initializers.zeros, (channels,), jnp.float32)
        values = x.astype(jnp.float32).reshape(*x.shape[:-1], groups, channels // groups)
        mean = values.mean((1, 2, 4), keepdims=True)
        variance = jnp.square(values - mean).mean((1, 2, 4), keepdims=True)
        normalised = ((values - mean) * jax.lax.rsqrt(variance + self.epsilon)).reshape(x.shape)
        return (normalised * scale + bias).astype(self.dtype)
