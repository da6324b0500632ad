"""What a cell's result depends on, and the values that its training has instead of the config's own."""

from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from experiments.cli import work_directories
from experiments.data import options
from experiments.probes import sweeps
from experiments.results import keys_of_cells
from experiments.results.axes import Cell
from experiments.training import regimes
from experiments.training.config_keys import FREE_KEYS

# These fit a head on features that are computed once; all other regimes train with the backbone in the loop.
FROZEN_REGIMES = tuple(sweeps.TABLE)

# Keys of a training that its cell sets, and how.
_OF_CELL: Mapping[str, Callable[[Cell], Any]] = {
    'dataset': lambda cell: cell.dataset,
    'backbone': lambda cell: cell.variant.backbone,
    'weights': lambda cell: '' if not regimes.parse(cell.regime).pretrained else cell.variant.weights,
    'regime': lambda cell: cell.regime,
    'fraction': lambda cell: cell.fraction,
    'seed': lambda cell: cell.seed,
    'head': lambda cell: cell.head,
}
# Keys of a training that have the value of the ablation's own key, because all its cells share it.
SHARED = ('image_size', 'image_height', 'text_length', 'strict_weights', 'shots', *options.KEYS)
# Keys of ``config.training`` that mean nothing, since ``training_values`` sets them.
NOT_OF_TRAINING = (*_OF_CELL, 'learning_rate', *SHARED)
_NOT_READ = frozenset(f'training.{key}' for key in (*FREE_KEYS, *NOT_OF_TRAINING))

# What a training at one learning rate does not depend on: which others are tried.
SWEEP = ('training_learning_rates', 'training_extra_learning_rates')


def training_values(cell: Cell, config: ml_collections.ConfigDict, learning_rate: float) -> dict[str, Any]:
    """The values that a cell's training has instead of those of ``config.training``.

    Args:
        config: with the cell's settings in place.
    """
    own = {key: value(cell) for key, value in _OF_CELL.items()}
    return {**own, 'learning_rate': learning_rate, **{key: config[key] for key in SHARED}}


def dependencies(cell: Cell, config: Mapping[str, Any]) -> dict[str, Any]:
    """The config values, by key, that a cell's result depends on.

    The batch size of frozen passes is left out: it only says how a pass is computed. ``stored_size`` and skipped files
    are covered by the fingerprint of the data.

    Args:
        cell: its settings take the place of the config's values; its own axes, data and weights, on which its result
            depends too, are not listed.
        config: the ablation's config, nested or flat.
    """
    flat = work_directories.flatten(config)
    frozen = cell.regime in FROZEN_REGIMES
    keys = [key for key, reads in keys_of_cells.TABLE.items() if reads(cell, frozen)]
    if not flat.get('corruptions'):
        keys.remove('severities')
    if frozen:
        keys += [key for key in flat if key.startswith(f'{cell.regime}.')]
    else:
        keys += [key for key in flat if key.startswith('training.') and key not in _NOT_READ]
    settings = work_directories.as_read_back(dict(cell.settings))
    return {key: settings.get(key, flat[key]) for key in keys if key in flat}
