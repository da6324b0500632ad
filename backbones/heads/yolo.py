"""The head of YOLO11 and YOLO26: no anchors, branches of their own on every level, for boxes and for classes.

Source: ultralytics/nn/modules/head.py, ``Detect``; losses: ``yolo_losses.py``. YOLO26 has two copies of the branches:
one-to-many, which teaches backbone and neck, and one-to-one, whose detections need no suppression (Wang et al. 2024,
"YOLOv10: Real-Time End-to-End Object Detection").
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.boxes.iou import clip, extents_of
from backbones.boxes.nms import Detections, suppress
from backbones.cnn.yolo import Conv, convolution
from backbones.errors import UserError, unknown
from backbones.features import Features
from backbones.heads import yolo_losses
from backbones.heads.one_stage import Outputs, best_of_level, exponent, flat
from backbones.heads.yolo_points import Points, decode, points_of
from backbones.layers.convolution import Conv as Convolution
from backbones.layers.convolution import torch_uniform

Branches = Literal['both', 'one_to_many', 'one_to_one']
# Branch → the names of its classes and boxes in the outputs of a level.
NAMES = {'one_to_many': ('classes', 'boxes'), 'one_to_one': ('one_to_one_classes', 'one_to_one_boxes')}
# A side of the images for which the biases of classes are initialised.
_USUAL_SIDE = 640


class Branch(nn.Module):
    """Boxes and classes of one level: ``depth`` convolutions each and a 1x1 convolution that predicts.

    Those for boxes are 3x3; those for classes are depthwise 3x3 and then 1x1.
    """

    num_classes: int
    bins: int
    depth: int
    box_channels: int
    class_channels: int
    class_bias: float
    conv: Conv
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, x: Float[Array, 'b h w c'], train: bool = False
    ) -> tuple[Float[Array, 'b h w classes'], Float[Array, 'b h w sides']]:
        boxes = classes = x
        for number in range(1, self.depth + 1):
            boxes = self.conv(self.box_channels, 3, name=f'box_conv{number}')(boxes, train=train)
            depthwise = partial(self.conv, classes.shape[-1], 3, groups=classes.shape[-1])
            classes = depthwise(name=f'class_depthwise{number}')(classes, train=train)
            classes = self.conv(self.class_channels, 1, name=f'class_conv{number}')(classes, train=train)
        predict = partial(Convolution, use_bias=True, kernel_init=torch_uniform, dtype=self.dtype)
        constant = nn.initializers.constant
        boxes = predict(4 * self.bins, 1, bias_init=constant(2.0), name='boxes')(boxes)
        classes = predict(self.num_classes, 1, bias_init=constant(self.class_bias), name='classes')(classes)
        return classes.astype(jnp.float32), boxes.astype(jnp.float32)


class YOLOHead(nn.Module):
    """Every point of a map predicts its distances to the sides of a box, in strides, and the probability of each class.

    The defaults are YOLO26's; YOLO11 has ``bins=16, branches='one_to_many'``, as the head ``'yolo11'`` does. Points are
    in the middle of their cells. With ``bins``, a distance is the expectation of a softmax over 0, 1, … ``bins - 1``.

    The losses are ``'classes'`` (binary cross-entropy), ``'boxes'`` (complete IoU) and ``'distances'`` (of the
    distribution with bins, otherwise L1), with their gains, divided by the sum of the scores to be reached in the whole
    batch: their mean over the valid images is the reference's loss per image (which it multiplies by the size of the
    batch). With both branches, they are weighted sums of the two. The reference moves weight from one-to-many to
    one-to-one, from 0.8 to 0.1 of the whole, while it trains; a head does not know how far a training is, so that
    ``one_to_many_weight`` is constant, by default the mean of these. No parameter is trained by both, so that it only
    scales gradients.

    Attributes:
        num_classes: number of classes.
        branches: ``'both'``; ``'one_to_many'`` alone, with non-maximum suppression of its detections; or
            ``'one_to_one'`` alone, for inference.
        bins: bins of the distribution of each distance (the reference's ``reg_max``); 1: the distance itself.
        depth: convolutions before the prediction.
        channels: channels of those for classes; ``None``: those of the finest level, or up to 100 if there are as many
            classes.
        one_to_many_weight: weight of that branch where there are both; that of the other is the rest to 1.
        score_threshold: scores of detections are above it.
        iou_threshold: largest overlap of two detections of a class, where they are suppressed.
        multi_label: whether a point may detect several classes, where they are suppressed, as in ultralytics'
            validation; otherwise only its best, as in its predictions.
        topk: best candidates that are suppressed.
        max_detections: boxes per image.
        activation: name of the activation after every convolution but the last.
        epsilon, momentum: those of every BatchNorm.
        dtype: type of the computation; outputs are float32.

    Raises:
        UserError: there is no neck, no such ``branches``, or fewer than one bin, or a negative depth.
    """

    num_classes: int
    branches: Branches = 'both'
    bins: int = 1
    depth: int = 2
    channels: int | None = None
    one_to_many_weight: float = 0.45
    score_threshold: float = 0.25
    iou_threshold: float = 0.7
    multi_label: bool = False
    topk: int = 30_000
    max_detections: int = 300
    activation: str = 'silu'
    epsilon: float = 1e-3
    momentum: float = 0.97
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        features: Features,
        maps: Mapping[str, Float[Array, 'batch rows columns c']] | None = None,
        size: tuple[int, int] | None = None,
        train: bool = False,
    ) -> dict[str, dict[str, Array]]:
        """Level → ``'classes'`` and ``'boxes'``, and ``'one_to_one_classes'`` and so on of the other branch.

        Classes are logits ``float32[batch, rows, columns, 1, classes]``, boxes ``float32[batch, rows, columns, 1, 4 *
        bins]``: all bins of left, then those of top, right and bottom.
        """
        maps = self._checked(maps)
        finest = next(iter(maps.values())).shape[-1]
        conv = convolution(self.activation, self.epsilon, self.momentum, self.dtype)
        branch = partial(
            Branch,
            self.num_classes,
            self.bins,
            self.depth,
            max(16, finest // 4, 4 * self.bins),
            self.channels or max(finest, min(self.num_classes, 100)),
        )
        outputs: dict[str, dict[str, Array]] = {}
        for level, x in maps.items():
            # Five objects among the points of an image.
            bias = math.log(5 / self.num_classes / (_USUAL_SIDE / 2 ** exponent(level)) ** 2)
            outputs[level] = {}
            for kind in self._kinds():
                module = branch(bias, conv, self.dtype, name=f'{kind}{level[1:]}')
                # One object per point is too little to learn features from.
                seen = jax.lax.stop_gradient(x) if kind == 'one_to_one' else x
                for name, each in zip(NAMES[kind], module(seen, train=train), strict=True):
                    outputs[level][name] = each[:, :, :, None]
        return outputs

    def _checked(self, maps: Mapping[str, Array] | None) -> Mapping[str, Array]:
        if maps is None:
            raise UserError("the head needs a neck, which gives it levels such as 'p3'; pass neck='yolo_pan'")
        if self.branches not in get_args(Branches):
            raise unknown('branches of the head', self.branches, get_args(Branches))
        if self.bins < 1 or self.depth < 0:
            raise UserError(f'the head needs bins >= 1 and depth >= 0, not bins={self.bins} and depth={self.depth}')
        return maps

    def _kinds(self) -> tuple[str, ...]:
        return tuple(NAMES) if self.branches == 'both' else (self.branches,)

    def points(self, outputs: Outputs, size: Sequence[int]) -> dict[str, Points]:
        """The points of each level for images of this height and width."""
        return {level: points_of(_grid(each), size) for level, each in outputs.items()}

    def losses(
        self, outputs: Outputs, truth: Mapping[str, Array], size: Sequence[int]
    ) -> dict[str, Float[Array, 'batch']]:
        """The head's losses, per image; see ``OneStageHead.losses``.

        Args:
            outputs: what the head predicts.
            truth: ``'boxes'`` ``float32[batch, objects, 4]`` in pixels of the input, ``'classes'``
                ``int32[batch, objects]``, -1 where there is no object, and ``'valid'`` ``float32[batch]``, 0 for a row
                that is no example.
            size: height and width of the images.

        Raises:
            UserError: the head has the one-to-one branch alone, which cannot teach backbone and neck.
        """
        if self.branches == 'one_to_one':
            raise UserError("a head with branches='one_to_one' is for inference; to train it, make it with 'both'")
        points = list(self.points(outputs, size).values())
        weights = {'one_to_many': 1.0}
        if self.branches == 'both':
            weights = {'one_to_many': self.one_to_many_weight, 'one_to_one': 1 - self.one_to_many_weight}
        totals: dict[str, Array] = {}
        for kind, weight in weights.items():
            predicted = (jnp.concatenate([flat(each[name]) for each in outputs.values()], 1) for name in NAMES[kind])
            most = yolo_losses.ASSIGNED[kind]
            for name, loss in yolo_losses.losses(*predicted, points, truth, size, *most).items():
                totals[name] = totals.get(name, 0) + weight * loss
        return totals

    def boxes(
        self, outputs: Outputs, size: Sequence[int], kind: Literal['one_to_many', 'one_to_one'] = 'one_to_many'
    ) -> Float[Array, 'batch n 4']:
        """The boxes of all points in pixels, those of the finest level first, row by row."""
        raw = jnp.concatenate([flat(each[NAMES[kind][1]]) for each in outputs.values()], 1)
        return decode(raw, list(self.points(outputs, size).values()))

    def boxes_and_scores(
        self, outputs: Outputs, size: Sequence[int]
    ) -> tuple[Float[Array, 'batch n 4'], Float[Array, 'batch n classes']]:
        """The box of every point, not clipped, and its scores: of the one-to-one branch if there is one.

        Args:
            outputs: what the head predicts.
            size: height and width of the images.
        """
        kind = 'one_to_many' if self.branches == 'one_to_many' else 'one_to_one'
        scores = jax.nn.sigmoid(jnp.concatenate([flat(each[NAMES[kind][0]]) for each in outputs.values()], 1))
        return self.boxes(outputs, size, kind), scores

    def detections(
        self, outputs: Outputs, size: Sequence[int], extents: Float[Array, 'batch 2'] | None = None
    ) -> Detections:
        """Boxes in pixels of the input, best first, clipped to the images; of the one-to-one branch if there is one.

        Args:
            outputs: what the head predicts.
            size: height and width of the images.
            extents: height and width of each image without its padding, to which boxes are clipped; ``None``: ``size``.
        """
        boxes, scores = self.boxes_and_scores(outputs, size)
        choose = self._suppressed if self.branches == 'one_to_many' else self._best
        return jax.vmap(choose)(scores, boxes, extents_of(scores.shape[0], size, extents))

    def _suppressed(
        self, scores: Float[Array, 'n classes'], boxes: Float[Array, 'n 4'], extent: Float[Array, '2']
    ) -> Detections:
        classes = None
        if not self.multi_label:
            classes, scores = scores.argmax(-1), scores.max(-1, keepdims=True)
        best, chosen, column = best_of_level(scores, self.score_threshold, self.topk)
        label = column if classes is None else classes[chosen]
        there = best > self.score_threshold
        found = suppress(boxes[chosen], best, label, there, self.iou_threshold, self.max_detections)
        return dataclasses.replace(found, boxes=clip(found.boxes, extent))

    def _best(
        self, scores: Float[Array, 'n classes'], boxes: Float[Array, 'n 4'], extent: Float[Array, '2']
    ) -> Detections:
        # As in the reference, there are no more of them than points.
        most = min(self.max_detections, len(scores))
        best, chosen, classes = best_of_level(scores, self.score_threshold, most)
        there = best > self.score_threshold
        missing = self.max_detections - most
        found = Detections(
            boxes=jnp.where(there[:, None], clip(boxes[chosen], extent), 0),
            scores=jnp.where(there, best, 0),
            classes=jnp.where(there, classes, -1),
            valid=there,
        )
        return Detections(
            boxes=jnp.pad(found.boxes, ((0, missing), (0, 0))),
            scores=jnp.pad(found.scores, (0, missing)),
            classes=jnp.pad(found.classes, (0, missing), constant_values=-1),
            valid=jnp.pad(found.valid, (0, missing)),
        )


def _grid(level: Mapping[str, Array]) -> tuple[int, int]:
    """Rows and columns of a level."""
    rows, columns = next(iter(level.values())).shape[1:3]
    return rows, columns
