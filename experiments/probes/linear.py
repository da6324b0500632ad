"""Linear classification of frozen features: multinomial logistic regression on standardised features.

The problem is convex, so by default it is solved (``logistic.py``): the head then depends on the features, the labels
and the penalty, not on an optimizer's steps. ``adamw.py`` is the other solver.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import jax
import ml_collections
import numpy as np
from jaxtyping import Float

from backbones.errors import UserError, unknown
from experiments.probes import adamw, logistic, sweeps
from experiments.probes.common import Outcome, ProbeData, Subset, at_edge, deterministic, select

SOLVERS = ('lbfgs', 'adamw')
# Average iterations per value of C on the features of thousands of images, for estimates of time.
_USUAL_ITERATIONS = 60


def with_defaults(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Fill in the default of every key that a config lacks.

    Raises:
        UserError: an unknown solver.
    """
    settings = sweeps.linear()
    settings.update(config)
    if settings.solver not in SOLVERS:
        raise unknown('linear.solver', settings.solver, SOLVERS)
    return settings


def grid_of_c(config: ml_collections.ConfigDict) -> list[float]:
    """All values of C, smallest first.

    Raises:
        UserError: the bounds are not positive or not in order.
    """
    smallest, largest, count = config.smallest_c, config.largest_c, config.values_of_c
    if not 0 < smallest <= largest or count < 1:
        raise UserError(
            f'linear.smallest_c, linear.largest_c and linear.values_of_c are {smallest:g}, {largest:g} and {count}; '
            'expected 0 < smallest_c <= largest_c and at least one value'
        )
    # Rounded, so that a value can be typed as it is printed.
    return list(dict.fromkeys(float(f'{value:.3g}') for value in np.geomspace(smallest, largest, count)))


def workload(subsets: Iterable[tuple[int, int | None]], config: ml_collections.ConfigDict) -> tuple[int, int]:
    """Upper bound of ``(heads, examples seen)`` for the sweeps of some subsets; a path of C may end sooner.

    Args:
        subsets: size and seed (or ``None``) of each; ``lbfgs`` solves equal ones once.
    """
    settings = with_defaults(config)
    if settings.solver == 'adamw':
        heads = len(list(subsets)) * len(settings.learning_rates) * len(settings.weight_decays)
        return heads, heads * settings.steps * settings.batch_size
    sizes, grid = [size for size, _ in dict.fromkeys(subsets)], grid_of_c(settings)
    return len(sizes) * len(grid), sum(sizes) * len(grid) * _USUAL_ITERATIONS


def run(
    data: ProbeData, subsets: Sequence[Subset], config: ml_collections.ConfigDict, report: Callable[[str], None]
) -> list[Outcome]:
    """One outcome per subset: the head with the best validation score, applied to the test examples.

    Args:
        config: see ``sweeps.linear``; missing keys have their defaults.
        report: called with a short progress text.

    Raises:
        UserError: an unknown solver, or a grid without values.
    """
    settings = with_defaults(config)
    if settings.solver == 'adamw':
        return adamw.run(data, subsets, settings, report)
    return deterministic(lambda subset: _selected(data, subset, settings, report), subsets)


def _selected(
    data: ProbeData, subset: Subset, config: ml_collections.ConfigDict, report: Callable[[str], None]
) -> Outcome:
    """The minimum for the C that validation selects."""
    problem, frame = logistic.prepare(data.features, data.labels, subset.rows, data.normalisation)
    validation = frame.apply(data.features[data.validation])
    grid = grid_of_c(config)
    path = solve_path(problem, validation, data, grid, config, report)
    best = path[select([point.score for point in path], [point.loss for point in path])]
    selected = {'C': best.c}

    def apply(features: Float[np.ndarray, 'examples channels']) -> Float[np.ndarray, 'examples classes']:
        return frame.apply(features) @ best.weights

    return Outcome(
        selected=selected,
        validation_score=best.score,
        predictions={'logits': apply(data.features[data.test])},
        validation_predictions={'logits': validation @ best.weights},
        trainable_parameters=(data.features.shape[1] + 1) * data.num_classes,
        at_edge=at_edge(selected, {'C': grid}),
        choices=len(path),
        apply=apply,
    )


@dataclasses.dataclass(frozen=True)
class Point:
    """The minimum for one C.

    Attributes:
        weights: in the coordinates of the problem.
        score, loss: on the validation split.
        gradient_norm: relative to the gradient at zero.
    """

    c: float
    weights: Float[np.ndarray, 'axes+1 classes']
    score: float
    loss: float
    gradient_norm: float


def solve_path(
    problem: logistic.Problem,
    validation: Float[np.ndarray, 'validation axes+1'],
    data: ProbeData,
    grid: Sequence[float],
    config: ml_collections.ConfigDict,
    report: Callable[[str], None],
) -> list[Point]:
    """Minima from the smallest C upwards, each started from where the two before it point to.

    The larger C is, the longer a minimum takes; for separable classes the weights grow without bound. So the path ends
    once neither validation score nor loss has improved for ``patience_decades``.
    """
    at_zero = logistic.gradient_norm_at_zero(problem, data.num_classes)
    tolerance = config.tolerance * at_zero
    # Moves the features to the device once, not for every C.
    on_device = jax.device_put(problem)
    labels = data.labels[data.validation]
    start = np.zeros((problem.inputs.shape[1], data.num_classes), np.float32)
    path: list[Point] = []
    best_score, best_loss, improved_at = -1.0, float('inf'), grid[0]
    for c in grid:
        report(f'logistic regression of {len(problem.labels):,}, C = {c:g}')
        solution = logistic.solve(on_device, c, start, tolerance, config.iterations)
        weights = np.asarray(solution.weights)
        logits, loss = logistic.evaluate(weights, validation, labels)
        score = data.score(logits, labels)
        norm = float(solution.gradient_norm) / max(at_zero, 1e-30)
        path.append(Point(c, weights, score, loss, norm))
        if score > best_score or loss < best_loss:
            improved_at = c
        best_score, best_loss = max(best_score, score), min(best_loss, loss)
        if c >= improved_at * 10**config.patience_decades * 0.99:  # the grid is rounded
            break
        # Minima are nearly linear in the logarithm of C, which the grid spaces evenly: a third to a fifth of the
        # iterations that they take from the one before. A parabola through three is no better.
        start = 2 * weights - path[-2].weights if len(path) > 1 else weights
    return path
