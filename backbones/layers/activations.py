"""Activations by the name that a configuration gives them."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array

from backbones.errors import unknown


# Compiled as functions of their own names, by which an exporter knows them.
@jax.jit
def gelu(x: Array) -> Array:
    """The exact GELU."""
    return _gelu(x)


@jax.custom_jvp
def _gelu(x: Array) -> Array:
    return jax.nn.gelu(x, approximate=False)


@_gelu.defjvp
def _gelu_derivative(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """From ``x`` alone, which is all that is then kept for it: differentiation would keep two more maps."""
    (x,), (tangent,) = primals, tangents
    wide = x.astype(jnp.float32)
    density = jnp.exp(-0.5 * jnp.square(wide)) * (1 / math.sqrt(2 * math.pi))
    slope = 0.5 + 0.5 * jax.lax.erf(wide * math.sqrt(0.5)) + wide * density
    return _gelu(x), tangent * slope.astype(x.dtype)


@jax.jit
def gelu_tanh(x: Array) -> Array:
    """GELU's approximation by a hyperbolic tangent."""
    return jax.nn.gelu(x, approximate=True)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    'relu': jax.nn.relu,
    'relu6': jax.nn.relu6,
    'leaky_relu': partial(jax.nn.leaky_relu, negative_slope=0.01),
    'silu': jax.nn.silu,
    'hard_swish': jax.nn.hard_swish,
    'gelu': gelu,
    'gelu_tanh': gelu_tanh,
    'quick_gelu': lambda x: x * jax.nn.sigmoid(1.702 * x),
    'none': lambda x: x,
}


def activation(name: str) -> Callable[[Array], Array]:
    """The activation function with this name.

    Raises:
        UserError: no such activation.
    """
    if name not in ACTIVATIONS:
        raise unknown('activation', name, ACTIVATIONS)
    return ACTIVATIONS[name]
