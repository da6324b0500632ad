"""What a backbone takes, by the size of one example: an image has two sides, and a text has a length."""

from collections.abc import Mapping
from numbers import Integral
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from backbones.errors import UserError
from backbones.preprocessing import Preprocessing
from backbones.preprocessing import as_size as size_of_images
from backbones.text.tokenising import Tokenising

# What a set of weights expects of images, or of texts.
AnyPreprocessing = Preprocessing | Tokenising


def spec(size: tuple[int, ...], batch: int = 1, channels: int = 3) -> jax.ShapeDtypeStruct:
    """Shape and type of a batch of inputs.

    Args:
        size: height and width of the images in pixels, or the length of the texts in tokens alone.
        batch: number of examples.
        channels: those of the images; texts have none.
    """
    if len(size) == 1:
        return jax.ShapeDtypeStruct((batch, *size), jnp.int32)
    return jax.ShapeDtypeStruct((batch, *size, channels), jnp.float32)


def spec_of_shape(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    """The same for the shape of a batch: ``[batch, height, width, channels]`` or ``[batch, length]``."""
    return jax.ShapeDtypeStruct(shape, jnp.int32 if len(shape) == 2 else jnp.float32)


def blank(size: tuple[int, ...], batch: int = 1) -> jax.Array:
    """A batch of zeros, for ``init``."""
    return jnp.zeros_like(spec(size, batch))


def reads_texts(module: nn.Module) -> bool:
    """Whether a backbone, or a model that has one, takes tokens: then it has a vocabulary."""
    return hasattr(getattr(module, 'backbone', module), 'vocabulary')


def as_size(module: nn.Module, size: int | tuple[int, ...]) -> tuple[int, ...]:
    """The size of a backbone's inputs: as ``preprocessing.as_size`` reads it, or ``(length,)`` of texts.

    Raises:
        UserError: it is neither, or not for this backbone.
    """
    if not reads_texts(module):
        return size_of_images(size)  # ty: ignore[invalid-argument-type]
    if not isinstance(size, tuple) or len(size) != 1:
        raise UserError(
            f'image_size is {size}, but the backbone reads texts, whose size is (length,), in tokens; leave it out'
        )
    (length,) = size
    if isinstance(length, bool) or not isinstance(length, Integral) or length < 1:
        raise UserError(f'the length of texts is a positive number of tokens, not {length!r}')
    return (int(length),)


def from_json(value: Mapping[str, Any]) -> AnyPreprocessing:
    """The inverse of ``as_json`` of either kind."""
    return (Tokenising if 'tokenizer' in value else Preprocessing).from_json(value)
