"""What a builder returns, and what several of them share."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

from torch import Tensor, nn

Outputs = dict[str, Tensor]


@dataclasses.dataclass
class Reference:
    """A model of a reference package.

    Attributes:
        model: with whatever weights it was made with.
        run: images ``[batch, 3, height, width]`` → ``'stage1'`` …, ``'pooled'``, ``'logits'``, and ``'tokens'`` of a
            ViT; maps in NCHW layout.
        keys: key of the model → key in the published file, where they differ.
        resample: brings a state dictionary made for ``case.file_size`` to ``case.image_size``.
    """

    model: nn.Module
    run: Callable[[Tensor], Outputs]
    keys: dict[str, str] = dataclasses.field(default_factory=dict)
    resample: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda state: state


def numbered(maps) -> Outputs:
    """``stage1`` and so on, shallow to deep."""
    return {f'stage{index}': each for index, each in enumerate(maps, start=1)}


def outputs_of(layers: Iterable[nn.Module], x: Tensor) -> Iterator[Tensor]:
    """What each layer of a chain returns."""
    for layer in layers:
        x = layer(x)
        yield x


def last_of_each_size(maps: Iterable[Tensor]) -> Outputs:
    """Stages: of the maps of one width, the last."""
    return numbered({each.shape[-1]: each for each in maps}.values())
