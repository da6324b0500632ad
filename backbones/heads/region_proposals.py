"""Region proposals: boxes around whatever may be an object, from anchors at every point of the maps.

Source: Ren et al. 2015, "Faster R-CNN"; torchvision/models/detection/rpn.py.
"""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from backbones.boxes.coding import decode_deltas
from backbones.boxes.iou import clip
from backbones.boxes.nms import suppress
from backbones.heads.one_stage import flat
from backbones.heads.towers import Tower, normal
from backbones.layers.convolution import Conv

# Proposals have at least such sides, in pixels.
_SMALLEST_SIDE = 1e-3


class RegionProposals(nn.Module):
    """3x3 convolutions and two predictions at every point, shared by all levels.

    Attributes:
        anchors: number of anchors at every point.
        depth: number of 3x3 convolutions.
        channels: channels of each; ``None``: those of the maps.
        dtype: type of the computation; outputs are float32.
    """

    anchors: int
    depth: int = 1
    channels: int | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, maps: Mapping[str, Float[Array, 'batch rows columns c']]) -> dict[str, dict[str, Array]]:
        """Of each level: ``'objectness'``, a logit for each anchor, and ``'boxes'``, the deltas of its box."""
        tower = Tower(self.depth, self.channels, dtype=self.dtype, name='tower')
        objectness, boxes = (
            Conv(count, 1, use_bias=True, kernel_init=normal, dtype=self.dtype, name=name)
            for name, count in (('objectness', self.anchors), ('box_deltas', 4 * self.anchors))
        )
        outputs = {}
        for level, x in maps.items():
            seen = tower(x)
            outputs[level] = {
                'objectness': objectness(seen).astype(jnp.float32),
                'boxes': boxes(seen).astype(jnp.float32).reshape(*seen.shape[:3], self.anchors, 4),
            }
        return outputs


def propose(
    outputs: Mapping[str, Mapping[str, Array]],
    anchors: Sequence[Float[Array, 'n 4']],
    extents: Float[Array, 'batch 2'],
    candidates: int,
    most: int,
    threshold: float = 0.0,
    iou_threshold: float = 0.7,
) -> tuple[Float[Array, 'batch most 4'], Bool[Array, 'batch most']]:
    """The best boxes of all levels, clipped to the images; no gradient flows through them.

    Args:
        outputs: see ``RegionProposals``.
        anchors: those of each level.
        extents: height and width of each image.
        candidates: boxes that each level may contribute, before those that overlap better ones are taken out.
        most: boxes in an image.
        threshold: smallest probability that there is an object.
        iou_threshold: largest overlap of two boxes of a level.

    Returns:
        Boxes, best first, and which of them there are.
    """

    def of_one_image(levels: Sequence[Mapping[str, Array]], extent: Float[Array, '2']):
        found = []
        for index, (level, its_anchors) in enumerate(zip(levels, anchors, strict=True)):
            objectness, deltas = level['objectness'], level['boxes']
            best, chosen = jax.lax.top_k(objectness, min(candidates, len(objectness)))
            boxes = clip(decode_deltas(deltas[chosen], its_anchors[chosen]), extent)
            found.append((boxes, jax.nn.sigmoid(best), jnp.full(len(best), index)))
        boxes, scores, indices = (jnp.concatenate(each) for each in zip(*found, strict=True))
        there = (boxes[:, 2:] - boxes[:, :2] >= _SMALLEST_SIDE).all(-1) & (scores >= threshold)
        kept = suppress(boxes, scores, indices, there, iou_threshold, min(most, len(boxes)))
        return kept.boxes, kept.valid

    levels = [{name: flat(values) for name, values in each.items()} for each in outputs.values()]
    levels = jax.lax.stop_gradient(levels)
    return jax.vmap(of_one_image)(levels, extents)
