"""Metrics of segmentation, against scikit-learn's of all pixels."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, jaccard_score

from experiments.data.truth import IGNORE
from experiments.results import segmentation_metrics
from experiments.tasks.segmentation import confusion_matrices

CLASSES = ('road', 'sky', 'tree', 'nowhere')


@pytest.fixture(scope='module')
def masks() -> tuple[np.ndarray, np.ndarray]:
    """Twelve images without the last class, with ignored pixels, and guesses that are mostly right."""
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 3, (12, 6, 7)).astype(np.uint8)
    predicted = np.where(generator.random(truth.shape) < 0.6, truth, generator.integers(0, 3, truth.shape))
    truth[generator.random(truth.shape) < 0.2] = IGNORE
    return truth, predicted.astype(np.int32)


def matrices_of(masks) -> np.ndarray:
    truth, predicted = (jnp.asarray(each, jnp.int32) for each in masks)
    return np.asarray(confusion_matrices(truth, predicted, len(CLASSES)))


def test_the_matrices_are_those_of_scikit_learn(masks):
    """As they are counted on the devices."""
    matrices = matrices_of(masks)
    for found, truth, predicted in zip(matrices, *masks, strict=True):
        counted = truth != IGNORE
        np.testing.assert_array_equal(found, confusion_matrix(truth[counted], predicted[counted], labels=range(4)))


def test_the_metrics_are_of_all_pixels(masks):
    found = segmentation_metrics.metrics(matrices_of(masks), CLASSES)
    counted = masks[0] != IGNORE
    truth, predicted = (each[counted] for each in masks)
    overlaps = jaccard_score(truth, predicted, labels=[0, 1, 2], average=None)
    assert [found[f'IoU/{name}'] for name in CLASSES[:3]] == pytest.approx(overlaps.tolist(), abs=1e-15)
    assert found['mIoU'] == pytest.approx(overlaps.mean(), abs=1e-15)
    assert found['pixel_accuracy'] == pytest.approx(accuracy_score(truth, predicted), abs=1e-15)
    assert found['mean_accuracy'] == pytest.approx(balanced_accuracy_score(truth, predicted), abs=1e-15)
    assert found['IoU/nowhere'] is found['accuracy/nowhere'] is None


def test_a_class_that_is_only_predicted_counts():
    """Leaving it out would reward guesses of absent classes; it has no accuracy of its own."""
    found = segmentation_metrics.metrics(np.array([[[3, 1], [0, 0]]]), ('a', 'b'))
    assert found['IoU/b'] == 0
    assert found['accuracy/b'] is None
    assert found['mIoU'] == 3 / 4 / 2
    assert found['mean_accuracy'] == 3 / 4


def test_no_pixels_at_all():
    matrices = np.zeros((2, 2, 2), np.int64)
    assert set(segmentation_metrics.metrics(matrices, ('a', 'b')).values()) == {None}
    assert segmentation_metrics.bootstrap(matrices, 5) == {'mIoU': None, 'pixel_accuracy': None}


class TestIntervals:
    def test_a_sample_is_a_data_set_in_which_images_are_repeated(self, masks, monkeypatch):
        matrices = matrices_of(masks)
        counts = np.random.default_rng(1).multinomial(12, np.full(12, 1 / 12), 2)
        for count in (np.ones(12, int), *counts):
            monkeypatch.setattr(
                segmentation_metrics, 'resamples', lambda examples, samples, seed, count=count: count[None]
            )
            expected = segmentation_metrics.metrics(np.repeat(matrices, count, 0), CLASSES)
            for name, interval in segmentation_metrics.bootstrap(matrices, 1).items():
                assert interval == (expected[name], expected[name])

    def test_an_interval_holds_the_metric(self, masks):
        matrices = matrices_of(masks)
        found = segmentation_metrics.metrics(matrices, CLASSES)
        for name, (low, high) in segmentation_metrics.bootstrap(matrices).items():
            assert low < found[name] < high
            assert high - low < 0.2
