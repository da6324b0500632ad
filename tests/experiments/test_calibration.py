"""Probabilities made of scores, and their calibration, against scikit-learn and the definitions."""

import numpy as np
import pytest
import sklearn.calibration
import sklearn.frozen
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin

from experiments.results import calibration, classification_metrics


def make_scores(examples=300, classes=4, sharpness=3.0, seed=0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are right more often than not, and sharper than they should be."""
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, classes, examples)
    logits = generator.normal(size=(examples, classes))
    logits[np.arange(examples), targets] += 1.0
    return sharpness * logits, targets


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(np.asarray(logits, np.float64))
    return exponentials / exponentials.sum(-1, keepdims=True)


def test_what_a_probability_is_depends_on_the_scores():
    logits, _ = make_scores()
    np.testing.assert_allclose(calibration.probabilities(logits, 'logits'), softmax(logits), rtol=1e-12)
    shares = softmax(logits)
    np.testing.assert_array_equal(calibration.probabilities(shares, 'probabilities'), shares)
    assert calibration.probabilities(logits, 'values') is None
    # Scaled, all three are a softmax; that of the logarithms of probabilities is these probabilities.
    np.testing.assert_allclose(calibration.probabilities(logits, 'values', 2.0), softmax(logits / 2), rtol=1e-12)
    np.testing.assert_allclose(
        calibration.probabilities(shares, 'probabilities', 2.0), softmax(logits / 2), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize('score_kind', ['logits', 'probabilities'])
def test_metrics_of_probabilities_are_scikit_learns(score_kind):
    logits, targets = make_scores()
    scores = logits if score_kind == 'logits' else softmax(logits)
    found = calibration.metrics(scores, targets, score_kind)
    assert found['nll'] == pytest.approx(sklearn.metrics.log_loss(targets, softmax(logits)), rel=1e-9)
    assert found['brier'] == pytest.approx(
        sklearn.metrics.brier_score_loss(targets, softmax(logits), scale_by_half=False), rel=1e-9
    )
    assert found.keys() == {'nll', 'brier', 'ece'}
    assert calibration.metrics(scores, targets, 'values') == {}


def test_a_probability_of_zero_counts_as_the_smallest_that_is_kept():
    shares = np.array([[1.0, 0.0], [0.5, 0.5]])
    assert calibration.negative_log_likelihood(shares, np.array([1, 0])) == pytest.approx(
        (24 * np.log(2) + np.log(2)) / 2
    )


def error_by_definition(probabilities: np.ndarray, targets: np.ndarray, bins: int) -> float:
    """Guo et al. 2017, equations 2 and 3 and what precedes them, one example at a time."""
    members = {number: [] for number in range(1, bins + 1)}
    for row, target in zip(probabilities, targets, strict=True):
        confidence, predicted = max((value, -index) for index, value in enumerate(row))
        number = next(each for each in members if confidence <= each / bins)
        members[number].append((confidence, -predicted == target))
    return sum(
        len(found) / len(targets) * abs(np.mean([right for _, right in found]) - np.mean([sure for sure, _ in found]))
        for found in members.values()
        if found
    )


@given(st.integers(0, 10_000), st.sampled_from([1, 2, 5, 15]), st.sampled_from([2, 5]))
def test_the_calibration_error_is_that_of_the_definition(seed, bins, steps):
    generator = np.random.default_rng(seed)
    # Confidences at the very edges of the bins, too.
    sure = generator.integers(steps, 2 * steps + 1, 30) / (2 * steps)
    probabilities = np.stack([sure, 1 - sure], 1)
    targets = generator.integers(0, 2, 30)
    found = calibration.expected_calibration_error(probabilities, targets, bins)
    assert found == pytest.approx(error_by_definition(probabilities, targets, bins), abs=1e-12)


def test_known_calibration_errors():
    right, wrong = np.array([0, 0, 0, 0]), np.array([1, 1, 1, 1])
    sure = np.repeat([[1.0, 0.0]], 4, 0)
    assert calibration.expected_calibration_error(sure, right) == 0
    assert calibration.expected_calibration_error(sure, wrong) == 1
    found = calibration.reliability(np.repeat([[0.75, 0.25]], 4, 0), np.array([0, 0, 0, 1]))
    assert found.error == 0
    assert found.counts.tolist() == [0] * 11 + [4] + [0] * 3
    assert found.accuracy[11] == found.confidence[11] == 0.75
    assert np.isnan(found.accuracy[0])


class _Scores(ClassifierMixin, BaseEstimator):
    """A classifier whose inputs are its logits."""

    def __init__(self, classes):
        self.classes = classes

    def fit(self, _logits, _targets):
        self.classes_ = np.arange(self.classes)
        return self

    def decision_function(self, logits):
        return logits

    def predict(self, logits):
        return logits.argmax(-1)


@pytest.mark.parametrize('score_kind', ['logits', 'values', 'probabilities'])
def test_temperature_scaling_is_scikit_learns(score_kind):
    logits, targets = make_scores(seed=1)
    other, others = make_scores(seed=2)
    if score_kind == 'probabilities':
        logits, other = softmax(logits / 10), softmax(other / 10)
    fitted = _Scores(4).fit(logits, targets)
    peer = sklearn.calibration.CalibratedClassifierCV(sklearn.frozen.FrozenEstimator(fitted), method='temperature')
    peer.fit(np.log(logits) if score_kind == 'probabilities' else logits, targets)
    expected = peer.predict_proba(np.log(other) if score_kind == 'probabilities' else other)
    found = calibration.temperature(logits, targets, score_kind)
    np.testing.assert_allclose(calibration.probabilities(other, score_kind, found), expected, atol=1e-4)
    metrics = calibration.metrics(other, others, score_kind, (logits, targets))
    assert metrics['temperature'] == found
    assert metrics['nll_scaled'] == pytest.approx(sklearn.metrics.log_loss(others, expected), abs=1e-4)
    if score_kind == 'logits':  # three times too sharp
        assert 2.5 < found < 3.5
        assert metrics['ece_scaled'] < metrics['ece'] / 3
        assert metrics['nll_scaled'] < metrics['nll']


def test_a_temperature_is_bounded_where_every_example_is_right_or_wrong():
    targets = np.arange(4)
    assert 0.01 <= calibration.temperature(np.eye(4), targets, 'logits') < 0.03
    assert calibration.temperature(-np.eye(4), targets, 'logits') == pytest.approx(100, rel=0.01)


@pytest.mark.parametrize('value', [np.nan, np.inf])
@pytest.mark.parametrize('split', ['validation', 'test'])
def test_scores_that_are_no_numbers_have_only_a_predicted_class(value, split):
    (scores, targets), held_out = make_scores(), make_scores()
    known = classification_metrics.metrics(scores, targets, list('abcde'), 'logits', held_out)
    (scores if split == 'test' else held_out[0])[3, 1] = value
    found = classification_metrics.metrics(scores, targets, list('abcde'), 'logits', held_out)
    lost = known.keys() - found.keys()
    if split == 'validation':
        assert lost == {'temperature', 'nll_scaled', 'ece_scaled'}
    else:
        assert lost == {'temperature', 'nll_scaled', 'ece_scaled', 'nll', 'brier', 'ece', 'auroc'}
        assert calibration.probabilities(scores, 'logits') is None
    assert all(np.isfinite(number) for number in found.values())
    assert found['accuracy'] == np.mean(scores.argmax(-1) == targets)
