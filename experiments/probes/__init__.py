"""Heads on frozen features: one explicit table of regimes."""

from collections.abc import Callable

from experiments.probes import attentive, knn, linear, ridge
from experiments.results.keys_of_cells import NORMALISED, TAPS_OF_POSITIONS

__all__ = ['NORMALISED', 'TABLE', 'TAPS_OF_POSITIONS']

TABLE: dict[str, Callable] = {
    'linear': linear.run,
    'ridge': ridge.run,
    'knn': knn.run,
    'attentive': attentive.run,
}
