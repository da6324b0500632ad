"""RetinaNet: anchors of several sizes and shapes at every point of a map, trained with the focal loss.

Source: Lin et al. 2017, "Focal Loss for Dense Object Detection"; torchvision/models/detection/retinanet.py.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from backbones.boxes.anchors import cell_anchors
from backbones.boxes.assignment import BETWEEN, assign_by_iou
from backbones.boxes.coding import decode_deltas, encode_deltas
from backbones.boxes.iou import giou_loss
from backbones.errors import unknown
from backbones.features import Features
from backbones.heads.one_stage import OneStageHead, exponent, focal_loss
from backbones.heads.towers import Tower, checked, logit, prediction

BOX_LOSSES = ('l1', 'giou')


class RetinaNet(OneStageHead):
    """Two towers of convolutions, shared by all levels; one predicts classes, the other boxes.

    The convolutions of torchvision's v2, whose norm is ``'group'``, have no bias. The losses of an image are
    ``'classes'`` (focal) and ``'boxes'``, divided by the number of its anchors with an object. A score is the
    probability of the class.

    Attributes:
        anchor_size: side of a level's smallest anchors, in its nominal strides.
        anchors_per_octave: number of sizes from there to twice that, which is where the next level begins.
        ratios: of height to width of the anchors.
        box_loss: ``'l1'``, on deltas, or ``'giou'`` (torchvision's v2), on boxes.
        foreground, background: overlap with an object from which an anchor is foreground, below which background.
    """

    anchor_size: float = 4.0
    anchors_per_octave: int = 3
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    box_loss: Literal['l1', 'giou'] = 'l1'
    foreground: float = 0.5
    background: float = 0.4
    max_detections: int = 300

    @nn.compact
    def __call__(
        self,
        features: Features,
        maps: Mapping[str, Float[Array, 'batch rows columns c']] | None = None,
        size: tuple[int, int] | None = None,
        train: bool = False,
    ) -> dict[str, dict[str, Array]]:
        if self.box_loss not in BOX_LOSSES:
            raise unknown('box_loss of the head', self.box_loss, BOX_LOSSES)
        class_tower, box_tower = (
            Tower(self.depth, self.channels, self.norm, self.norm == 'none', self.dtype, name=name)
            for name in ('class_tower', 'box_tower')
        )
        count = self.anchors_per_octave * len(self.ratios)
        class_logits = prediction(count * self.num_classes, self.dtype, 'class_logits', logit(0.01))
        box_deltas = prediction(count * 4, self.dtype, 'box_deltas')
        outputs = {}
        for level, x in checked(maps, self.norm, self.depth).items():
            predicted = {'classes': class_logits(class_tower(x)), 'boxes': box_deltas(box_tower(x))}
            outputs[level] = {
                name: each.astype(jnp.float32).reshape(*each.shape[:3], count, -1) for name, each in predicted.items()
            }
        return outputs

    def anchor_sizes(self, level: str) -> tuple[int, ...]:
        """The sides in pixels of a level's square anchors: 32, 40 and 50 of ``'p3'``."""
        smallest = self.anchor_size * 2 ** exponent(level)
        return tuple(int(smallest * 2 ** (step / self.anchors_per_octave)) for step in range(self.anchors_per_octave))

    def cells(self, level: str) -> Float[np.ndarray, 'anchors 4']:
        """Anchors of all sizes, of one ratio after the other."""
        return cell_anchors(self.anchor_sizes(level), self.ratios)

    def assign(
        self, boxes: Float[Array, 'objects 4'], real: Bool[Array, 'objects'], anchors: Sequence[Float[Array, 'n 4']]
    ) -> Int[Array, 'n']:
        """See ``assign_by_iou``."""
        return assign_by_iou(boxes, real, jnp.concatenate(anchors), self.foreground, self.background)

    def losses_of_level(
        self,
        predicted: Mapping[str, Array],
        anchors: Float[Array, 'n 4'],
        assigned: Int[Array, 'batch n'],
        classes: Int[Array, 'batch n'],
        boxes: Float[Array, 'batch n 4'],
    ) -> dict[str, Float[Array, 'batch n']]:
        """Anchors between background and foreground count for nothing; boxes only where there is an object."""
        if self.box_loss == 'giou':
            of_boxes = giou_loss(self.decode(predicted['boxes'], anchors), boxes)
        else:
            of_boxes = jnp.abs(predicted['boxes'] - encode_deltas(boxes, anchors)).sum(-1)
        return {
            'classes': jnp.where(assigned == BETWEEN, 0, focal_loss(predicted['classes'], classes)),
            'boxes': jnp.where(assigned >= 0, of_boxes, 0),
        }

    def normalised(
        self, total: Float[Array, 'batch'], there: Bool[Array, 'batch n'], valid: Bool[Array, 'batch']
    ) -> Float[Array, 'batch']:
        """By the anchors with an object in each image."""
        return total / jnp.maximum(there.sum(1), 1)

    def scores(self, level: Mapping[str, Array]) -> Float[Array, 'n classes']:
        """The probability of each class."""
        return jax.nn.sigmoid(level['classes'])

    def decode(self, boxes: Float[Array, '*shape 4'], anchors: Float[Array, '*shape 4']) -> Float[Array, '*shape 4']:
        """From deltas to anchors."""
        return decode_deltas(boxes, anchors)
