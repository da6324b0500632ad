"""FCOS: every point of a map predicts a box around itself, and how near it is to the centre of that box.

Source: Tian et al. 2019, "FCOS: Fully Convolutional One-Stage Object Detection"; torchvision/models/detection/fcos.py.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from backbones.boxes.anchors import cell_anchors
from backbones.boxes.assignment import assign_by_centre
from backbones.boxes.coding import decode_distances, encode_distances
from backbones.boxes.iou import giou_loss
from backbones.errors import UserError
from backbones.features import Features
from backbones.heads.one_stage import OneStageHead, binary_cross_entropy, exponent, focal_loss
from backbones.heads.towers import Tower, checked, logit, prediction


class FCOS(OneStageHead):
    """Two towers of convolutions, shared by all levels; the second predicts boxes and centre-ness.

    A level's nominal stride is the side of its only anchor: distances are predicted in it, an object's centre must be
    within 1.5 of it, and objects between 4 and 8 of it belong to the level (to the finest also smaller ones, to the
    coarsest larger ones).

    The losses are ``'classes'`` (focal), ``'boxes'`` (GIoU) and ``'centerness'`` (binary cross-entropy), divided by the
    number of points with an object in the whole batch. A score is the geometric mean of those of class and centre.

    Attributes:
        radius: how far an object's centre may be, in nominal strides.
    """

    norm: Literal['none', 'group'] = 'group'
    radius: float = 1.5
    score_threshold: float = 0.2
    iou_threshold: float = 0.6

    @nn.compact
    def __call__(
        self,
        features: Features,
        maps: Mapping[str, Float[Array, 'batch rows columns c']] | None = None,
        size: tuple[int, int] | None = None,
        train: bool = False,
    ) -> dict[str, dict[str, Array]]:
        if maps and min(map(exponent, maps)) < 1:
            # The rounded corners of torchvision's anchors fall together, so that distances have no unit.
            raise UserError(
                'FCOS needs strides of 2 and more: a level of stride 1 has anchors without a side; choose others, '
                "or the head 'retinanet'"
            )
        class_tower, box_tower = (
            Tower(self.depth, self.channels, self.norm, dtype=self.dtype, name=name)
            for name in ('class_tower', 'box_tower')
        )
        class_logits = prediction(self.num_classes, self.dtype, 'class_logits', logit(0.01))
        # Of a distance below 0 the ReLU passes no gradient. In torchvision they begin at 0, and where a data set is
        # small no distance may ever become positive.
        box_deltas = prediction(4, self.dtype, 'box_deltas', 1.0)
        centerness = prediction(1, self.dtype, 'centerness')
        outputs = {}
        for level, x in checked(maps, self.norm, self.depth).items():
            seen = box_tower(x)
            predicted = {
                'classes': class_logits(class_tower(x))[:, :, :, None],
                'boxes': nn.relu(box_deltas(seen))[:, :, :, None],
                'centerness': centerness(seen),
            }
            outputs[level] = {name: each.astype(jnp.float32) for name, each in predicted.items()}
        return outputs

    def cells(self, level: str) -> Float[np.ndarray, '1 4']:
        """The one anchor of a point."""
        return cell_anchors([2 ** exponent(level)])

    def assign(
        self, boxes: Float[Array, 'objects 4'], real: Bool[Array, 'objects'], anchors: Sequence[Float[Array, 'n 4']]
    ) -> Int[Array, 'n']:
        """See ``assign_by_centre``."""
        everywhere = jnp.concatenate(anchors)
        sides = everywhere[:, 2] - everywhere[:, 0]
        last = len(everywhere) - len(anchors[-1])
        lower = (4 * sides).at[: len(anchors[0])].set(0)
        upper = (8 * sides).at[last:].set(jnp.inf)
        points = (everywhere[:, :2] + everywhere[:, 2:]) / 2
        return assign_by_centre(boxes, real, points, sides, jnp.stack([lower, upper], axis=1), self.radius)

    def losses_of_level(
        self,
        predicted: Mapping[str, Array],
        anchors: Float[Array, 'n 4'],
        assigned: Int[Array, 'batch n'],
        classes: Int[Array, 'batch n'],
        boxes: Float[Array, 'batch n 4'],
    ) -> dict[str, Float[Array, 'batch n']]:
        """Boxes and centre-ness only count where there is an object."""
        of_boxes = giou_loss(self.decode(predicted['boxes'], anchors), boxes)
        centre = _centerness(encode_distances(boxes, anchors))
        of_centerness = binary_cross_entropy(predicted['centerness'], centre)
        return {
            'classes': focal_loss(predicted['classes'], classes),
            'boxes': jnp.where(assigned >= 0, of_boxes, 0),
            'centerness': jnp.where(assigned >= 0, of_centerness, 0),
        }

    def normalised(
        self, total: Float[Array, 'batch'], there: Bool[Array, 'batch n'], valid: Bool[Array, 'batch']
    ) -> Float[Array, 'batch']:
        """By the points with an object in the whole batch: the mean over its valid images is the reference's."""
        return total * (valid.sum() / jnp.maximum(there.sum(), 1))

    def scores(self, level: Mapping[str, Array]) -> Float[Array, 'n classes']:
        """The geometric mean of the probabilities of the class and of the centre."""
        centre = jax.nn.sigmoid(level['centerness'])
        return jnp.sqrt(jax.nn.sigmoid(level['classes']) * centre[:, None])

    def decode(self, boxes: Float[Array, '*shape 4'], anchors: Float[Array, '*shape 4']) -> Float[Array, '*shape 4']:
        """From distances to the sides."""
        return decode_distances(boxes, anchors)


def _centerness(distances: Float[Array, '*shape 4']) -> Float[Array, '*shape']:
    """1 at the centre of the box, 0 at its sides."""
    across, down = distances[..., 0::2], distances[..., 1::2]
    return jnp.sqrt((across.min(-1) / across.max(-1)) * (down.min(-1) / down.max(-1)))
