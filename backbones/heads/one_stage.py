"""What one-stage detectors share: the walk over levels in losses and detections, the focal loss, the best candidates.

Source: Lin et al. 2017, "Focal Loss for Dense Object Detection"; torchvision/models/detection/retinanet.py, fcos.py.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from backbones.boxes.anchors import grid_anchors
from backbones.boxes.iou import clip, extents_of
from backbones.boxes.nms import Detections, suppress

# Level → 'classes', 'boxes' and what else a head predicts, each ``[batch, rows, columns, anchors, …]``.
Outputs = Mapping[str, Mapping[str, Array]]


def exponent(level: str) -> int:
    """The 3 of ``'p3'``, whose nominal stride is 2**3 pixels."""
    return int(level[1:])


def real_objects(boxes: Float[Array, '*shape 4'], classes: Int[Array, '*shape']) -> Bool[Array, '*shape']:
    """Which objects there are: not those of the padding, nor those without an area, which no anchor can predict."""
    return (classes >= 0) & (boxes[..., 2:] > boxes[..., :2]).all(-1)


def targets(
    assigned: Int[Array, 'batch n'],
    boxes: Float[Array, 'batch objects 4'],
    classes: Int[Array, 'batch objects'],
    anchors: Float[Array, 'n 4'],
) -> tuple[Int[Array, 'batch n'], Float[Array, 'batch n 4']]:
    """Class and box of the object of each anchor; without an object -1, and the anchor itself.

    The box of an anchor without an object is not trained on, but its loss must be finite.
    """
    found, there = jnp.maximum(assigned, 0), assigned >= 0
    return (
        jnp.where(there, jnp.take_along_axis(classes, found, 1), -1),
        jnp.where(there[..., None], jnp.take_along_axis(boxes, found[..., None], 1), anchors),
    )


def split(values: Array, outputs: Outputs) -> list[Array]:
    """Cut ``[batch, anchors of all levels, …]`` into the levels."""
    sizes = [math.prod(each['boxes'].shape[1:4]) for each in outputs.values()]
    return jnp.split(values, np.cumsum(sizes)[:-1].tolist(), axis=1)


def flat(values: Float[Array, 'batch rows columns anchors ...']) -> Float[Array, 'batch n ...']:
    """All anchors of a level one after the other, as torchvision orders them."""
    return values.reshape(values.shape[0], -1, *values.shape[4:])


def focal_loss(
    logits: Float[Array, '*shape classes'], classes: Int[Array, '*shape'], alpha: float = 0.25, gamma: float = 2.0
) -> Float[Array, '*shape']:
    """The sigmoid focal loss, summed over the classes.

    Args:
        logits: one per class.
        classes: from 0; -1 for background.
        alpha: weight of the class that is there; that of the others is the rest to 1.
        gamma: how much what is predicted well counts less.
    """
    there = classes[..., None] == jnp.arange(logits.shape[-1])
    cross_entropy = jnp.maximum(logits, 0) - logits * there + jnp.log1p(jnp.exp(-jnp.abs(logits)))
    probability = jax.nn.sigmoid(logits)
    missed = jnp.where(there, 1 - probability, probability)
    return (jnp.where(there, alpha, 1 - alpha) * cross_entropy * missed**gamma).sum(-1)


def binary_cross_entropy(logits: Float[Array, '*shape'], targets: Float[Array, '*shape']) -> Float[Array, '*shape']:
    """That of a sigmoid with a target between 0 and 1."""
    return jnp.maximum(logits, 0) - logits * targets + jnp.log1p(jnp.exp(-jnp.abs(logits)))


def best_of_level(
    scores: Float[Array, 'n classes'], threshold: float, most: int
) -> tuple[Float[Array, 'k'], Int[Array, 'k'], Int[Array, 'k']]:
    """The best pairs of an anchor and a class, of those above the threshold.

    Returns:
        Scores (0 where there are no more), anchors and classes, best first; of equal scores the first of the level.
    """
    count, classes = scores.shape
    # Whatever is among the best is among the best anchors' scores, and those are far fewer.
    anchors = jnp.sort(jax.lax.top_k(scores.max(-1), min(most, count))[1])
    among = scores[anchors].reshape(-1)
    best, pairs = jax.lax.top_k(jnp.where(among > threshold, among, 0), min(most, among.size))
    return best, anchors[pairs // classes], pairs % classes


class OneStageHead(nn.Module):
    """Base of the heads of one-stage detectors: the same convolutions on all levels, anchors at every point of a map.

    A head says what it predicts (``__call__``), where its anchors are (``cells``), which object each of them is to
    predict (``assign``), what a wrong prediction costs (``losses_of_level``, ``normalised``), and what a prediction
    means (``scores``, ``decode``).

    Attributes:
        num_classes: number of classes.
        depth: convolutions per tower.
        channels: channels of the towers; ``None``: those of the maps.
        norm: what the towers have between a convolution and its ReLU: ``'group'``, a GroupNorm, or ``'none'``.
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
    score_threshold: float = 0.05
    iou_threshold: float = 0.5
    topk: int = 1000
    max_detections: int = 100
    dtype: jnp.dtype = jnp.float32

    def cells(self, level: str) -> Float[np.ndarray, 'anchors 4']:
        """A level's anchors around the origin, in pixels."""
        raise NotImplementedError

    def assign(
        self,
        boxes: Float[Array, 'objects 4'],
        real: Bool[Array, 'objects'],
        anchors: Sequence[Float[Array, 'n 4']],
    ) -> Int[Array, 'n']:
        """The index of the object that each anchor of each level is to predict; negative where there is none."""
        raise NotImplementedError

    def losses_of_level(
        self,
        predicted: Mapping[str, Array],
        anchors: Float[Array, 'n 4'],
        assigned: Int[Array, 'batch n'],
        classes: Int[Array, 'batch n'],
        boxes: Float[Array, 'batch n 4'],
    ) -> dict[str, Float[Array, 'batch n']]:
        """The losses of each anchor of a level, by name; classes and boxes are those of ``targets``."""
        raise NotImplementedError

    def normalised(
        self, total: Float[Array, 'batch'], there: Bool[Array, 'batch n'], valid: Bool[Array, 'batch']
    ) -> Float[Array, 'batch']:
        """Sums over anchors in relation to the number of anchors that have an object (``there``)."""
        raise NotImplementedError

    def scores(self, level: Mapping[str, Array]) -> Float[Array, 'n classes']:
        """The score of each class, from a level's predictions, all anchors one after the other."""
        raise NotImplementedError

    def decode(self, boxes: Float[Array, '*shape 4'], anchors: Float[Array, '*shape 4']) -> Float[Array, '*shape 4']:
        """Boxes in pixels from what is predicted of them."""
        raise NotImplementedError

    def anchors(self, outputs: Outputs, size: Sequence[int]) -> list[Float[Array, 'n 4']]:
        """The anchors of each level for images of this height and width."""
        grids = [each['boxes'].shape[1:3] for each in outputs.values()]
        pairs = zip(outputs, grids, strict=True)
        return [jnp.asarray(grid_anchors(self.cells(level), grid, size).reshape(-1, 4)) for level, grid in pairs]

    def losses(
        self, outputs: Outputs, truth: Mapping[str, Array], size: Sequence[int]
    ) -> dict[str, Float[Array, 'batch']]:
        """The head's losses, per image; the mean over the valid images is the reference's loss of the batch.

        Args:
            outputs: what the head predicts.
            truth: ``'boxes'`` ``float32[batch, objects, 4]`` in pixels of the input, ``'classes'``
                ``int32[batch, objects]``, -1 where there is no object, and ``'valid'`` ``float32[batch]``, 0 for a row
                that is no example.
            size: height and width of the images.
        """
        anchors = self.anchors(outputs, size)
        boxes, classes, valid = truth['boxes'], truth['classes'], truth['valid'] > 0
        real = real_objects(boxes, classes) & valid[:, None]
        assigned = jax.vmap(lambda boxes, real: self.assign(boxes, real, anchors))(boxes, real)
        wanted = assigned, *targets(assigned, boxes, classes, jnp.concatenate(anchors))
        totals: dict[str, Array] = {}
        for level, *its in zip(outputs.values(), anchors, *(split(each, outputs) for each in wanted), strict=True):
            predicted = {name: flat(values) for name, values in level.items()}
            for name, loss in self.losses_of_level(predicted, *its).items():
                totals[name] = totals.get(name, 0) + loss.sum(1)
        return {
            name: jnp.where(valid, self.normalised(total, assigned >= 0, valid), 0) for name, total in totals.items()
        }

    def boxes_and_scores(
        self, outputs: Outputs, size: Sequence[int]
    ) -> tuple[Float[Array, 'batch n 4'], Float[Array, 'batch n classes']]:
        """The box of every anchor of all levels, clipped to the images, and its scores: for others to choose among.

        Args:
            outputs: what the head predicts.
            size: height and width of the images.
        """
        levels = [{name: flat(values) for name, values in level.items()} for level in outputs.values()]
        boxes = jnp.concatenate([level['boxes'] for level in levels], 1)
        decoded = self.decode(boxes, jnp.concatenate(self.anchors(outputs, size)))
        scores = jnp.concatenate([jax.vmap(self.scores)(level) for level in levels], 1)
        return clip(decoded, jnp.asarray(size, jnp.float32)), scores

    def detections(
        self, outputs: Outputs, size: Sequence[int], extents: Float[Array, 'batch 2'] | None = None
    ) -> Detections:
        """Boxes in pixels of the input: the best of every level, clipped to the images, suppressed class by class.

        Args:
            outputs: what the head predicts.
            size: height and width of the images.
            extents: height and width of each image without its padding, to which boxes are clipped; ``None``: ``size``.
        """
        anchors = self.anchors(outputs, size)

        def of_one_image(levels: Sequence[Mapping[str, Array]], extent: Float[Array, '2']) -> Detections:
            found = []
            for level, its_anchors in zip(levels, anchors, strict=True):
                scores, chosen, classes = best_of_level(self.scores(level), self.score_threshold, self.topk)
                decoded = clip(self.decode(level['boxes'][chosen], its_anchors[chosen]), extent)
                found.append((decoded, scores, classes))
            boxes, scores, classes = (jnp.concatenate(each) for each in zip(*found, strict=True))
            there = scores > self.score_threshold
            return suppress(boxes, scores, classes, there, self.iou_threshold, self.max_detections)

        levels = [{name: flat(values) for name, values in level.items()} for level in outputs.values()]
        return jax.vmap(of_one_image)(levels, extents_of(levels[0]['boxes'].shape[0], size, extents))
