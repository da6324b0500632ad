"""Retrieval metrics against scikit-learn, one query at a time."""

import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from experiments.probes import knn, retrieval


def make_features(examples=60, channels=8, classes=5, seed=0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, examples)
    labels[0] = classes  # alone in its class, so that it is no query
    features = generator.normal(size=(examples, channels)) + 1.5 * np.eye(channels)[labels]
    return np.asarray(knn.normalise(jnp.asarray(features, jnp.float32))), labels


@pytest.mark.parametrize('at_once', [1 << 24, 60 * 7, 1])
def test_metrics_are_scikit_learns(monkeypatch, at_once):
    """In one chunk, in chunks of which the last overlaps the one before it, and one query at a time."""
    monkeypatch.setattr(retrieval, '_AT_ONCE', at_once)
    features, labels = make_features()
    similarity = features.astype(np.float64) @ features.T.astype(np.float64)
    precisions, nearest = [], []
    for query in range(len(labels)):
        others = np.delete(np.arange(len(labels)), query)
        relevant = labels[others] == labels[query]
        if not relevant.any():
            continue
        precisions.append(sklearn.metrics.average_precision_score(relevant, similarity[query, others]))
        nearest.append(relevant[similarity[query, others].argmax()])
    found = retrieval.metrics(jnp.asarray(features), labels)
    assert found == {
        'retrieval_mAP': pytest.approx(np.mean(precisions), abs=1e-6),
        'retrieval_recall@1': pytest.approx(np.mean(nearest)),
    }
    assert len(precisions) == len(labels) - 1
    assert 0.3 < found['retrieval_mAP'] < 0.9


def test_features_that_tell_nothing_apart_gain_nothing():
    features = jnp.ones((4, 2)) / np.sqrt(2)
    found = retrieval.metrics(features, np.array([0, 0, 1, 1]))
    # The one other image of the class comes last of three.
    assert found == {'retrieval_mAP': pytest.approx(1 / 3), 'retrieval_recall@1': 0.0}
    assert retrieval.metrics(features, np.arange(4)) == {}


def test_known_rankings():
    angles = np.deg2rad([0, 10, 30, 90])
    features = jnp.asarray(np.stack([np.cos(angles), np.sin(angles)], 1), jnp.float32)
    found = retrieval.metrics(features, np.array([0, 1, 0, 1]))
    # The others of the class come second (0 and 30 degrees) and third (10), of three, and second (90).
    assert found['retrieval_mAP'] == pytest.approx((1 / 2 + 1 / 3 + 1 / 2 + 1 / 2) / 4)
    assert found['retrieval_recall@1'] == 0
