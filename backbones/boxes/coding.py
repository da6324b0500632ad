"""What a detector predicts about a box, relative to an anchor: deltas (RetinaNet) or distances to its sides (FCOS).

Source: torchvision/models/detection/_utils.py, ``BoxCoder`` with weights of 1 and ``BoxLinearCoder``.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

# A box is at most this much larger than its anchor, in the logarithm.
LARGEST_DELTA = math.log(1000 / 16)


def encode_deltas(boxes: Float[Array, '*shape 4'], anchors: Float[Array, '*shape 4']) -> Float[Array, '*shape 4']:
    """Shift of the centre in widths and heights of the anchor, and the logarithms of the ratios of the sides.

    Boxes and anchors have positive sides; the shapes are broadcast.
    """
    sizes, anchor_sizes = _sizes(boxes), _sizes(anchors)
    shift = (boxes[..., :2] + 0.5 * sizes - (anchors[..., :2] + 0.5 * anchor_sizes)) / anchor_sizes
    return jnp.concatenate([shift, jnp.log(sizes / anchor_sizes)], axis=-1)


def decode_deltas(deltas: Float[Array, '*shape 4'], anchors: Float[Array, '*shape 4']) -> Float[Array, '*shape 4']:
    """The inverse of ``encode_deltas``, where no side is more than 62.5 times that of the anchor."""
    anchor_sizes = _sizes(anchors)
    centre = deltas[..., :2] * anchor_sizes + (anchors[..., :2] + 0.5 * anchor_sizes)
    half = 0.5 * (jnp.exp(jnp.minimum(deltas[..., 2:], LARGEST_DELTA)) * anchor_sizes)
    return jnp.concatenate([centre - half, centre + half], axis=-1)


def encode_distances(boxes: Float[Array, '*shape 4'], anchors: Float[Array, '*shape 4']) -> Float[Array, '*shape 4']:
    """Distances from the anchor's centre to the box's left, top, right and bottom side, in sides of the anchor."""
    centre = _centre(anchors)
    distances = jnp.concatenate([centre - boxes[..., :2], boxes[..., 2:] - centre], axis=-1)
    return distances / jnp.concatenate([_sizes(anchors)] * 2, axis=-1)


def decode_distances(
    distances: Float[Array, '*shape 4'], anchors: Float[Array, '*shape 4']
) -> Float[Array, '*shape 4']:
    """The inverse of ``encode_distances``."""
    centre = _centre(anchors)
    distances = distances * jnp.concatenate([_sizes(anchors)] * 2, axis=-1)
    return jnp.concatenate([centre - distances[..., :2], centre + distances[..., 2:]], axis=-1)


def _sizes(boxes: Float[Array, '*shape 4']) -> Float[Array, '*shape 2']:
    return boxes[..., 2:] - boxes[..., :2]


def _centre(boxes: Float[Array, '*shape 4']) -> Float[Array, '*shape 2']:
    return 0.5 * (boxes[..., :2] + boxes[..., 2:])
