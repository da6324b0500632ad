"""Corruptions by noise: Gaussian, shot, impulse and speckle noise."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from experiments.data.corruptions.filters import Image, Numbers, Shape, fields, normal


def draw_normal(numbers: Numbers, shape: Shape, settings: object) -> Image:
    """Standard normal numbers."""
    return normal(fields(numbers, shape)[0])


def gaussian_noise(image: Image, noise: Image, deviation: Float[Array, '']) -> Image:
    """Add normal noise of some deviation."""
    return image + deviation * noise


def speckle_noise(image: Image, noise: Image, deviation: Float[Array, '']) -> Image:
    """Add normal noise that is proportional to the value of a pixel."""
    return image + image * (deviation * noise)


def draw_uniform(numbers: Numbers, shape: Shape, settings: object) -> Image:
    """Numbers from 0 to 1."""
    return fields(numbers, shape)[0]


def shot_noise(image: Image, noise: Image, photons: Float[Array, '']) -> Image:
    """Replace each value by a Poisson count, the inverse of whose distribution is taken of ``noise``.

    Args:
        photons: expected count of a white pixel.
    """
    expected = photons * image
    logarithm = jnp.log(expected)
    # Beyond, less than one count in 10^20 is left out.
    most = jnp.ceil(photons + 10 * jnp.sqrt(photons) + 10).astype(jnp.int32)

    def add(count: Array, state: tuple[Image, Image, Image]) -> tuple[Image, Image, Image]:
        log_share, total, counts = state
        total = total + jnp.exp(log_share)
        return log_share + logarithm - jnp.log(count + 1.0), total, counts + (total < noise)

    zeros = jnp.zeros_like(image)
    return lax.fori_loop(0, most, add, (-expected, zeros, zeros))[2] / photons


def draw_impulses(numbers: Numbers, shape: Shape, settings: object) -> tuple[Image, Bool[Array, '...']]:
    """Numbers from 0 to 1, the small ones of which are replaced, and whether by 1."""
    first, second = fields(numbers, shape, 2)
    return first, second <= 0.5


def impulse_noise(image: Image, noise: tuple[Image, Bool[Array, '...']], share: Float[Array, '']) -> Image:
    """Replace a share of the values by 0 or 1, at even odds."""
    number, white = noise
    return jnp.where(number <= share, white.astype(image.dtype), image)
