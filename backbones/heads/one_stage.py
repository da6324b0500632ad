"""What one-stage detectors share: towers of convolutions, the focal loss, the choice of candidates.

Source: Lin et al. 2017, "Focal Loss for Dense Object Detection"; torchvision/models/detection/retinanet.py, fcos.py.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from backbones.boxes.iou import clip
from backbones.boxes.nms import Detections, suppress
from backbones.errors import UserError, unknown
from backbones.layers.convolution import Conv
from backbones.layers.normalisation import GroupNorm

# Level → 'classes', 'boxes' and what else a head predicts, each ``[batch, rows, columns, anchors, …]``.
Outputs = Mapping[str, Mapping[str, Array]]

normal = nn.initializers.normal(0.01)
NORMS = ('none', 'group')


class Tower(nn.Module):
    """3x3 convolutions of one width, each followed by a ReLU: parameters ``conv1``, ``norm1``, ``conv2``, …

    Attributes:
        depth: number of convolutions.
        channels: channels of each; ``None``: those of the input.
        norm: what stands between a convolution and its ReLU: ``'group'``, a GroupNorm, or ``'none'``.
        use_bias: whether convolutions have a bias.
        dtype: type of the computation.
    """

    depth: int = 4
    channels: int | None = None
    norm: Literal['none', 'group'] = 'none'
    use_bias: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c2']:
        channels = self.channels or x.shape[-1]
        for number in range(1, self.depth + 1):
            convolution = Conv(
                channels, 3, use_bias=self.use_bias, kernel_init=normal, dtype=self.dtype, name=f'conv{number}'
            )
            x = convolution(x)
            if self.norm == 'group':
                x = GroupNorm(dtype=self.dtype, name=f'norm{number}')(x)
            x = nn.relu(x)
        return x


def prediction(features: int, dtype: jnp.dtype, name: str, prior: float | None = None) -> Conv:
    """The 3x3 convolution after a tower; ``prior`` is the probability that its sigmoid begins with."""
    bias = nn.initializers.zeros if prior is None else nn.initializers.constant(-math.log((1 - prior) / prior))
    return Conv(features, 3, use_bias=True, kernel_init=normal, bias_init=bias, dtype=dtype, name=name)


def checked(maps: Mapping[str, Array] | None, norm: str, depth: int) -> Mapping[str, Array]:
    """The maps, unless a head with these options cannot be made.

    Raises:
        UserError: there is no neck, an unknown norm, or a negative depth.
    """
    if maps is None:
        raise UserError("a one-stage detector needs a neck, which gives it levels such as 'p3'; pass neck='fpn'")
    if norm not in NORMS:
        raise unknown('norm of the head', norm, NORMS)
    if depth < 0:
        raise UserError(f'depth of the head must be at least 0, not {depth}')
    return maps


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


def detect(
    outputs: Outputs,
    anchors: Sequence[Float[Array, 'n 4']],
    score: Callable[[Mapping[str, Array]], Float[Array, 'batch n classes']],
    decode: Callable[[Array, Array], Array],
    extents: Float[Array, 'batch 2'],
    score_threshold: float,
    iou_threshold: float,
    topk: int,
    max_detections: int,
) -> Detections:
    """Boxes of a batch: the best of every level, decoded, clipped to the images, and suppressed class by class.

    Args:
        outputs: what the head predicts.
        anchors: those of each level.
        score: from a level's predictions, all anchors one after the other, to a score for every class.
        decode: from raw boxes and anchors to boxes.
        extents: height and width of each image, without what it is padded with.
        score_threshold: scores must be above it.
        iou_threshold: largest overlap of two boxes of a class.
        topk: number of boxes that each level may contribute.
        max_detections: number of boxes per image.
    """

    def of_one_image(levels: Sequence[Mapping[str, Array]], extent: Float[Array, '2']) -> Detections:
        found = []
        for level, boxes in zip(levels, anchors, strict=True):
            scores, chosen, classes = best_of_level(score(level), score_threshold, topk)
            decoded = clip(decode(level['boxes'][chosen], boxes[chosen]), extent)
            found.append((decoded, scores, classes))
        boxes, scores, classes = (jnp.concatenate(each) for each in zip(*found, strict=True))
        return suppress(boxes, scores, classes, scores > score_threshold, iou_threshold, max_detections)

    levels = [{name: flat(values) for name, values in level.items()} for level in outputs.values()]
    return jax.vmap(of_one_image)(levels, extents)


def extents_of(
    outputs: Outputs, size: Sequence[int], extent: Float[Array, 'batch 2'] | None
) -> Float[Array, 'batch 2']:
    """Height and width that each image's boxes are clipped to: ``extent``, or those of the input."""
    batch = next(iter(outputs.values()))['boxes'].shape[0]
    return jnp.broadcast_to(jnp.asarray(size if extent is None else extent, jnp.float32), (batch, 2))
