"""The losses of a YOLO's branch: binary cross-entropy, complete IoU, and the distribution or the L1 of distances.

Source: ultralytics/utils/loss.py, ``v8DetectionLoss``, ``BboxLoss``, ``E2ELoss``; Li et al. 2020, "Generalized Focal
Loss", for the loss of a distribution.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from backbones.boxes.ciou import ciou
from backbones.boxes.task_aligned import assign_by_alignment
from backbones.heads.one_stage import binary_cross_entropy, real_objects
from backbones.heads.yolo_points import Points, centres_of, decode, strides_of

# Points per object, and how many of these it keeps.
ASSIGNED: dict[str, tuple[int, int | None]] = {'one_to_many': (10, None), 'one_to_one': (7, 1)}
GAINS = {'classes': 0.5, 'boxes': 7.5, 'distances': 1.5}
# How far the target of a distribution stays from its last bin.
_MARGIN = 0.01


def losses(
    logits: Float[Array, 'batch n classes'],
    raw: Float[Array, 'batch n sides'],
    points: Sequence[Points],
    truth: Mapping[str, Array],
    size: Sequence[int],
    most: int = 10,
    kept: int | None = None,
) -> dict[str, Float[Array, 'batch']]:
    """The losses of each image, times their gains; 0 for rows that are no examples.

    Args:
        logits: of the classes, at the points of all levels.
        raw: what is predicted of the boxes.
        points: those of each level.
        truth: see ``YOLOHead.losses``.
        size: height and width of the images.
        most: points per object.
        kept: how many of these an object keeps; ``None``: all.
    """
    boxes, classes, valid = truth['boxes'], truth['classes'], truth['valid'] > 0
    real = real_objects(boxes, classes) & valid[:, None]
    predicted, centres, strides = decode(raw, points), jnp.asarray(centres_of(points)), strides_of(points)
    # Objects smaller than the stride of the second level count as being as large.
    smallest = jnp.asarray(points[min(1, len(points) - 1)].stride)

    def assign(logits, predicted, boxes, classes, real):
        scores = jax.nn.sigmoid(logits)
        return assign_by_alignment(scores, predicted, centres, boxes, classes, real, smallest, most, kept)

    aligned = jax.vmap(assign)(*jax.lax.stop_gradient((logits, predicted)), boxes, classes, real)
    there, weight = aligned.there, aligned.scores
    # What a point without an object would have to predict is of no account, but its loss must be finite.
    itself = jnp.concatenate([centres - strides[:, :2], centres + strides[:, 2:]], axis=-1)
    wanted = jnp.where(there[..., None], jnp.take_along_axis(boxes, aligned.objects[..., None], 1), itself)
    label = jnp.where(there, jnp.take_along_axis(classes, aligned.objects, 1), -1)
    targets = jnp.where(label[..., None] == jnp.arange(logits.shape[-1]), weight[..., None], 0)
    towards = jnp.concatenate([centres - wanted[..., :2], wanted[..., 2:] - centres], axis=-1)
    if raw.shape[-1] == 4:
        scale = strides / jnp.array([size[1], size[0]] * 2, jnp.float32)
        of_distances = jnp.abs(raw * scale - towards / strides * scale).mean(-1)
    else:
        of_distances = distribution_loss(raw, towards / strides)
    found = {
        'classes': binary_cross_entropy(logits, targets).sum((1, 2)),
        'boxes': _weighted(1 - ciou(jnp.where(there[..., None], predicted, itself), wanted), weight, there),
        'distances': _weighted(of_distances, weight, there),
    }
    # The mean over the valid images is the reference's, whose divisor is that of the whole batch.
    share = valid.sum() / jnp.maximum(jnp.where(valid, weight.sum(1), 0).sum(), 1)
    return {name: jnp.where(valid, GAINS[name] * each * share, 0) for name, each in found.items()}


def _weighted(
    loss: Float[Array, 'batch n'], weight: Float[Array, 'batch n'], there: Bool[Array, 'batch n']
) -> Float[Array, 'batch']:
    return jnp.where(there, loss * weight, 0).sum(1)


def distribution_loss(raw: Float[Array, '*shape sides'], distances: Float[Array, '*shape 4']) -> Float[Array, '*shape']:
    """Cross-entropy with the two bins around each distance, weighted by how near they are; the mean of the four sides.

    Args:
        raw: logits of the bins of left, then of top, right and bottom.
        distances: in strides; those beyond the last bin count as being just below it.
    """
    bins = raw.shape[-1] // 4
    logits = jax.nn.log_softmax(raw.reshape(*raw.shape[:-1], 4, bins))
    distances = jnp.clip(distances, 0, bins - 1 - _MARGIN)[..., None]
    near = jnp.maximum(1 - jnp.abs(jnp.arange(bins) - distances), 0)
    return -(logits * near).sum(-1).mean(-1)
