"""The subject of a frozen pass: a backbone with weights, or no backbone at all."""

import dataclasses

from experiments.results.axes import RANDOM, Variant


@dataclasses.dataclass(frozen=True)
class FrozenBackbone:
    """A backbone whose weights never change.

    Attributes:
        name: a registered name, or ``'pixels'`` for the images themselves.
        weights: their source, ``'random'``, or empty for pixels.
        init_seed: seed of random weights; 0 for others.
    """

    name: str
    weights: str = ''
    init_seed: int = 0

    @property
    def label(self) -> str:
        """A short label for tables and messages."""
        text = f'{self.name} · {self.weights}' if self.weights else self.name
        return f'{text} (seed {self.init_seed})' if self.weights == RANDOM else text


def frozen_backbone(variant: Variant, seed: int) -> FrozenBackbone:
    """The backbone whose features the heads of a cell take; only random weights depend on its seed."""
    return FrozenBackbone(variant.backbone, variant.weights, seed if variant.weights == RANDOM else 0)
