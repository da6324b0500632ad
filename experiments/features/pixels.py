"""Pixels as features, the baseline for heads without a backbone."""

from typing import Any

import numpy as np
from jaxtyping import Array, Float, UInt8

from backbones.preprocessing import Preprocessing
from experiments.features import identity
from experiments.features.frozen_pass import FrozenPass
from experiments.results.axes import PIXELS
from experiments.training.mesh import DeviceMesh

# Larger images are downscaled to this side.
_RAW_PIXELS = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, size=32)


def pixels_pass(
    image_shape: tuple[int, ...], batch_size: int, device_mesh: DeviceMesh
) -> tuple[FrozenPass, Any, dict[str, Any], tuple[int, ...]]:
    """A pass whose features are the pixels from 0 to 1, in stored size or downscaled to a side of 32.

    Returns:
        The pass, its variables, its document and the shape of an image's features, as in a ``Network``.
    """
    height, width, channels = image_shape
    large = max(height, width) > max(_RAW_PIXELS.size)

    def prepare(images: UInt8[Array, 'batch height width channels']) -> Array:
        return _RAW_PIXELS(images) if large else images

    def apply(shades: Float[Array, '256'], images: Array) -> Array:
        return (images if large else shades[images]).reshape(len(images), -1)

    document = {
        'backbone': PIXELS,
        'code': identity.source_version(__name__, Preprocessing.__module__),
        'preprocessing': identity.preprocessing_document(_RAW_PIXELS) if large else None,
        'computation': identity.computation_document(device_mesh, batch_size, 'float32'),
    }
    values = 3 * _RAW_PIXELS.size[0] * _RAW_PIXELS.size[1] if large else height * width * channels
    # A look-up table, because XLA turns a division by a constant into a product, whose last bits differ.
    shades = device_mesh.device_put(np.arange(256, dtype=np.float32) / 255)
    return FrozenPass(prepare, apply, (lambda pixels: pixels,), batch_size, device_mesh), shades, document, (values,)
