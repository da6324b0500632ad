"""Combinations of layers that several families share."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.layers.activations import activation
from backbones.layers.convolution import Conv, kaiming_normal
from backbones.layers.normalisation import BatchNorm


class ConvNormActivation(nn.Module):
    """A convolution (by default without a bias), a BatchNorm and an activation: parameters ``conv`` and ``norm``.

    The fields are those of ``Conv`` and ``BatchNorm``; ``activation`` is a name of ``layers.activations``.
    """

    features: int
    kernel_size: int = 1
    stride: int = 1
    padding: int | Literal['same'] | None = None
    groups: int = 1
    activation: str = 'relu'
    epsilon: float = 1e-5
    momentum: float = 0.9
    use_bias: bool = False
    dtype: jnp.dtype = jnp.float32
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    kernel_init: nn.initializers.Initializer = kaiming_normal
    dilation: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h2 w2 features']:
        x = Conv(
            self.features,
            self.kernel_size,
            self.stride,
            self.padding,
            self.groups,
            self.use_bias,
            self.kernel_init,
            self.dtype,
            dilation=self.dilation,
            name='conv',
        )(x)
        x = BatchNorm(self.epsilon, self.momentum, self.dtype, self.scale_init, name='norm')(x, train=train)
        return activation(self.activation)(x)


class SqueezeExcitation(nn.Module):
    """Channels weighted by a gate computed from their means (Hu et al. 2018); parameters ``reduce`` and ``expand``."""

    squeezed: int
    activation: str = 'silu'
    gate: Literal['sigmoid', 'hard_sigmoid'] = 'sigmoid'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c']:
        y = x.mean((1, 2), keepdims=True, dtype=jnp.float32).astype(self.dtype)
        y = Conv(self.squeezed, 1, use_bias=True, dtype=self.dtype, name='reduce')(y)
        y = Conv(x.shape[-1], 1, use_bias=True, dtype=self.dtype, name='expand')(activation(self.activation)(y))
        return x * (jax.nn.hard_sigmoid(y) if self.gate == 'hard_sigmoid' else jax.nn.sigmoid(y))
