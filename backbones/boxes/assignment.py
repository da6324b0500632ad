"""Which object each anchor is to predict, of one image.

Source: torchvision/models/detection/_utils.py (``Matcher``) and fcos.py (``FCOS.compute_loss``).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from backbones.boxes.iou import area, pairwise_iou

# In place of the index of an object: the anchor is background, or it counts for nothing.
BACKGROUND = -1
BETWEEN = -2


def assign_by_iou(
    boxes: Float[Array, 'objects 4'],
    real: Bool[Array, 'objects'],
    anchors: Float[Array, 'anchors 4'],
    foreground: float = 0.5,
    background: float = 0.4,
    low_quality: bool = True,
) -> Int[Array, 'anchors']:
    """The object with the largest overlap (RetinaNet; anchors and proposals of Faster R-CNN).

    An anchor that an object overlaps most, of all anchors, is foreground however small the overlap is; so are all
    anchors that tie with it. Each then predicts the object that overlaps itself most. An object that overlaps no anchor
    at all has none (with torchvision, it would make every anchor that it does not overlap foreground).

    Args:
        boxes: the objects' boxes, padded.
        real: which of them are objects.
        anchors: the anchors of all levels.
        foreground: overlap from which an anchor is foreground.
        background: overlap below which it is background; between the two it counts for nothing.
        low_quality: whether every object that can have an anchor has one, as said above.

    Returns:
        The index of the object, ``BACKGROUND`` or ``BETWEEN``.
    """
    overlap = jnp.where(real[:, None], pairwise_iou(boxes, anchors), -1.0)
    # Otherwise the compiler may compute it twice, with other roundings, and the comparison below would find no equals.
    overlap = jax.lax.optimization_barrier(overlap)
    best, nearest = overlap.max(0), overlap.argmax(0)
    chosen = best >= foreground
    if low_quality:
        most = overlap.max(1, keepdims=True)
        chosen |= ((overlap == most) & (most > 0)).any(0)
    outside = jnp.where(best < background, BACKGROUND, BETWEEN)
    return jnp.where(chosen, nearest, outside)


def assign_by_centre(
    boxes: Float[Array, 'objects 4'],
    real: Bool[Array, 'objects'],
    points: Float[Array, 'points 2'],
    sides: Float[Array, 'points'],
    bounds: Float[Array, 'points 2'],
    radius: float = 1.5,
) -> Int[Array, 'points']:
    """The smallest object around a point, of those whose centre is near and whose size is that of its level (FCOS).

    Areas are compared as torchvision compares them: in float32, after they are subtracted from 1e8. Of areas that
    differ by less than 8 square pixels, the first may therefore win.

    Args:
        boxes: the objects' boxes, padded.
        real: which of them are objects.
        points: x and y of the points of all levels.
        sides: nominal stride of each point's level, in pixels.
        bounds: between which limits the largest distance to a side of the box must be, in pixels.
        radius: how far the object's centre may be from the point along either axis, in nominal strides.

    Returns:
        The index of the object, or ``BACKGROUND``.
    """
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    near = jnp.abs(points[:, None] - centres).max(-1) < radius * sides[:, None]
    distances = jnp.concatenate([points[:, None] - boxes[:, :2], boxes[:, 2:] - points[:, None]], axis=-1)
    largest = distances.max(-1)
    sized = (largest > bounds[:, :1]) & (largest < bounds[:, 1:])
    candidate = near & sized & (distances.min(-1) > 0) & real
    preference = jnp.where(candidate, 1e8 - area(boxes), 0)
    return jnp.where(preference.max(-1) < 1e-5, BACKGROUND, preference.argmax(-1))
