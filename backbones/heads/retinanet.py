"""RetinaNet: anchors of several sizes and shapes at every point of a map, trained with the focal loss.

Source: Lin et al. 2017, "Focal Loss for Dense Object Detection"; torchvision/models/detection/retinanet.py.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.boxes.anchors import cell_anchors, grid_anchors
from backbones.boxes.assignment import BETWEEN, assign_by_iou
from backbones.boxes.coding import decode_deltas, encode_deltas
from backbones.boxes.iou import giou_loss
from backbones.boxes.nms import Detections
from backbones.errors import unknown
from backbones.features import Features
from backbones.heads import one_stage
from backbones.heads.one_stage import Outputs, Tower, prediction

BOX_LOSSES = ('l1', 'giou')


class RetinaNet(nn.Module):
    """Two towers of convolutions, shared by all levels; one predicts classes, the other boxes.

    Attributes:
        num_classes: number of classes.
        depth: convolutions per tower.
        channels: channels of the towers; ``None``: those of the maps.
        norm: ``'none'``, or ``'group'`` (torchvision's v2), whose convolutions have no bias.
        anchor_size: side of a level's smallest anchors, in its nominal strides.
        anchors_per_octave: number of sizes from there to twice that, which is where the next level begins.
        ratios: of height to width of the anchors.
        box_loss: ``'l1'``, on deltas, or ``'giou'`` (torchvision's v2), on boxes.
        foreground, background: overlap with an object from which an anchor is foreground, below which background.
        score_threshold: scores of detections are above it.
        iou_threshold: largest overlap of two detections of a class.
        topk: boxes that each level may contribute.
        max_detections: boxes per image.
        dtype: type of the computation; outputs are float32.
    """

    num_classes: int
    depth: int = 4
    channels: int | None = None
    norm: Literal['none', 'group'] = 'none'
    anchor_size: float = 4.0
    anchors_per_octave: int = 3
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    box_loss: Literal['l1', 'giou'] = 'l1'
    foreground: float = 0.5
    background: float = 0.4
    score_threshold: float = 0.05
    iou_threshold: float = 0.5
    topk: int = 1000
    max_detections: int = 300
    dtype: jnp.dtype = jnp.float32

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
        class_logits = prediction(count * self.num_classes, self.dtype, 'class_logits', prior=0.01)
        box_deltas = prediction(count * 4, self.dtype, 'box_deltas')
        outputs = {}
        for level, x in one_stage.checked(maps, self.norm, self.depth).items():
            predicted = {'classes': class_logits(class_tower(x)), 'boxes': box_deltas(box_tower(x))}
            outputs[level] = {
                name: each.astype(jnp.float32).reshape(*each.shape[:3], count, -1) for name, each in predicted.items()
            }
        return outputs

    def anchor_sizes(self, level: str) -> tuple[int, ...]:
        """The sides in pixels of a level's square anchors: 32, 40 and 50 of ``'p3'``."""
        smallest = self.anchor_size * 2 ** one_stage.exponent(level)
        return tuple(int(smallest * 2 ** (step / self.anchors_per_octave)) for step in range(self.anchors_per_octave))

    def anchors(self, outputs: Outputs, size: Sequence[int]) -> list[Float[Array, 'n 4']]:
        """The anchors of each level for images of this height and width."""
        cells = [cell_anchors(self.anchor_sizes(level), self.ratios) for level in outputs]
        grids = [each['boxes'].shape[1:3] for each in outputs.values()]
        pairs = zip(cells, grids, strict=True)
        return [jnp.asarray(grid_anchors(cell, grid, size).reshape(-1, 4)) for cell, grid in pairs]

    def losses(
        self, outputs: Outputs, truth: Mapping[str, Array], size: Sequence[int]
    ) -> dict[str, Float[Array, 'batch']]:
        """Per image; the mean over the valid images is the reference's loss of the batch.

        The losses of an image's anchors are divided by the number of its anchors with an object.

        Args:
            outputs: what the head predicts.
            truth: ``'boxes'`` ``float32[batch, objects, 4]`` in pixels of the input, ``'classes'``
                ``int32[batch, objects]``, -1 where there is no object, and ``'valid'`` ``float32[batch]``, 0 for a row
                that is no example.
            size: height and width of the images.

        Returns:
            ``'classes'`` (focal) and ``'boxes'`` (L1 of the deltas, or GIoU).
        """
        anchors = self.anchors(outputs, size)
        everywhere = jnp.concatenate(anchors)
        boxes, classes, valid = truth['boxes'], truth['classes'], truth['valid'] > 0
        real = one_stage.real_objects(boxes, classes) & valid[:, None]

        def assign(boxes: Array, real: Array) -> Array:
            return assign_by_iou(boxes, real, everywhere, self.foreground, self.background)

        assigned = jax.vmap(assign)(boxes, real)
        targets = assigned, *one_stage.targets(assigned, boxes, classes, everywhere)
        levels = zip(outputs.values(), anchors, *(one_stage.split(each, outputs) for each in targets), strict=True)
        of_classes = of_boxes = jnp.zeros(len(boxes))
        for level, its_anchors, its_objects, its_classes, its_boxes in levels:
            predicted = {name: one_stage.flat(values) for name, values in level.items()}
            focal = one_stage.focal_loss(predicted['classes'], its_classes)
            of_classes += jnp.where(its_objects == BETWEEN, 0, focal).sum(1)
            loss = self._box_loss(predicted['boxes'], its_boxes, its_anchors)
            of_boxes += jnp.where(its_objects >= 0, loss, 0).sum(1)
        count = jnp.maximum((assigned >= 0).sum(1), 1)
        totals = {'classes': of_classes, 'boxes': of_boxes}
        return {name: jnp.where(valid, each / count, 0) for name, each in totals.items()}

    def _box_loss(self, deltas: Array, boxes: Array, anchors: Array) -> Array:
        if self.box_loss == 'giou':
            return giou_loss(decode_deltas(deltas, anchors), boxes)
        return jnp.abs(deltas - encode_deltas(boxes, anchors)).sum(-1)

    def detections(
        self, outputs: Outputs, size: Sequence[int], extent: Float[Array, 'batch 2'] | None = None
    ) -> Detections:
        """Boxes in pixels of the input; the score is the probability of the class.

        Args:
            outputs: what the head predicts.
            size: height and width of the images.
            extent: height and width of each image without its padding, to which boxes are clipped; ``None``: ``size``.
        """
        return one_stage.detect(
            outputs,
            self.anchors(outputs, size),
            lambda level: jax.nn.sigmoid(level['classes']),
            decode_deltas,
            one_stage.extents_of(outputs, size, extent),
            self.score_threshold,
            self.iou_threshold,
            self.topk,
            self.max_detections,
        )
