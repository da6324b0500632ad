"""Faster R-CNN: what may be an object is proposed first, and then looked at more closely.

Source: Ren et al. 2015, "Faster R-CNN"; Lin et al. 2017, "Feature Pyramid Networks for Object Detection";
torchvision/models/detection/faster_rcnn.py, rpn.py and roi_heads.py.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from backbones.boxes.anchors import cell_anchors, grid_anchors
from backbones.boxes.coding import decode_deltas
from backbones.boxes.iou import clip, extents_of
from backbones.boxes.nms import Detections, suppress
from backbones.boxes.roi_align import level_of, roi_align
from backbones.errors import UserError, unknown
from backbones.features import Features
from backbones.heads.box_head import BoxHead
from backbones.heads.one_stage import exponent
from backbones.heads.region_proposals import RegionProposals, propose
from backbones.heads.two_stage import DELTA_SCALE, TwoStageOutputs, draw, losses
from backbones.necks.levels import Level, gather

# Sides in pixels of the anchors on a single map.
ALL_SIZES = (32.0, 64.0, 128.0, 256.0, 512.0)
# The coarsest level that boxes are pooled from; coarser ones only propose.
_COARSEST_POOLED = 5
# Detections have at least such sides, in pixels.
_SMALLEST_SIDE = 1e-2


class FasterRCNN(nn.Module):
    """A region proposal network on all levels, and a head for what is in the boxes that it proposes.

    Without a neck it works on one map of the backbone. The losses are ``'objectness'`` and ``'proposals'`` of the first
    stage, ``'classes'`` and ``'boxes'`` of the second. Passed the truth, the head trains on a sample: objects' boxes
    join the proposals, and anchors and proposals are drawn with the random key ``'sampling'``. Otherwise all count.

    Attributes:
        num_classes: number of classes of objects; the background is one more output.
        depth: 3x3 convolutions of the region proposal network (torchvision's v2: 2).
        channels: their channels, and those of the second stage's convolutions; ``None``: those of the maps.
        levels: the map of the backbone that the head works on where there is no neck.
        anchor_size: side of a level's anchors, in its nominal strides.
        anchor_sizes: sides in pixels of all anchors at every point of every level; empty: one of ``anchor_size``, and
            on a single map ``ALL_SIZES``.
        ratios: of height to width of the anchors.
        convolutions: 3x3 convolutions with BatchNorm in the second stage (v2: 4).
        layers: fully connected layers after these (v2: 1).
        features: their outputs; ``None``: four times as many as there are channels, and at most 1024.
        resolution: side of the map that a box is pooled to.
        pooled: levels that boxes are pooled from; empty: all to p5.
        candidates: boxes that each level contributes, in training and otherwise.
        proposals: boxes of an image that the second stage sees at most, in training and otherwise.
        proposal_threshold: smallest probability of a proposal.
        proposal_iou: largest overlap of two proposals of a level.
        sampled_anchors, sampled_proposals: how many of an image are drawn, and the largest share with an object.
        score_threshold: scores of detections are above it.
        iou_threshold: largest overlap of two detections of a class.
        max_detections: boxes per image.
        dtype: type of the computation; outputs are float32.
    """

    num_classes: int
    depth: int = 1
    channels: int | None = None
    levels: tuple[Level, ...] = ()
    anchor_size: float = 8.0
    anchor_sizes: tuple[float, ...] = ()
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    convolutions: int = 0
    layers: int = 2
    features: int | None = None
    resolution: int = 7
    pooled: tuple[str, ...] = ()
    candidates: tuple[int, int] = (2000, 1000)
    proposals: tuple[int, int] = (2000, 1000)
    proposal_threshold: float = 0.0
    proposal_iou: float = 0.7
    sampled_anchors: tuple[int, float] = (256, 0.5)
    sampled_proposals: tuple[int, float] = (512, 0.25)
    score_threshold: float = 0.05
    iou_threshold: float = 0.5
    max_detections: int = 100
    dtype: jnp.dtype = jnp.float32

    # What ``Model`` passes on.
    takes: ClassVar[tuple[str, ...]] = ('extents', 'truth')

    @nn.compact
    def __call__(
        self,
        features: Features,
        maps: Mapping[str, Float[Array, 'batch rows columns c']] | None,
        size: Sequence[int],
        train: bool = False,
        extents: Float[Array, 'batch 2'] | None = None,
        truth: Mapping[str, Array] | None = None,
    ) -> TwoStageOutputs:
        """Both stages.

        Args:
            features: of the backbone.
            maps: of the neck; ``None`` where there is none.
            size: height and width of the images.
            train: whether BatchNorms use the statistics of the batch.
            extents: height and width of each image without its padding, to which proposals are clipped.
            truth: see ``losses``.

        Raises:
            UserError: there is ``truth``, but no key named ``'sampling'``; or see ``create_detector``.
        """
        maps = self._maps(features, maps)
        count = len(self.cells(next(iter(maps)), len(maps)))
        predicted = RegionProposals(count, self.depth, self.channels, self.dtype, name='rpn')(maps)
        anchors = self._anchors(predicted, size)
        which = 0 if truth is not None else 1
        batch = next(iter(maps.values())).shape[0]
        extents = extents_of(batch, size, extents)
        limits = self.candidates[which], self.proposals[which], self.proposal_threshold, self.proposal_iou
        proposals, there = propose(predicted, anchors, extents, *limits)
        assigned = None
        if truth is not None:
            if not self.has_rng('sampling'):
                raise UserError("training a Faster R-CNN draws a sample; pass rngs={'sampling': jax.random.key(0)}")
            key, sizes = self.make_rng('sampling'), (self.sampled_anchors, self.sampled_proposals)
            proposals, there, assigned = draw(key, proposals, there, anchors, truth, *sizes)
        box_head = self.second_stage(next(iter(maps.values())).shape[-1])
        classes, boxes = box_head(self.pool(maps, proposals, size), there, train=train)
        return TwoStageOutputs(predicted, proposals, there, classes, boxes, assigned)

    @nn.nowrap
    def second_stage(self, channels: int) -> BoxHead:
        """What sees the part of the maps, of so many channels, inside each proposal."""
        features = self.features or min(4 * (self.channels or channels), 1024)
        sizes = self.convolutions, self.channels, self.layers, features
        return BoxHead(self.num_classes, *sizes, self.dtype, name='box_head')

    def _maps(self, features: Features, maps: Mapping[str, Array] | None) -> Mapping[str, Array]:
        if self.depth < 0 or self.convolutions < 0 or self.layers < 0:
            raise UserError(
                'depth, convolutions and layers of the head must be at least 0, not '
                f'{self.depth}, {self.convolutions} and {self.layers}'
            )
        if maps is not None:
            return maps
        if not self.levels:
            raise UserError("Faster R-CNN needs a neck, or the levels of the backbone's map; use create_detector")
        return {name: x.astype(self.dtype) for name, x in gather(self.levels, features).items()}

    def cells(self, level: str, count: int) -> Float[np.ndarray, 'anchors 4']:
        """Anchors around the origin of one of so many levels, in pixels: of all sizes, of one ratio after the other."""
        sizes = self.anchor_sizes or ((self.anchor_size * 2 ** exponent(level),) if count > 1 else ALL_SIZES)
        return cell_anchors(sizes, self.ratios)

    def _anchors(self, predicted: Mapping[str, Mapping[str, Array]], size: Sequence[int]) -> list[Array]:
        """The anchors of each level."""
        return [
            jnp.asarray(grid_anchors(self.cells(level, len(predicted)), each['boxes'].shape[1:3], size).reshape(-1, 4))
            for level, each in predicted.items()
        ]

    def pool(self, maps: Mapping[str, Array], proposals: Float[Array, 'batch n 4'], size: Sequence[int]) -> Array:
        """The part of a map inside each proposal."""
        for name in self.pooled:
            if name not in maps:
                raise unknown('level that boxes are pooled from', name, maps)
        names = self.pooled or [name for name in maps if exponent(name) <= _COARSEST_POOLED] or list(maps)
        exponents, chosen = [exponent(name) for name in names], [maps[name] for name in names]

        def of_one_image(maps: Sequence[Array], boxes: Float[Array, 'n 4']) -> Array:
            return roi_align(maps, boxes, level_of(boxes, exponents), size, self.resolution)

        return jax.vmap(of_one_image)(chosen, proposals)

    def losses(
        self, outputs: TwoStageOutputs, truth: Mapping[str, Array], size: Sequence[int]
    ) -> dict[str, Float[Array, 'batch']]:
        """The losses of both stages, per image; the mean over the valid images is the reference's loss of the batch.

        Where nothing was drawn, all anchors and proposals count: such a loss is deterministic, and smaller, as most of
        them are background.

        Args:
            outputs: what both stages predict.
            truth: ``'boxes'`` ``float32[batch, objects, 4]`` in pixels of the input, ``'classes'``
                ``int32[batch, objects]``, -1 where there is no object, and ``'valid'`` ``float32[batch]``, 0 for a row
                that is no example.
            size: height and width of the images.
        """
        return losses(outputs, truth, self._anchors(outputs.anchors, size))

    def detections(
        self, outputs: TwoStageOutputs, size: Sequence[int], extents: Float[Array, 'batch 2'] | None = None
    ) -> Detections:
        """Boxes in pixels of the input, clipped to the images, suppressed class by class.

        Args:
            outputs: what both stages predict.
            size: height and width of the images.
            extents: height and width of each image without its padding, as the model was passed it; ``None``: ``size``.
        """
        # Scores sum to one, so that no more classes than these can be above the threshold.
        most = min(self.num_classes, int(1 / max(self.score_threshold, 1e-6)))

        def of_one_image(proposals, there, logits, deltas, extent) -> Detections:
            scores, classes = jax.lax.top_k(jax.nn.softmax(logits)[:, 1:], most)
            deltas = jnp.take_along_axis(deltas, classes[..., None] + 1, 1, mode='promise_in_bounds') / DELTA_SCALE
            boxes = clip(decode_deltas(deltas, proposals[:, None]), extent)
            found = (scores > self.score_threshold) & (boxes[..., 2:] - boxes[..., :2] >= _SMALLEST_SIDE).all(-1)
            # Classes count from 1, as the reference moves them apart by their number.
            kept = suppress(
                boxes.reshape(-1, 4),
                scores.reshape(-1),
                classes.reshape(-1) + 1,
                (found & there[:, None]).reshape(-1),
                self.iou_threshold,
                self.max_detections,
            )
            return dataclasses.replace(kept, classes=jnp.where(kept.valid, kept.classes - 1, -1))

        extents = extents_of(outputs.boxes.shape[0], size, extents)
        return jax.vmap(of_one_image)(outputs.proposals, outputs.there, outputs.classes, outputs.boxes, extents)
