"""The configs that the cells of an ablation are run with."""

import functools
from collections.abc import Sequence

import ml_collections

from experiments.ablation import settings
from experiments.ablation.cells import KEYS, Cell
from experiments.ablation.dependencies import FROZEN_REGIMES, SWEEP, training_values
from experiments.cli import work_directories
from experiments.probes.common import Outcome
from experiments.results.axes import BASE_AXES, Settings


class CellConfigs:
    """The config of each cell.

    Args:
        config: the ablation's config (``cells.default_config``).
        axes: its keys that are axes beside the usual ones.
    """

    def __init__(self, config: ml_collections.ConfigDict, axes: Sequence[str]):
        self._config = config
        self._axes = axes

    @functools.cache  # noqa: B019 they live as long as their command
    def at(self, chosen: Settings) -> ml_collections.ConfigDict:
        """The config with one value for every key; not to be changed."""
        return settings.resolved(self._config, KEYS, chosen)

    def share(self, cell: Cell) -> tuple[float, int]:
        """The label fraction of a cell and its shots, which are 0 where the fraction counts."""
        return cell.fraction, self.at(cell.settings).shots

    def training(self, cell: Cell, learning_rate: float | None = None) -> ml_collections.ConfigDict:
        """The config of a cell's training; at the first learning rate, unless one is given."""
        values = self.at(cell.settings)
        if learning_rate is None:
            learning_rate = values.training_learning_rates[0]
        config = values.training.copy_and_resolve_references()
        config.update(training_values(cell, values, learning_rate))
        return config

    def recorded(self, cell: Cell, outcome: Outcome) -> dict:
        """Every config value that a cell was run with; of keys that are axes, those that it depends on."""
        config = self.at(cell.settings).to_dict()
        apart = {*BASE_AXES, 'training', *SWEEP, *self._axes} - dict(cell.settings).keys()
        chosen = {key: value for key, value in config.items() if key not in {*apart, *FROZEN_REGIMES}}
        if cell.regime in FROZEN_REGIMES:
            chosen[cell.regime] = config[cell.regime]
        else:
            training = self.training(cell, outcome.selected['learning_rate'])
            chosen |= {key: config[key] for key in SWEEP}
            chosen['training'] = training.to_dict()
        return work_directories.as_read_back(chosen)
