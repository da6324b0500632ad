"""The contract every backbone meets: what comes out of it."""

import itertools

import flax.struct
from jaxtyping import Array, Bool, Float


@flax.struct.dataclass
class Features:
    """What a backbone returns.

    Attributes:
        stages: feature maps ``'stage1'`` to ``'stageN'``, NHWC for CNN and ViT alike, from shallow to deep; of a text
            encoder ``[batch, length, channels]``.
        pooled: what the reference's classifier sees, after the final normalisation and the pooling.
        tokens: prefix tokens (class token first), then patches, after the final normalisation unless that follows the
            pooling, or the tokens of a text; ``None`` for a CNN, but for DINOv3's.
        mask: which tokens are of the text and not padding; ``None`` for images.
    """

    stages: dict[str, Float[Array, 'batch *positions channels']]
    pooled: Float[Array, 'batch channels']
    tokens: Float[Array, 'batch tokens channels'] | None = None
    mask: Bool[Array, 'batch tokens'] | None = None


def quarters(depth: int) -> tuple[int, ...]:
    """Blocks of each stage of a transformer: a stage ends after the block at each quarter of its depth, rounded up."""
    ends = [-(-number * depth // 4) for number in range(5)]
    return tuple(end - start for start, end in itertools.pairwise(ends))
