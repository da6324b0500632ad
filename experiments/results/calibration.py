"""Probabilities made of a classifier's scores, and how far they can be believed.

What a probability is depends on what the scores are (``scores.ScoreKind``):

* ``'logits'``: their softmax.
* ``'probabilities'``, such as shares of votes: themselves.
* ``'values'``, such as regressed targets: they have none; only temperature scaling makes some of them.

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", sections 2 and 4.2.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from experiments.results.scores import ScoreKind

# As in Guo et al. 2017, section 5.
BINS = 15
# A probability of zero counts as the smallest positive number that the kept scores can hold.
SMALLEST = float(np.finfo(np.float16).smallest_subnormal)
# A temperature lies between these; where every validation example is right, it is small enough to be sure of them.
TEMPERATURES = (0.01, 100.0)

Matrix = Float[np.ndarray, 'examples outputs']
Targets = Int[np.ndarray, ' examples']


def metrics(
    scores: Matrix, targets: Targets, score_kind: ScoreKind, validation: tuple[Matrix, Targets] | None = None
) -> dict[str, float]:
    """Metrics of the probabilities of the examples' classes.

    Args:
        scores: one per output.
        targets: class of each example.
        score_kind: what the scores are.
        validation: scores and classes of the validation split, on which a temperature is fitted.

    Returns:
        ``nll`` (negative log-likelihood, in nats per example), ``brier`` (squared distance of the probabilities from
        the class, summed over the outputs: Brier 1950) and ``ece`` (expected calibration error), where the scores have
        probabilities; with ``validation`` also ``temperature``, and ``nll_scaled`` and ``ece_scaled`` after temperature
        scaling.
    """
    found = {}
    own = probabilities(scores, score_kind)
    if own is not None:
        right = np.arange(own.shape[1]) == targets[:, None]
        found['nll'] = negative_log_likelihood(own, targets)
        found['brier'] = float(np.square(own - right).sum(-1).mean())
        found['ece'] = expected_calibration_error(own, targets)
    if validation is not None:
        found['temperature'] = temperature(validation[0], validation[1], score_kind)
        scaled = probabilities(scores, score_kind, found['temperature'])
        assert scaled is not None
        found['nll_scaled'] = negative_log_likelihood(scaled, targets)
        found['ece_scaled'] = expected_calibration_error(scaled, targets)
    return found


def are_numbers(scores: Matrix) -> bool:
    """Whether scores have an order and probabilities; minus infinity is that of an output that cannot be.

    Those of a training that diverged have none.
    """
    return not (np.isnan(scores).any() or np.isposinf(scores).any() or np.isneginf(scores).all(-1).any())


def probabilities(scores: Matrix, score_kind: ScoreKind, temperature: float | None = None) -> Matrix | None:
    """The probabilities that scores stand for, in ``float64``; ``None`` where there are none.

    Values have none without a temperature, and scores that are no numbers (``are_numbers``) never.

    Args:
        scores: one per output.
        score_kind: what they are.
        temperature: divides the logits; those of probabilities are their logarithms.
    """
    if not are_numbers(scores):
        return None
    if temperature is not None:
        return np.exp(_log_softmax(_logits(scores, score_kind) / temperature))
    if score_kind == 'values':
        return None
    return np.asarray(scores, np.float64) if score_kind == 'probabilities' else np.exp(_log_softmax(scores))


def negative_log_likelihood(probabilities: Matrix, targets: Targets) -> float:
    """The mean over the examples of minus the logarithm of their class's probability, which is ``SMALLEST`` or more."""
    own = np.take_along_axis(probabilities, targets[:, None], 1)
    return float(-np.log(np.maximum(own, SMALLEST)).mean())


@dataclasses.dataclass(frozen=True)
class Reliability:
    """How often predictions of each confidence are right: a reliability diagram.

    Confidence is the probability of the predicted class. Bin ``m`` of ``M`` has the predictions whose confidence is
    above ``(m - 1) / M`` and at most ``m / M``.

    Attributes:
        counts: examples in each bin.
        confidence, accuracy: their means in each bin; NaN where it is empty.
    """

    counts: Int[np.ndarray, ' bins']
    confidence: Float[np.ndarray, ' bins']
    accuracy: Float[np.ndarray, ' bins']

    @property
    def error(self) -> float:
        """The expected calibration error: the mean distance of accuracy from confidence, weighted by the counts."""
        distance = np.abs(np.nan_to_num(self.accuracy - self.confidence))
        return float(np.sum(self.counts * distance) / max(self.counts.sum(), 1))


def reliability(probabilities: Matrix, targets: Targets, bins: int = BINS) -> Reliability:
    """Sort predictions into bins of equal width by their confidence."""
    confidence = probabilities.max(-1)
    right = probabilities.argmax(-1) == targets
    members = np.clip(np.searchsorted(np.linspace(0, 1, bins + 1), confidence, side='left') - 1, 0, bins - 1)
    counts, confidences, rights = (
        np.bincount(members, weights, minlength=bins) for weights in (None, confidence, right)
    )
    with np.errstate(invalid='ignore'):
        return Reliability(counts, confidences / counts, rights / counts)


def expected_calibration_error(probabilities: Matrix, targets: Targets, bins: int = BINS) -> float:
    """See ``Reliability.error``."""
    return reliability(probabilities, targets, bins).error


def temperature(scores: Matrix, targets: Targets, score_kind: ScoreKind) -> float:
    """The temperature with the least negative log-likelihood on the given examples, within ``TEMPERATURES``."""
    from scipy import optimize  # imported late: it takes a second

    logits = _logits(scores, score_kind)
    logits = logits - logits.max(-1, keepdims=True)
    own = np.take_along_axis(logits, targets[:, None], 1)[:, 0]

    def loss(logarithm: float) -> float:
        scaled = logits / np.exp(logarithm)
        return float(np.log(np.exp(scaled).sum(-1)).mean() - own.mean() / np.exp(logarithm))

    # It is convex in the inverse, so it has one minimum in the logarithm too.
    found = optimize.minimize_scalar(loss, bounds=tuple(np.log(TEMPERATURES)), method='bounded')
    return float(np.exp(found.x))


def _logits(scores: Matrix, score_kind: ScoreKind) -> Matrix:
    values = np.asarray(scores, np.float64)
    return np.log(np.maximum(values, SMALLEST)) if score_kind == 'probabilities' else values


def _log_softmax(logits: Matrix) -> Matrix:
    values = np.asarray(logits, np.float64)
    values = values - values.max(-1, keepdims=True)
    return values - np.log(np.exp(values).sum(-1, keepdims=True))
