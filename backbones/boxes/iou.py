"""Overlap of boxes.

Source: torchvision/ops/boxes.py, giou_loss.py; Rezatofighi et al. 2019, "Generalized Intersection over Union".
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

Boxes = Float[Array, '*shape 4']


def area(boxes: Boxes) -> Float[Array, '*shape']:
    """Width times height."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def clip(boxes: Boxes, extent: Float[Array, '2']) -> Boxes:
    """The part of each box inside an image of this height and width."""
    height, width = extent[0], extent[1]
    return jnp.clip(boxes, 0, jnp.stack([width, height, width, height]).astype(boxes.dtype))


def extents_of(batch: int, size: Sequence[int], extents: Float[Array, 'batch 2'] | None) -> Float[Array, 'batch 2']:
    """Height and width that the boxes of each image are clipped to: ``extents``, or those of the batch (``None``)."""
    return jnp.broadcast_to(jnp.asarray(size if extents is None else extents, jnp.float32), (batch, 2))


def intersection(left: Boxes, right: Boxes) -> Float[Array, '*shape']:
    """Area of what two boxes share; the shapes are broadcast."""
    width = jnp.minimum(left[..., 2], right[..., 2]) - jnp.maximum(left[..., 0], right[..., 0])
    height = jnp.minimum(left[..., 3], right[..., 3]) - jnp.maximum(left[..., 1], right[..., 1])
    return jnp.where((width > 0) & (height > 0), width * height, 0)


def iou(left: Boxes, right: Boxes) -> Float[Array, '*shape']:
    """Intersection over union, from 0 to 1; 0 for two boxes without an area. The shapes are broadcast."""
    shared = intersection(left, right)
    union = area(left) + area(right) - shared
    return jnp.where(union > 0, shared / jnp.where(union > 0, union, 1), 0)


def pairwise_iou(left: Float[Array, 'm 4'], right: Float[Array, 'n 4']) -> Float[Array, 'm n']:
    """Intersection over union of every box of one list with every box of the other."""
    return iou(left[:, None], right[None])


def giou_loss(left: Boxes, right: Boxes, epsilon: float = 1e-7) -> Float[Array, '*shape']:
    """One minus the generalised intersection over union, from 0 to 2; finite also for boxes without an area."""
    shared = intersection(left, right)
    union = area(left) + area(right) - shared
    around = jnp.concatenate(
        [jnp.minimum(left[..., :2], right[..., :2]), jnp.maximum(left[..., 2:], right[..., 2:])], axis=-1
    )
    enclosing = area(around)
    return 1 - (shared / (union + epsilon) - (enclosing - union) / (enclosing + epsilon))
