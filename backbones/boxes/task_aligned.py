"""Which object each point is to predict, by what it predicts already: task-aligned assignment, of one image.

Source: Feng et al. 2021, "TOOD: Task-aligned One-stage Object Detection", section 3.2; ultralytics/utils/tal.py.
"""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from backbones.boxes.ciou import ciou

_EPSILON = 1e-9


@flax.struct.dataclass
class Aligned:
    """What the points are to predict.

    Attributes:
        objects: index of each point's object; 0 where it has none.
        there: whether a point has an object.
        scores: the score that the object's class is to get: 1 times the overlap for the best point of an object, less
            for others; 0 where there is no object.
    """

    objects: Int[Array, 'points']
    there: Bool[Array, 'points']
    scores: Float[Array, 'points']


def assign_by_alignment(
    scores: Float[Array, 'points classes'],
    predicted: Float[Array, 'points 4'],
    points: Float[Array, 'points 2'],
    boxes: Float[Array, 'objects 4'],
    classes: Int[Array, 'objects'],
    real: Bool[Array, 'objects'],
    smallest: Float[Array, '2'],
    most: int = 10,
    kept: int | None = None,
    alpha: float = 0.5,
    beta: float = 6.0,
) -> Aligned:
    """The points inside an object whose predictions fit it best: ``score ** alpha * overlap ** beta``.

    The overlap is the complete one, or 0 where that is negative. A point that several objects claim goes to the one
    with the largest overlap.

    Args:
        scores: probability of each class.
        predicted: boxes in pixels.
        points: x and y in pixels.
        boxes: the objects' boxes, padded.
        classes: of the objects.
        real: which of them are objects.
        smallest: width and height that a smaller object counts as having when points inside it are looked for.
        most: points per object.
        kept: of these, how many it keeps after points went to other objects; ``None``: all.
        alpha: exponent of the score.
        beta: exponent of the overlap.
    """
    candidate = _inside(points, boxes, smallest) & real[:, None]
    overlap = jnp.where(candidate, jnp.maximum(ciou(boxes[:, None], predicted[None]), 0), 0)
    score = jnp.take(scores, jnp.maximum(classes, 0), axis=1).T
    metric = jnp.where(candidate, score**alpha * overlap**beta, 0)
    # Otherwise the compiler may compute it twice, with other roundings.
    overlap, metric = jax.lax.optimization_barrier((overlap, metric))
    chosen = _best(metric, most) & candidate
    nearest = jnp.arange(len(boxes))[:, None] == overlap.argmax(0)
    chosen = jnp.where(chosen.sum(0) > 1, nearest, chosen)
    if kept is not None:
        chosen &= _best(jnp.where(chosen, metric, 0), kept)
    metric, overlap = jnp.where(chosen, metric, 0), jnp.where(chosen, overlap, 0)
    share = metric / (metric.max(1, keepdims=True) + _EPSILON)
    return Aligned(chosen.argmax(0), chosen.any(0), (share * overlap.max(1, keepdims=True)).max(0))


def _inside(
    points: Float[Array, 'points 2'], boxes: Float[Array, 'objects 4'], smallest: Float[Array, '2']
) -> Bool[Array, 'objects points']:
    centre, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    half = jnp.where(sides < smallest, smallest, sides) / 2
    before, after = points - (centre - half)[:, None], (centre + half)[:, None] - points
    return jnp.minimum(before, after).min(-1) > _EPSILON


def _best(metric: Float[Array, 'objects points'], most: int) -> Bool[Array, 'objects points']:
    """The largest of each row; of equal ones the first."""
    found = jax.lax.top_k(metric, min(most, metric.shape[1]))[1]
    rows = jnp.arange(len(metric))[:, None]
    return jnp.zeros(metric.shape, bool).at[rows, found].set(True)
