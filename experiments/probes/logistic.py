"""Multinomial logistic regression solved to a stated gradient norm.

The objective is scikit-learn's, ``0.5 |w|² + C Σ_i loss_i`` with an intercept that is not penalised, divided by ``C n``
so that it is a mean loss. The solver is L-BFGS (Liu & Nocedal 1989) with two changes that a linear model allows:

- The features are rotated to their principal axes, which leaves the penalty unchanged, and the initial inverse Hessian
  is diagonal instead of a multiple of the identity; it is exact up to a factor for equal class probabilities. Raw
  pixels and features that hardly vary, with condition numbers of 1e6, then converge in float32.
- Logits are linear in the step length, so a line search needs no product with the features: an iteration costs two
  products, however many step lengths are tried.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from experiments.probes.common import standardisation

# Pairs of steps and gradient differences that approximate the Hessian.
_MEMORY = 10
# A step length is accepted once the slope has fallen to this share of the slope at zero.
_SLOPE_SHARE = 0.5
_LENGTHS_TRIED = 20
# At a minimum the gradients of loss and penalty cancel; the remainder must be less than this share of either. For
# separable classes both become so small that a tolerance relative to the gradient at zero would be meaningless.
_BALANCE = 0.01
# Logits are updated step by step, and recomputed at this interval to stop rounding errors from accumulating.
_REFRESH = 32
# Iterations without a new smallest gradient norm after which rounding is taken to prevent progress. The start does not
# count: from the minimum for another C, the norm first rises.
_STAGNATION = 1000

# The reduced precision that accelerators default to is not enough for small gradients.
_product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


class Problem(NamedTuple):
    """Training examples in the coordinates of the solver.

    Attributes:
        inputs: normalised features on their principal axes, and a last column of ones for the intercept.
        labels: class of every example.
        curvature: mean square of each column.
    """

    inputs: Float[np.ndarray | Array, 'examples axes+1']
    labels: Int[np.ndarray | Array, ' examples']
    curvature: Float[np.ndarray | Array, ' axes+1']


class Frame(NamedTuple):
    """The map from raw features to the columns of ``Problem.inputs``.

    Attributes:
        mean, factor: the normalisation.
        axes: orthonormal columns; fewer than channels if there are fewer examples.
    """

    mean: Float[np.ndarray, ' channels']
    factor: Float[np.ndarray, ' channels']
    axes: Float[np.ndarray, 'channels axes']

    def apply(self, features: Float[np.ndarray, 'examples channels']) -> Float[np.ndarray, 'examples axes+1']:
        """Map raw features to the columns that the weights multiply."""
        rotated = ((features - self.mean) * self.factor) @ self.axes
        return np.concatenate([rotated, np.ones((len(rotated), 1), rotated.dtype)], axis=1)


class Solution(NamedTuple):
    """A minimum, and how closely the solver approached it.

    Attributes:
        weights: the last row is the intercept.
        objective: mean loss plus penalty.
        gradient_norm: norm of the objective's gradient.
        iterations: number of iterations.
    """

    weights: Float[Array, 'axes+1 classes']
    objective: Float[Array, '']
    gradient_norm: Float[Array, '']
    iterations: Int[Array, '']


def prepare(
    features: Float[np.ndarray, 'examples channels'],
    labels: Int[np.ndarray, ' examples'],
    rows: Int[np.ndarray, ' chosen'],
    normalisation: str = 'standardise',
) -> tuple[Problem, Frame]:
    """Gather, normalise and rotate a training subset.

    Everything done once per subset is plain NumPy, because compiling it would take longer than running it. With fewer
    examples than channels, the minimum lies in the span of the examples, so only that is kept.
    """
    mean, factor = standardisation(features, rows, normalisation)
    x = (features[rows] - mean) * factor
    examples, channels = x.shape
    span = np.linalg.qr(x.T)[0] if examples < channels else None
    reduced = x if span is None else x @ span
    axes = np.linalg.eigh(reduced.T @ reduced)[1]
    frame = Frame(mean, factor, axes if span is None else span @ axes)
    inputs = frame.apply(features[rows])
    return Problem(inputs, labels[rows], np.square(inputs).mean(0)), frame


def evaluate(
    weights: Float[np.ndarray, 'axes+1 classes'],
    inputs: Float[np.ndarray, 'examples axes+1'],
    labels: Int[np.ndarray, ' examples'],
) -> tuple[Float[np.ndarray, 'examples classes'], float]:
    """Logits and mean loss."""
    logits = inputs @ weights
    own = np.take_along_axis(logits, labels[:, None], 1)[:, 0]
    return logits, float((np.logaddexp.reduce(logits, axis=-1) - own).mean())


def gradient_norm_at_zero(problem: Problem, num_classes: int) -> float:
    """The gradient norm that tolerances are relative to; it does not depend on the penalty."""
    residual = np.full((len(problem.labels), num_classes), 1 / num_classes, np.float32)
    residual[np.arange(len(residual)), problem.labels] -= 1
    return float(np.linalg.norm(problem.inputs.T @ residual) / len(residual))


def _log_likelihood(logits: Float[Array, 'examples classes'], labels: Int[np.ndarray | Array, ' examples']) -> Array:
    return jnp.take_along_axis(logits, labels[:, None], 1)[:, 0] - jax.nn.logsumexp(logits, -1)


def _gradient(problem: Problem, weights: Array, shares: Array, l2: Array) -> Float[Array, 'axes+1 classes']:
    """Gradient of the objective, given the class probabilities."""
    own = problem.labels[:, None] == jnp.arange(shares.shape[1])
    # Not share - 1, which is all rounding error where the share is close to 1.
    others = jnp.where(own, 0, shares)
    residual = jnp.where(own, -others.sum(-1, keepdims=True), others) / len(problem.labels)
    # In this order, the wide matrix is read in its memory layout.
    return _product(residual.T, problem.inputs).T + l2 * weights


class _Search(NamedTuple):
    """A line search between two lengths."""

    length: Array
    low: Array
    high: Array
    slope: Array
    curvature: Array
    shares: Float[Array, 'examples classes']
    tried: Int[Array, '']


class _State(NamedTuple):
    weights: Float[Array, 'axes+1 classes']
    logits: Float[Array, 'examples classes']
    gradient: Float[Array, 'axes+1 classes']
    steps: Float[Array, 'memory axes+1 classes']
    differences: Float[Array, 'memory axes+1 classes']
    inverses: Float[Array, ' memory']  # 1 / (step · difference); 0 where there is none yet
    scale: Float[Array, '']
    iteration: Int[Array, '']
    smallest_norm: Float[Array, '']
    smallest_at: Int[Array, '']


@jax.jit
def solve(
    problem: Problem,
    c: float | Float[Array, ''],
    start: Float[Array, 'axes+1 classes'],
    tolerance: Float[Array, ''],
    iterations: int | Int[Array, ''],
) -> Solution:
    """Minimise ``mean loss + |w|² / (2 C n)``.

    Args:
        c: scikit-learn's C: the larger, the weaker the penalty.
        start: initial weights, for example the minimum for another C.
        tolerance: gradient norm at which to stop; smaller where the gradient of the penalty is itself small.
        iterations: largest number; it also stops once rounding keeps the gradient from shrinking further.
    """
    examples = len(problem.labels)
    # The last row, the intercept, is not penalised.
    l2 = jnp.ones_like(start).at[-1].set(0) / (c * examples)

    def inverse_hessian(logits: Array) -> Float[Array, 'axes+1 classes']:
        shares = jax.nn.softmax(logits)
        return 1 / (problem.curvature[:, None] * (shares * (1 - shares)).mean() + l2 + 1e-12)

    initial_logits = _product(problem.inputs, start)
    inverse = inverse_hessian(initial_logits)
    gradient = _gradient(problem, start, jax.nn.softmax(initial_logits), l2)

    def direction(state: _State) -> Float[Array, 'axes+1 classes']:
        """Minus the approximate inverse Hessian times the gradient, by the two-loop recursion."""
        newest_first = (state.iteration - 1 - jnp.arange(_MEMORY)) % _MEMORY

        def backward(vector: Array, slot: Array):
            share = state.inverses[slot] * jnp.vdot(state.steps[slot], vector)
            return vector - share * state.differences[slot], share

        def forward(vector: Array, slot_and_share: tuple[Array, Array]):
            slot, share = slot_and_share
            other = state.inverses[slot] * jnp.vdot(state.differences[slot], vector)
            return vector + (share - other) * state.steps[slot], None

        vector, shares = jax.lax.scan(backward, state.gradient, newest_first)
        vector = state.scale * inverse * vector
        vector, _ = jax.lax.scan(forward, vector, (newest_first[::-1], shares[::-1]))
        return -vector

    def search(state: _State, step: Array, slopes: Array) -> _Search:
        """A length along ``step`` where the slope is small: Newton's method on the slope, kept in its bracket.

        Args:
            slopes: change of the logits per unit of length.
        """
        at_zero = jnp.vdot(state.gradient, step)
        # The parts of the penalty that are linear and quadratic in the length.
        linear, quadratic = jnp.vdot(l2 * state.weights, step), jnp.vdot(l2 * step, step)
        # Relative to the label's slope, whose own part is then exactly zero, not a difference of near-equal numbers.
        slopes = slopes - jnp.take_along_axis(slopes, problem.labels[:, None], 1)

        def unfinished(found: _Search) -> Bool[Array, '']:
            return (jnp.abs(found.slope) > -_SLOPE_SHARE * at_zero) & (found.tried < _LENGTHS_TRIED)

        def shorter_or_longer(found: _Search) -> _Search:
            low = jnp.where(found.slope < 0, found.length, found.low)
            high = jnp.where(found.slope < 0, found.high, found.length)
            newton = found.length - found.slope / jnp.maximum(found.curvature, 1e-30)
            inside = (newton > low) & (newton < high)
            middle = jnp.where(jnp.isfinite(high), (low + high) / 2, 4 * found.length)
            length = jnp.where(inside, jnp.minimum(newton, 10 * found.length), middle)
            first = found.tried == 0
            length, low, high = jnp.where(first, 1, length), jnp.where(first, 0, low), jnp.where(first, jnp.inf, high)
            shares = jax.nn.softmax(state.logits + length * slopes)
            mean = (shares * slopes).sum(-1)
            slope = mean.mean() + linear + length * quadratic
            curvature = ((shares * jnp.square(slopes)).sum(-1) - jnp.square(mean)).mean() + quadratic
            return _Search(length, low, high, slope, curvature, shares, found.tried + 1)

        zero, infinite = jnp.zeros_like(at_zero), jnp.full_like(at_zero, jnp.inf)
        nothing_tried = _Search(zero, zero, infinite, infinite, zero, state.logits, jnp.zeros((), jnp.int32))
        return jax.lax.while_loop(unfinished, shorter_or_longer, nothing_tried)

    def unfinished(state: _State) -> Bool[Array, '']:
        stuck = state.iteration - state.smallest_at >= _STAGNATION
        balance = _BALANCE * jnp.linalg.norm(l2 * state.weights)
        return (
            (jnp.linalg.norm(state.gradient) > jnp.minimum(tolerance, balance))
            & (state.iteration < iterations)
            & ~stuck
        )

    def iterate(state: _State) -> _State:
        step = direction(state)
        # Close to the minimum, rounding can turn a direction uphill: the memory is then cleared.
        descends = jnp.vdot(step, state.gradient) < 0
        step = jnp.where(descends, step, -inverse * state.gradient)
        inverses = jnp.where(descends, state.inverses, 0)
        slopes = _product(problem.inputs, step)
        found = search(state, step, slopes)
        step = found.length * step
        weights = state.weights + step

        def afresh(_: Array):
            logits = _product(problem.inputs, weights)
            return logits, jax.nn.softmax(logits)

        def summed_up(_: Array):
            return state.logits + found.length * slopes, found.shares

        refresh = state.iteration % _REFRESH == _REFRESH - 1
        logits, shares = jax.lax.cond(refresh, afresh, summed_up, weights)
        gradient = _gradient(problem, weights, shares, l2)
        difference = gradient - state.gradient
        agreement = jnp.vdot(step, difference)
        useful = agreement > 1e-30
        slot = state.iteration % _MEMORY
        norm = jnp.linalg.norm(gradient)
        better = norm < state.smallest_norm
        return _State(
            weights,
            logits,
            gradient,
            state.steps.at[slot].set(step),
            state.differences.at[slot].set(difference),
            inverses.at[slot].set(jnp.where(useful, 1 / agreement, 0)),
            jnp.where(useful, agreement / jnp.vdot(difference, inverse * difference), state.scale),
            state.iteration + 1,
            jnp.where(better, norm, state.smallest_norm),
            jnp.where(better, state.iteration + 1, state.smallest_at),
        )

    none = jnp.zeros((_MEMORY, *start.shape), start.dtype)
    counted = jnp.zeros((), jnp.int32)
    state = jax.lax.while_loop(
        unfinished,
        iterate,
        _State(
            start,
            initial_logits,
            gradient,
            none,
            none,
            none[:, 0, 0],
            jnp.ones((), start.dtype),
            counted,
            jnp.full((), jnp.inf, start.dtype),
            counted,
        ),
    )
    # The reported values are computed from the weights themselves, not from accumulated logits.
    logits = _product(problem.inputs, state.weights)
    gradient = _gradient(problem, state.weights, jax.nn.softmax(logits), l2)
    objective = -_log_likelihood(logits, problem.labels).mean() + 0.5 * jnp.vdot(l2 * state.weights, state.weights)
    return Solution(state.weights, objective, jnp.linalg.norm(gradient), state.iteration)
