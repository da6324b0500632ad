"""Heads on frozen features: one explicit table of regimes."""

from collections.abc import Callable

from experiments.probes import attentive, knn, linear, ridge

TABLE: dict[str, Callable] = {
    'linear': linear.run,
    'ridge': ridge.run,
    'knn': knn.run,
    'attentive': attentive.run,
}

# The tap of regimes whose heads take ``float[examples, positions, channels]``; the others take vectors, from the tap of
# the config.
TAPS_OF_POSITIONS: dict[str, str] = {'attentive': 'grid'}

# Those whose features are normalised as the config says; nearest neighbours compare directions (cosine similarity).
NORMALISED = ('linear', 'ridge', 'attentive')
