"""Heads on frozen features: one explicit table of regimes."""

from collections.abc import Callable

from experiments.probes import knn, linear, ridge

TABLE: dict[str, Callable] = {'linear': linear.run, 'ridge': ridge.run, 'knn': knn.run}
