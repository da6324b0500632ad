"""The axes that identify a row of the results: data set, backbone with weights, regime, label fraction, seed."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

RANDOM = 'random'
PIXELS = 'pixels'


@dataclasses.dataclass(frozen=True, order=True)
class Variant:
    """A backbone and its weights: a source, ``random``, or empty for raw pixels."""

    backbone: str
    weights: str

    @property
    def label(self) -> str:
        """Short text for tables."""
        return f'{self.backbone} · {self.weights}' if self.weights else self.backbone


@dataclasses.dataclass(frozen=True, order=True)
class Cell:
    """One number of a table: one head or one training run, selected on validation and tested once.

    ``head`` is that of a dense task; a classifier has only one kind.
    """

    dataset: str
    variant: Variant
    regime: str
    fraction: float
    seed: int
    head: str = ''

    def as_json(self) -> dict[str, object]:
        """The cell as a row of the results contains it."""
        # Without a head, cells keep the names of their files.
        return {
            **({'head': self.head} if self.head else {}),
            'backbone': self.variant.backbone,
            'weights': self.variant.weights,
            'dataset': self.dataset,
            'regime': self.regime,
            'fraction': self.fraction,
            'seed': self.seed,
        }

    @staticmethod
    def from_json(cell: Mapping[str, Any]) -> 'Cell':
        """The inverse of ``as_json``."""
        variant = Variant(cell['backbone'], cell['weights'])
        return Cell(cell['dataset'], variant, cell['regime'], cell['fraction'], cell['seed'], cell.get('head', ''))

    def key(self) -> str:
        """A short name for files; equal cells have equal keys."""
        return hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        """Short text for messages."""
        head = f'{self.head} · ' if self.head else ''
        return (
            f'{self.dataset} · {self.variant.label} · {head}{self.regime} · fraction {self.fraction:g} · '
            f'seed {self.seed}'
        )
