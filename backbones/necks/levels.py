"""Which of a backbone's stages gives each level of a neck.

Level ``'p3'`` has a nominal stride of 2**3 pixels, and so on. A level takes the deepest of the stages whose stride is
nearest to its own (in powers of two; of two equally near ones the coarser), and where that is not its own stride, the
map is halved by a max-pool or doubled by bilinear interpolation until it is.

So a ResNet gives p3, p4 and p5 its last three stages; a VGG, whose six stages have strides 1 to 32, its last three;
and a ViT, whose maps all have one stride, its last map at three sizes, which Li et al. 2022, "Exploring Plain Vision
Transformer Backbones for Object Detection" (section 3), found to be as good as maps from several depths. A patch of 14
pixels counts as a stride of 16.
"""

import dataclasses
import math
from collections.abc import Sequence

import flax.linen as nn
from jaxtyping import Array, Float

from backbones.errors import UserError, unknown
from backbones.features import Features
from backbones.layers.pooling import max_pool
from backbones.layers.resizing import resize

__all__ = ['Level', 'choose', 'gather', 'of_stages', 'resample', 'resize']


@dataclasses.dataclass(frozen=True)
class Level:
    """A level of a neck and where it comes from.

    Attributes:
        exponent: logarithm of its nominal stride to base 2.
        stage: the stage that it is made of.
        halvings: how often the stage's map is halved; negative: doubled.
    """

    exponent: int
    stage: str
    halvings: int = 0

    @property
    def name(self) -> str:
        """Such as ``'p3'``."""
        return f'p{self.exponent}'


def choose(backbone: nn.Module, strides: Sequence[int], deepest: bool = False) -> tuple[Level, ...]:
    """The levels of these strides, by the rule above.

    Args:
        backbone: a module with ``stage_strides``.
        strides: powers of two, each larger than the one before.
        deepest: whether all levels are made of the deepest stage.

    Raises:
        UserError: other strides.
    """
    exponents = [stride.bit_length() - 1 for stride in strides if type(stride) is int and stride > 0]
    if not exponents or [2**each for each in exponents] != list(strides) or exponents != sorted(set(exponents)):
        raise UserError(f'the strides of a neck are growing powers of two such as (8, 16, 32), not {tuple(strides)}')
    own = [round(math.log2(stride)) for stride in backbone.stage_strides()]
    levels = []
    for exponent in exponents:
        stages = range(len(own))[-1:] if deepest else range(len(own))
        nearest = min(stages, key=lambda index: (abs(own[index] - exponent), -own[index], -index))
        levels.append(Level(exponent, f'stage{nearest + 1}', exponent - own[nearest]))
    return tuple(levels)


def of_stages(backbone: nn.Module, stages: Sequence[str]) -> tuple[Level, ...]:
    """These stages as they are, also where two have the same stride: the first has its own level, each other the next.

    Raises:
        UserError: there is no such stage.
    """
    strides = backbone.stage_strides()
    names = [f'stage{number}' for number in range(1, len(strides) + 1)]
    for stage in stages:
        if stage not in names:
            raise unknown('stage of the backbone', stage, names)
    first = round(math.log2(strides[names.index(stages[0])]))
    return tuple(Level(first + index, stage) for index, stage in enumerate(stages))


def gather(levels: Sequence[Level], features: Features) -> dict[str, Float[Array, 'batch rows columns channels']]:
    """The map of each level, from fine to coarse."""
    return {level.name: resample(features.stages[level.stage], level.halvings) for level in levels}


def resample(
    x: Float[Array, 'batch height width channels'], halvings: int
) -> Float[Array, 'batch rows columns channels']:
    """Halve a map by max-pooling (an odd last row or column counts), or double it by bilinear interpolation."""
    for _ in range(halvings):
        x = max_pool(x, 2, 2, ceil=True)
    if halvings < 0:
        x = resize(x, tuple(side * 2**-halvings for side in x.shape[1:3]))
    return x
