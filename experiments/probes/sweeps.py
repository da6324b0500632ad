"""The sweeps of the heads on frozen features, as configs: what each selects from; these need no JAX."""

from collections.abc import Callable, Mapping

import ml_collections


def linear() -> ml_collections.ConfigDict:
    """The sweep, which is the same for every backbone."""
    config = ml_collections.ConfigDict()
    config.solver = 'lbfgs'  # or 'adamw'
    # lbfgs: scikit-learn's C, evenly spaced on a logarithmic scale.
    config.smallest_c = 1e-6
    config.largest_c = 1e6
    config.values_of_c = 25
    config.patience_decades = 3.0  # stop after this many of C without a better validation score or loss
    config.tolerance = 1e-5  # of the gradient norm, relative to that at zero; less for separable classes
    config.iterations = 3000  # limit for each C
    # adamw:
    config.learning_rates = (1e-3, 3e-3, 1e-2, 3e-2)
    config.weight_decays = (1e-3, 1e-1, 1.0)
    config.steps = 400
    config.batch_size = 128
    return config


def ridge() -> ml_collections.ConfigDict:
    """The penalties, relative to the mean eigenvalue so that one range fits any number of channels and examples."""
    config = ml_collections.ConfigDict()
    config.smallest_penalty = 1e-6
    config.largest_penalty = 1e3
    config.penalties = 37
    return config


def knn() -> ml_collections.ConfigDict:
    """Candidate numbers of neighbours (those larger than a subset are left out), and the temperature."""
    config = ml_collections.ConfigDict()
    config.neighbours = (1, 5, 10, 20, 100, 200)
    config.temperature = 0.07
    return config


def attentive() -> ml_collections.ConfigDict:
    """The sweep, which is the same for every backbone."""
    config = ml_collections.ConfigDict()
    config.queries = 8
    config.learning_rates = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    config.weight_decays = (0.0, 1e-1, 1.0)
    config.steps = 1000
    config.batch_size = 128
    return config


# By the name of the regime, as ``probes.TABLE`` has the heads themselves.
TABLE: Mapping[str, Callable[[], ml_collections.ConfigDict]] = {
    'linear': linear,
    'ridge': ridge,
    'knn': knn,
    'attentive': attentive,
}
