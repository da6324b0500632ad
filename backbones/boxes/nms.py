"""Non-maximum suppression of one image's boxes, with static shapes.

Source: torchvision/ops/boxes.py, ``batched_nms``, and torchvision/csrc/ops/cpu/nms_kernel.cpp.
"""

from functools import partial

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from backbones.boxes.iou import iou

# Up to so many boxes, torchvision moves each class to a place of its own (on the CPU).
MOVED = 1000


@flax.struct.dataclass
class Detections:
    """Boxes found in images, best first, padded.

    Attributes:
        boxes: left, top, right, bottom in pixels of the input; zeros where there is none.
        scores: from 0 to 1; 0 where there is no box.
        classes: from 0; -1 where there is no box.
        valid: whether there is a box.
    """

    boxes: Float[Array, '*batch most 4']
    scores: Float[Array, '*batch most']
    classes: Int[Array, '*batch most']
    valid: Bool[Array, '*batch most']


# Compiled as a function of its own name, by which an exporter knows it.
@partial(jax.jit, static_argnames='most')
def suppress(
    boxes: Float[Array, 'n 4'],
    scores: Float[Array, 'n'],
    classes: Int[Array, 'n'],
    valid: Bool[Array, 'n'],
    threshold: float,
    most: int,
) -> Detections:
    """The best box of each object: greedily, a box goes if a better one of its class overlaps it by more than this.

    The time is proportional to ``n * most``: one box is taken at a time, and those that it suppresses are struck out.
    Of equal scores the first comes first.

    Args:
        boxes: inside the image, so without negative coordinates.
        scores: one per box.
        classes: one per box; boxes of different classes do not suppress each other.
        valid: which of the boxes there are.
        threshold: largest overlap that is kept (intersection over union).
        most: number of boxes that are kept.
    """
    compared = _moved(boxes, classes, valid)

    def some_are_left(state):
        left, _, count = state
        return (count < most) & left.any()

    def take_the_best(state):
        left, taken, count = state
        best = jnp.where(left, scores, -jnp.inf).argmax()
        suppressed = (iou(compared[best], compared) > threshold) & (classes == classes[best])
        return left & ~suppressed.at[best].set(True), taken.at[count].set(best), count + 1

    # Indices fit in int32 as long as there are fewer boxes than that.
    state = valid, jnp.zeros(most, jnp.int32), jnp.int32(0)
    _, taken, count = jax.lax.while_loop(some_are_left, take_the_best, state)
    kept = jnp.arange(most) < count
    return Detections(
        boxes=jnp.where(kept[:, None], boxes[taken], 0),
        scores=jnp.where(kept, scores[taken], 0),
        classes=jnp.where(kept, classes[taken], -1),
        valid=kept,
    )


def _moved(boxes: Float[Array, 'n 4'], classes: Int[Array, 'n'], valid: Bool[Array, 'n']) -> Float[Array, 'n 4']:
    """The boxes as torchvision compares them.

    Up to 1,000 boxes, each class is moved away from the others by a multiple of the largest coordinate. The coordinates
    of the last of 91 classes are thereby rounded to 1/128 of a pixel, which decides for some pairs at the threshold.
    """
    largest = jnp.where(valid[:, None], boxes, -jnp.inf).max(initial=0.0)
    shift = classes.astype(boxes.dtype) * (largest + 1)
    return jnp.where(valid.sum() > MOVED, boxes, boxes + shift[:, None])
