"""Complete intersection over union: the overlap of two boxes, less what their centres and their shapes differ by.

Source: Zheng et al. 2020, "Distance-IoU Loss"; ultralytics/utils/metrics.py, ``bbox_iou``.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.boxes.iou import area


def ciou(
    left: Float[Array, '*shape 4'], right: Float[Array, '*shape 4'], epsilon: float = 1e-7
) -> Float[Array, '*shape']:
    """At most 1, and negative for boxes that are far apart; the shapes are broadcast.

    As in the reference, ``epsilon`` is added to heights and not to widths, and the weight of the difference in shape
    has no gradient.
    """
    shared = jnp.maximum(jnp.minimum(left[..., 2:], right[..., 2:]) - jnp.maximum(left[..., :2], right[..., :2]), 0)
    shared = shared[..., 0] * shared[..., 1]
    tall = jnp.array([0, 0, 0, epsilon], left.dtype)
    overlap = shared / (area(left + tall) + area(right + tall) - shared + epsilon)
    around = jnp.maximum(left[..., 2:], right[..., 2:]) - jnp.minimum(left[..., :2], right[..., :2])
    diagonal = (around**2).sum(-1) + epsilon
    apart = ((right[..., :2] + right[..., 2:] - left[..., :2] - left[..., 2:]) ** 2).sum(-1) / 4
    difference = (4 / math.pi**2) * (_angle(right + tall) - _angle(left + tall)) ** 2
    weight = jax.lax.stop_gradient(difference / (1 - overlap + difference + epsilon))
    return overlap - (apart / diagonal + difference * weight)


def _angle(boxes: Float[Array, '*shape 4']) -> Float[Array, '*shape']:
    """That of the diagonal; a raw prediction may have sides that are negative, or zero."""
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    return jnp.arctan(width / jnp.where(height == 0, 1e-7, height))
