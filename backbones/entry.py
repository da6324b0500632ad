"""What the registry says of one backbone: its row, and the facts that follow from it."""

import dataclasses
from collections.abc import Callable, Mapping

import flax.linen as nn

from backbones.inputs import AnyPreprocessing
from backbones.published import Licence


@dataclasses.dataclass(frozen=True)
class Entry:
    """One row of the table: how to build a backbone, and what has been published about it.

    Attributes:
        constructor: returns the linen module, which itself knows its stages (``stage_channels``, ``stage_strides``,
            ``pooled_channels``).
        family: ``'cnn'``, ``'vit'`` or ``'text'``.
        params: number of parameters without a classifier.
        preprocessing: what its usual weights expect.
        dropout: rate before the classifier while training.
        layout_preprocessing: what the weights of a layout expect, where that differs from ``preprocessing``.
    """

    constructor: Callable[..., nn.Module]
    family: str
    params: int
    preprocessing: AnyPreprocessing
    dropout: float = 0.0
    layout_preprocessing: Mapping[str, AnyPreprocessing] = dataclasses.field(default_factory=dict)


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
