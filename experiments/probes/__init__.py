"""Heads on frozen features: one explicit table of regimes."""

from collections.abc import Callable

from experiments.probes import knn, linear, ridge

TABLE: dict[str, Callable] = {'linear': linear.run, 'ridge': ridge.run, 'knn': knn.run}

# Those whose features are normalised as the config says; nearest neighbours compare directions (cosine similarity).
NORMALISED = ('linear', 'ridge')
