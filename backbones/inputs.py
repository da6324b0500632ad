"""What a backbone takes, by the size of one example: an image has two sides, and a text has a length."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

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


def as_size(size: int | tuple[int, ...]) -> tuple[int, ...]:
    """A size of images as ``preprocessing.as_size`` reads it; ``(length,)`` is one of texts.

    Raises:
        UserError: neither.
    """
    return size if isinstance(size, tuple) and len(size) == 1 else size_of_images(size)  # ty: ignore[invalid-argument-type]


def from_json(value: Mapping[str, Any]) -> AnyPreprocessing:
    """The inverse of ``as_json`` of either kind."""
    return (Tokenising if 'tokenizer' in value else Preprocessing).from_json(value)
