"""Random changes of training images, on the device, from an explicit key."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Key, UInt8


def random_flip(
    key: Key[Array, ''], images: UInt8[Array, 'batch height width channels']
) -> UInt8[Array, 'batch height width channels']:
    """Mirror each image left to right with probability one half."""
    flip = jax.random.bernoulli(key, shape=(images.shape[0], 1, 1, 1))
    return jnp.where(flip, images[:, :, ::-1], images)


def random_shift(
    key: Key[Array, ''], images: UInt8[Array, 'batch height width channels'], pixels: int
) -> UInt8[Array, 'batch height width channels']:
    """Pad with zeros and cut the original size out at a random place: shifts of up to ``pixels`` either way."""
    padded = jnp.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))
    offsets = jax.random.randint(key, (images.shape[0], 2), 0, 2 * pixels + 1)

    def cut(image: Array, offset: Array) -> Array:
        return lax.dynamic_slice(image, (offset[0], offset[1], 0), images.shape[1:])

    return jax.vmap(cut)(padded, offsets)


def augment(
    key: Key[Array, ''], images: UInt8[Array, 'batch height width channels'], flip: bool, shift: int
) -> UInt8[Array, 'batch height width channels']:
    """Flip and shift, each if asked for."""
    flip_key, shift_key = jax.random.split(key)
    if flip:
        images = random_flip(flip_key, images)
    if shift:
        images = random_shift(shift_key, images, shift)
    return images
