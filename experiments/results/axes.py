"""The axes that identify a row of the results.

They are data set, backbone with weights, regime, head, label fraction and seed, and any further config key that has
several values: a setting.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

RANDOM = 'random'
# What takes the place of a backbone's features: those of the images themselves, and of the texts.
PIXELS, TFIDF = 'pixels', 'tfidf'
BASELINES = (PIXELS, TFIDF)

# The config keys of an ablation that are axes whatever they contain.
BASE_AXES = ('backbones', 'datasets', 'regimes', 'heads', 'fractions', 'seeds')
# Config keys and values.
Settings = tuple[tuple[str, Any], ...]


@dataclasses.dataclass(frozen=True, order=True)
class Variant:
    """A backbone and its weights: a source, ``random``, or empty for a baseline."""

    backbone: str
    weights: str

    @property
    def label(self) -> str:
        """Short text for tables."""
        return f'{self.backbone} · {self.weights}' if self.weights else self.backbone


@dataclasses.dataclass(frozen=True, order=True)
class Cell:
    """One number of a table: one head or one training run, selected on validation and tested once.

    ``head`` is that of a dense task; a classifier has only one kind. ``settings`` are the values of the config keys
    that have several, as far as the cell depends on them, in the order of their names. ``shots``, where all cells of an
    ablation have the same, are for people alone: cells that differ in nothing else are equal.
    """

    dataset: str
    variant: Variant
    regime: str
    fraction: float
    seed: int
    head: str = ''
    settings: Settings = ()
    shots: int = dataclasses.field(default=0, compare=False)

    def as_json(self) -> dict[str, object]:
        """The cell as a row of the results contains it."""
        # Without a head and settings, cells keep the names of their files.
        return {
            **({'head': self.head} if self.head else {}),
            **({'settings': dict(self.settings)} if self.settings else {}),
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
        return Cell(
            cell['dataset'],
            variant,
            cell['regime'],
            cell['fraction'],
            cell['seed'],
            cell.get('head', ''),
            settings_from_json(cell.get('settings', {})),
        )

    def key(self) -> str:
        """A short name for files; equal cells have equal keys."""
        return hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def images_per_class(self) -> int:
        """Labelled images of each class; 0 where the fraction counts."""
        return dict(self.settings).get('shots', self.shots)

    @property
    def label(self) -> str:
        """Short text for messages."""
        head = f'{self.head} · ' if self.head else ''
        settings = ''.join(f'{text} · ' for text in settings_in_words(self.settings))
        share = f'fraction {self.fraction:g} · '
        if self.images_per_class:
            share = '' if 'shots' in dict(self.settings) else f'shots {self.shots} · '
        return f'{self.dataset} · {self.variant.label} · {head}{self.regime} · {settings}{share}seed {self.seed}'


def settings_from_json(settings: Mapping[Any, Any]) -> Settings:
    """Settings as a row of the results contains them, in which a tuple became a list."""
    return tuple((key, _hashable(value)) for key, value in settings.items())


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


def setting_in_words(value: object) -> str:
    """The value of a setting, as short text."""
    if isinstance(value, tuple):
        return f'({", ".join(map(setting_in_words, value))})'
    return f'{value:g}' if isinstance(value, float) else str(value)


def settings_in_words(settings: Iterable[tuple[str, Any]]) -> list[str]:
    """Key and value of each setting, as short text."""
    return [f'{key} {setting_in_words(value)}' for key, value in settings]
