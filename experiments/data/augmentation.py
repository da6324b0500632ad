"""Random augmentation of training images on the device, from an explicit key.

Moving whole pixels and mixing images are cheap there; RandAugment's chain of image operations runs on the host
(``experiments.data.random_augment``).
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key, UInt8

from backbones.errors import UserError


def random_flip(
    key: Key[Array, ''], images: UInt8[Array, 'batch height width channels']
) -> UInt8[Array, 'batch height width channels']:
    """Mirror each image left to right with probability one half."""
    flip = jax.random.bernoulli(key, shape=(images.shape[0], 1, 1, 1))
    return jnp.where(flip, images[:, :, ::-1], images)


def random_shift(
    key: Key[Array, ''], images: UInt8[Array, 'batch height width channels'], pixels: int
) -> UInt8[Array, 'batch height width channels']:
    """Pad with zeros and crop the original size at a random place: shifts of up to ``pixels`` in each direction."""
    padded = jnp.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))
    offsets = jax.random.randint(key, (images.shape[0], 2), 0, 2 * pixels + 1)

    def cut(image: Array, offset: Array) -> Array:
        return lax.dynamic_slice(image, (offset[0], offset[1], 0), images.shape[1:])

    return jax.vmap(cut)(padded, offsets)


def random_resized_crop(
    key: Key[Array, ''],
    images: UInt8[Array, 'batch height width channels'],
    size: int,
    smallest: float,
    ratios: tuple[float, float] = (3 / 4, 4 / 3),
) -> UInt8[Array, 'batch size size channels']:
    """Crop a random part of each image and resize it to a square, bilinear and anti-aliased.

    Source: Szegedy et al. 2015, section 6; torchvision's ``RandomResizedCrop``, but a crop that does not fit is
    clipped to the image's side instead of being drawn again.

    Args:
        size: side of the result in pixels.
        smallest: smallest share of the area that a crop covers; the largest is 1.
        ratios: smallest and largest width as a multiple of the height, drawn evenly on a logarithmic scale.
    """
    batch, height, width, channels = images.shape
    area_key, ratio_key, place_key = jax.random.split(key, 3)
    area = height * width * jax.random.uniform(area_key, (batch,), minval=smallest)
    logarithms = jnp.log(jnp.asarray(ratios))
    ratio = jnp.exp(jax.random.uniform(ratio_key, (batch,), minval=logarithms[0], maxval=logarithms[1]))
    whole = jnp.array([height, width], jnp.float32)
    sides = jnp.clip(jnp.round(jnp.stack([jnp.sqrt(area / ratio), jnp.sqrt(area * ratio)], -1)), 1, whole)
    start = jnp.floor(jax.random.uniform(place_key, (batch, 2)) * (whole - sides + 1))

    def cut(image: Array, start: Array, sides: Array) -> Array:
        scale = size / sides
        return jax.image.scale_and_translate(
            image.astype(jnp.float32), (size, size, channels), (0, 1), scale, -start * scale, 'linear'
        )

    return jnp.clip(jnp.round(jax.vmap(cut)(images, start, sides)), 0, 255).astype(jnp.uint8)


def augment(
    key: Key[Array, ''],
    images: UInt8[Array, 'batch height width channels'],
    flip: bool,
    shift: int,
    crop_scale: float = 0.0,
    size: int = 0,
) -> UInt8[Array, 'batch new_height new_width channels']:
    """Flip, shift and crop, each if enabled.

    Args:
        crop_scale: smallest share of the image area that a random resized crop covers; 0: no crop.
        size: side of the cropped images in pixels.
    """
    flip_key, shift_key = jax.random.split(key)
    if flip:
        images = random_flip(flip_key, images)
    if shift:
        images = random_shift(shift_key, images, shift)
    if crop_scale:
        images = random_resized_crop(jax.random.fold_in(key, 2), images, size, crop_scale)
    return images


def _swap_neighbours(x: Array) -> Array:
    """Swap examples 0 and 1, 2 and 3, …: partners stay on one device if devices hold whole pairs."""
    return x.reshape(x.shape[0] // 2, 2, *x.shape[1:])[:, ::-1].reshape(x.shape)


def mix(
    key: Key[Array, ''],
    images: Float[Array, 'batch height width channels'],
    targets: Float[Array, 'batch classes'],
    mixup: float,
    cutmix: float,
) -> tuple[Float[Array, 'batch height width channels'], Float[Array, 'batch classes']]:
    """Mix each example with its neighbour in the batch, whose order is random anyway.

    Sources: Zhang et al. 2018, "mixup"; Yun et al. 2019, "CutMix". With both, each pair gets one or the other at even
    odds, as timm does per batch.

    Args:
        targets: distributions over the classes.
        mixup, cutmix: parameter of the symmetric beta distribution that a pair's share is drawn from; 0: off.

    Raises:
        UserError: the batch has an odd number of examples.
    """
    if not mixup and not cutmix:
        return images, targets
    batch, height, width, _ = images.shape
    if batch % 2:
        raise UserError(f'mixup and cutmix mix pairs and need an even batch_size, not {batch}')
    keys = jax.random.split(key, 4)
    per_pair = partial(jnp.repeat, repeats=2, total_repeat_length=batch)
    pairs = (batch // 2,)
    partner = _swap_neighbours(images)

    share = jnp.ones((batch,))  # of the example's own image
    pasted = jnp.zeros((batch, height, width), bool)
    cut = jnp.zeros(pairs, bool)
    if cutmix:
        cut = jax.random.bernoulli(keys[0], 0.5, pairs) if mixup else jnp.ones(pairs, bool)
        side = jnp.sqrt(1 - jax.random.beta(keys[1], cutmix, cutmix, pairs))
        centre = jax.random.uniform(keys[2], (2, *pairs))
        rows, columns = (
            jnp.abs(jnp.arange(length) - per_pair(middle * length)[:, None]) < per_pair(side * length)[:, None] / 2
            for length, middle in zip((height, width), centre, strict=True)
        )
        pasted = rows[:, :, None] & columns[:, None, :] & per_pair(cut)[:, None, None]
        share = 1 - pasted.mean((1, 2))
    mixed = jnp.where(pasted[..., None], partner, images)
    if mixup:
        drawn = per_pair(jnp.where(cut, 1.0, jax.random.beta(keys[3], mixup, mixup, pairs)))
        mixed = drawn[:, None, None, None] * mixed + (1 - drawn[:, None, None, None]) * partner
        mixed = jnp.where(per_pair(cut)[:, None, None, None], jnp.where(pasted[..., None], partner, images), mixed)
        share = jnp.where(per_pair(cut), share, drawn)
    return mixed.astype(images.dtype), share[:, None] * targets + (1 - share[:, None]) * _swap_neighbours(targets)
