"""What the registry says of one backbone."""

import dataclasses
from collections.abc import Callable, Mapping

import flax.linen as nn

from backbones.inputs import AnyPreprocessing


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
