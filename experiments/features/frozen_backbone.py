"""What a frozen pass runs: a backbone with weights, or no backbone at all."""

import dataclasses

from experiments.results.axes import RANDOM


@dataclasses.dataclass(frozen=True)
class FrozenBackbone:
    """A backbone whose weights never change.

    Attributes:
        name: a registered name, or ``'pixels'`` for the images themselves.
        weights: their source, ``'random'``, or nothing for pixels.
        init_seed: what random weights are drawn from; 0 for others.
    """

    name: str
    weights: str = ''
    init_seed: int = 0

    @property
    def label(self) -> str:
        """Short text for people."""
        text = f'{self.name} · {self.weights}' if self.weights else self.name
        return f'{text} (seed {self.init_seed})' if self.weights == RANDOM else text
