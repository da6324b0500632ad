"""The contract every backbone meets: what goes in, what comes out, what is known about it."""

import dataclasses
import itertools

import flax.struct
from jaxtyping import Array, Bool, Float

from backbones.inputs import AnyPreprocessing
from backbones.published import Licence


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


@dataclasses.dataclass(frozen=True)
class StageInfo:
    """One stage: its name, its channels, and how many input pixels (or tokens) one step of its map spans."""

    name: str
    channels: int
    stride: int


@dataclasses.dataclass(frozen=True)
class BackboneInfo:
    """Static facts about a registered backbone.

    Attributes:
        name: the registered name.
        family: ``'cnn'``, ``'vit'`` or ``'text'``.
        params: number of parameters without a classifier.
        stages: one entry per stage, from shallow to deep.
        pooled: channels of ``Features.pooled``.
        image_size: side in pixels of the square images it is meant for; 0 for texts.
        preprocessing: what its published weights expect.
        weights: sources of published weights, in the form ``load_weights`` takes.
        licences: of each of these, in their order.
    """

    name: str
    family: str
    params: int
    stages: tuple[StageInfo, ...]
    pooled: int
    image_size: int
    preprocessing: AnyPreprocessing
    weights: tuple[str, ...] = ()
    licences: tuple[Licence, ...] = ()
