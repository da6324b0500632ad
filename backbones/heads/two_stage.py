"""What two-stage detectors learn: the sample that both stages train on, and their losses.

Source: Ren et al. 2015, "Faster R-CNN"; torchvision/models/detection/rpn.py and roi_heads.py.
"""

from collections.abc import Mapping, Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from backbones.boxes.assignment import BETWEEN, assign_by_iou
from backbones.boxes.coding import encode_deltas
from backbones.boxes.sampling import sample
from backbones.heads.one_stage import binary_cross_entropy, flat, real_objects, targets

# What deltas of the second stage are multiplied by, to be as large as its other outputs.
DELTA_SCALE = np.array([10, 10, 5, 5], np.float32)
# In place of a box that is not there: its logarithms are finite.
_NO_BOX = np.array([0, 0, 1, 1], np.float32)

Truth = Mapping[str, Array]


@flax.struct.dataclass
class TwoStageOutputs:
    """What both stages predict.

    Attributes:
        anchors: level → ``'objectness'`` ``[batch, rows, columns, anchors]``, ``'boxes'`` ``[…, anchors, 4]``.
        proposals: boxes in pixels of the input.
        there: which proposals there are.
        classes: logits of each proposal, the first of the background.
        boxes: deltas of each proposal, as if it were of each class.
        assigned: of all anchors and of the proposals, which object they learn to predict (``boxes.assignment``), where
            these were drawn; ``None``: nothing was drawn.
    """

    anchors: dict[str, dict[str, Array]]
    proposals: Float[Array, 'batch n 4']
    there: Bool[Array, 'batch n']
    classes: Float[Array, 'batch n outputs']
    boxes: Float[Array, 'batch n outputs 4']
    assigned: tuple[Int[Array, 'batch anchors'], Int[Array, 'batch n']] | None = None


def draw(
    key: Key[Array, ''],
    proposals: Float[Array, 'batch n 4'],
    there: Bool[Array, 'batch n'],
    anchors: Sequence[Float[Array, 'm 4']],
    truth: Truth,
    sampled_anchors: tuple[int, float],
    sampled_proposals: tuple[int, float],
) -> tuple[Float[Array, 'batch drawn 4'], Bool[Array, 'batch drawn'], tuple[Array, Array]]:
    """Draw the sample that is trained on: the objects' boxes are among the proposals.

    Args:
        key: equal keys draw the same; every image has a key of its own.
        proposals: of each image.
        there: which of them there are.
        anchors: those of each level.
        truth: see ``losses``.
        sampled_anchors, sampled_proposals: see ``boxes.sampling.sample``.

    Returns:
        The proposals that were drawn, which of them there are, and ``TwoStageOutputs.assigned``.
    """
    real = _real(truth)
    proposals = jnp.concatenate([proposals, jnp.where(real[..., None], truth['boxes'], 0)], 1)
    there = jnp.concatenate([there, real], 1)
    proposals = jnp.where(there[..., None], proposals, _NO_BOX)
    batch, count = there.shape
    of_anchors, of_proposals = (
        jax.vmap(lambda its_key, each, size=size: sample(its_key, each, *size))(jax.random.split(part, batch), each)
        for part, each, size in zip(
            jax.random.split(key),
            (_assign_anchors(truth, anchors), _assign_proposals(truth, proposals, there)),
            (sampled_anchors, sampled_proposals),
            strict=True,
        )
    )
    kept, chosen = jax.lax.top_k((of_proposals != BETWEEN).astype(jnp.int32), min(sampled_proposals[0], count))
    proposals = jnp.take_along_axis(proposals, chosen[..., None], 1)
    return proposals, kept > 0, (of_anchors, jnp.take_along_axis(of_proposals, chosen, 1))


