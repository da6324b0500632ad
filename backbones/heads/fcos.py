"""FCOS: every point of a map predicts a box around itself, and how near it is to the centre of that box.

Source: Tian et al. 2019, "FCOS: Fully Convolutional One-Stage Object Detection"; torchvision/models/detection/fcos.py.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.boxes.anchors import cell_anchors, grid_anchors
from backbones.boxes.assignment import assign_by_centre
from backbones.boxes.coding import decode_distances, encode_distances
from backbones.boxes.iou import giou_loss
from backbones.boxes.nms import Detections
from backbones.errors import UserError
from backbones.features import Features
from backbones.heads import one_stage
from backbones.heads.one_stage import Outputs, Tower, prediction


class FCOS(nn.Module):
    """Two towers of convolutions, shared by all levels; the second predicts boxes and centre-ness.

    A level's nominal stride is the side of its only anchor: distances are predicted in it, an object's centre must be
    within 1.5 of it, and objects between 4 and 8 of it belong to the level (to the finest also smaller ones, to the
    coarsest larger ones).

    Attributes:
        num_classes: number of classes.
        depth: convolutions per tower.
        channels: channels of the towers; ``None``: those of the maps.
        norm: ``'group'`` or ``'none'``.
        radius: how far an object's centre may be, in nominal strides.
        score_threshold: scores of detections are above it.
        iou_threshold: largest overlap of two detections of a class.
        topk: boxes that each level may contribute.
        max_detections: boxes per image.
        dtype: type of the computation; outputs are float32.
    """

    num_classes: int
    depth: int = 4
    channels: int | None = None
    norm: Literal['none', 'group'] = 'group'
    radius: float = 1.5
    score_threshold: float = 0.2
    iou_threshold: float = 0.6
    topk: int = 1000
    max_detections: int = 100
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        features: Features,
        maps: Mapping[str, Float[Array, 'batch rows columns c']] | None = None,
        size: tuple[int, int] | None = None,
        train: bool = False,
    ) -> dict[str, dict[str, Array]]:
        if maps and min(map(one_stage.exponent, maps)) < 1:
            # The rounded corners of torchvision's anchors fall together, so that distances have no unit.
            raise UserError(
                'FCOS needs strides of 2 and more: a level of stride 1 has anchors without a side; choose others, '
                "or the head 'retinanet'"
            )
        class_tower, box_tower = (
            Tower(self.depth, self.channels, self.norm, dtype=self.dtype, name=name)
            for name in ('class_tower', 'box_tower')
        )
        class_logits = prediction(self.num_classes, self.dtype, 'class_logits', prior=0.01)
        box_deltas = prediction(4, self.dtype, 'box_deltas')
        centerness = prediction(1, self.dtype, 'centerness')
        outputs = {}
        for level, x in one_stage.checked(maps, self.norm, self.depth).items():
            seen = box_tower(x)
            predicted = {
                'classes': class_logits(class_tower(x))[:, :, :, None],
                'boxes': nn.relu(box_deltas(seen))[:, :, :, None],
                'centerness': centerness(seen),
            }
            outputs[level] = {name: each.astype(jnp.float32) for name, each in predicted.items()}
        return outputs

    def anchors(self, outputs: Outputs, size: Sequence[int]) -> list[Float[Array, 'n 4']]:
        """The anchors of each level, one per point, for images of this height and width."""
        cells = [cell_anchors([2 ** one_stage.exponent(level)]) for level in outputs]
        grids = [each['boxes'].shape[1:3] for each in outputs.values()]
        pairs = zip(cells, grids, strict=True)
        return [jnp.asarray(grid_anchors(cell, grid, size).reshape(-1, 4)) for cell, grid in pairs]

    def losses(
        self, outputs: Outputs, truth: Mapping[str, Array], size: Sequence[int]
    ) -> dict[str, Float[Array, 'batch']]:
        """Per image, scaled such that the mean over the valid images is the reference's loss of the batch.

        The losses of all points are divided by the number of points with an object in the whole batch.

        Args:
            outputs: what the head predicts.
            truth: ``'boxes'`` ``float32[batch, objects, 4]`` in pixels of the input, ``'classes'``
                ``int32[batch, objects]``, -1 where there is no object, and ``'valid'`` ``float32[batch]``, 0 for a row
                that is no example.
            size: height and width of the images.

        Returns:
            ``'classes'`` (focal), ``'boxes'`` (GIoU) and ``'centerness'`` (binary cross-entropy).
        """
        anchors = self.anchors(outputs, size)
        everywhere = jnp.concatenate(anchors)
        sides = everywhere[:, 2] - everywhere[:, 0]
        last = len(everywhere) - len(anchors[-1])
        lower = (4 * sides).at[: len(anchors[0])].set(0)
        upper = (8 * sides).at[last:].set(jnp.inf)
        boxes, classes, valid = truth['boxes'], truth['classes'], truth['valid'] > 0
        real = one_stage.real_objects(boxes, classes) & valid[:, None]

        def assign(boxes: Array, real: Array) -> Array:
            points = (everywhere[:, :2] + everywhere[:, 2:]) / 2
            return assign_by_centre(boxes, real, points, sides, jnp.stack([lower, upper], axis=1), self.radius)

        assigned = jax.vmap(assign)(boxes, real)
        targets = one_stage.targets(assigned, boxes, classes, everywhere)
        levels = zip(outputs.values(), anchors, *(one_stage.split(each, outputs) for each in targets), strict=True)
        of_classes = of_boxes = of_centerness = jnp.zeros(len(boxes))
        for level, its_anchors, its_classes, its_boxes in levels:
            predicted = {name: one_stage.flat(values) for name, values in level.items()}
            of_classes += one_stage.focal_loss(predicted['classes'], its_classes).sum(1)
            loss = giou_loss(decode_distances(predicted['boxes'], its_anchors), its_boxes)
            of_boxes += jnp.where(its_classes >= 0, loss, 0).sum(1)
            centre = _centerness(encode_distances(its_boxes, its_anchors))
            loss = one_stage.binary_cross_entropy(predicted['centerness'], centre)
            of_centerness += jnp.where(its_classes >= 0, loss, 0).sum(1)
        scale = valid.sum() / jnp.maximum((assigned >= 0).sum(), 1)
        totals = {'classes': of_classes, 'boxes': of_boxes, 'centerness': of_centerness}
        return {name: jnp.where(valid, each * scale, 0) for name, each in totals.items()}

    def detections(
        self, outputs: Outputs, size: Sequence[int], extent: Float[Array, 'batch 2'] | None = None
    ) -> Detections:
        """Boxes in pixels of the input; the score is the geometric mean of those of the class and of the centre.

        Args:
            outputs: what the head predicts.
            size: height and width of the images.
            extent: height and width of each image without its padding, to which boxes are clipped; ``None``: ``size``.
        """

        def score(level: Mapping[str, Array]) -> Array:
            centre = jax.nn.sigmoid(level['centerness'])
            return jnp.sqrt(jax.nn.sigmoid(level['classes']) * centre[:, None])

        return one_stage.detect(
            outputs,
            self.anchors(outputs, size),
            score,
            decode_distances,
            one_stage.extents_of(outputs, size, extent),
            self.score_threshold,
            self.iou_threshold,
            self.topk,
            self.max_detections,
        )


def _centerness(distances: Float[Array, '*shape 4']) -> Float[Array, '*shape']:
    """1 at the centre of the box, 0 at its sides."""
    across, down = distances[..., 0::2], distances[..., 1::2]
    return jnp.sqrt((across.min(-1) / across.max(-1)) * (down.min(-1) / down.max(-1)))