def losses(
    outputs: TwoStageOutputs, truth: Truth, anchors: Sequence[Float[Array, 'm 4']]
) -> dict[str, Float[Array, 'batch']]:
    """The losses of both stages, per image; their mean over the valid images is the reference's loss of the batch.

    Args:
        outputs: what both stages predict.
        truth: ``'boxes'`` ``float32[batch, objects, 4]``, ``'classes'`` ``int32[batch, objects]``, -1 where there is no
            object, and ``'valid'`` ``float32[batch]``, 0 for a row that is no example.
        anchors: those of each level.
    """
    everywhere, valid = jnp.concatenate(anchors), truth['valid'] > 0
    proposals = jnp.where(outputs.there[..., None], outputs.proposals, _NO_BOX)
    of_anchors, of_proposals = outputs.assigned or (
        _assign_anchors(truth, anchors),
        _assign_proposals(truth, proposals, outputs.there),
    )

    def mean(values: Float[Array, 'batch n'], assigned: Int[Array, 'batch n'], objects: bool) -> Float[Array, 'batch']:
        """Sums over all that were drawn, or those with an object, in relation to the number drawn per image."""
        drawn = (assigned != BETWEEN) & valid[:, None]
        counted = drawn & (assigned >= 0) if objects else drawn
        return jnp.where(counted, values, 0).sum(1) * (valid.sum() / jnp.maximum(drawn.sum(), 1))

    objectness, deltas = (
        jnp.concatenate([flat(each[name]) for each in outputs.anchors.values()], 1) for name in ('objectness', 'boxes')
    )
    _, boxes = targets(of_anchors, truth['boxes'], truth['classes'], everywhere)
    of_objectness = binary_cross_entropy(objectness, (of_anchors >= 0).astype(jnp.float32))
    of_proposed = smooth_l1(deltas - encode_deltas(boxes, everywhere)).sum(-1)

    classes, boxes = targets(of_proposals, truth['boxes'], truth['classes'], proposals)
    labels = (classes + 1)[..., None]
    of_classes = -jnp.take_along_axis(jax.nn.log_softmax(outputs.classes), labels, 2)[..., 0]
    deltas = jnp.take_along_axis(outputs.boxes, labels[..., None], 2)[:, :, 0]
    of_boxes = smooth_l1(deltas - encode_deltas(boxes, proposals) * DELTA_SCALE).sum(-1)
    return {
        'objectness': mean(of_objectness, of_anchors, objects=False),
        'proposals': mean(of_proposed, of_anchors, objects=True),
        'classes': mean(of_classes, of_proposals, objects=False),
        'boxes': mean(of_boxes, of_proposals, objects=True),
    }


def smooth_l1(difference: Float[Array, '*shape'], beta: float = 1 / 9) -> Float[Array, '*shape']:
    """The absolute value, less half of ``beta``, and below ``beta`` a parabola with the same slope."""
    size = jnp.abs(difference)
    return jnp.where(size < beta, 0.5 * size**2 / beta, size - 0.5 * beta)


def _real(truth: Truth) -> Bool[Array, 'batch objects']:
    return real_objects(truth['boxes'], truth['classes']) & (truth['valid'] > 0)[:, None]


def _assign_anchors(truth: Truth, anchors: Sequence[Float[Array, 'm 4']]) -> Int[Array, 'batch anchors']:
    everywhere = jnp.concatenate(anchors)

    def of_one_image(boxes: Float[Array, 'objects 4'], real: Bool[Array, 'objects']) -> Int[Array, 'anchors']:
        return assign_by_iou(boxes, real, everywhere, 0.7, 0.3)

    return jax.vmap(of_one_image)(truth['boxes'], _real(truth))


def _assign_proposals(
    truth: Truth, proposals: Float[Array, 'batch n 4'], there: Bool[Array, 'batch n']
) -> Int[Array, 'batch n']:
    def of_one_image(boxes: Float[Array, 'objects 4'], real: Bool[Array, 'objects'], proposals: Array) -> Array:
        return assign_by_iou(boxes, real, proposals, 0.5, 0.5, low_quality=False)

    found = jax.vmap(of_one_image)(truth['boxes'], _real(truth), proposals)
    return jnp.where(there, found, BETWEEN)
