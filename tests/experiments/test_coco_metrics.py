"""COCO's metrics: the digits of pycocotools from files, and intervals that agree with them."""

import dataclasses
import json

import numpy as np
import pytest

from experiments.data.truth import Boxes
from experiments.results import coco_metrics
from experiments.results.detected_boxes import DetectedBoxes
from tests.experiments.detection_scenes import CLASSES, from_files, scenes

NAMES = ('AP', 'AP50', 'AP75', 'AP_small', 'AP_medium', 'AP_large', 'AR_1', 'AR_10', 'AR_100')


def alone(name: str) -> Boxes | DetectedBoxes:
    """One object of side 10, found exactly."""
    box, one = np.array([[[5, 5, 15, 15]]], np.float32), np.ones((1, 1), bool)
    if name == 'truth':
        return Boxes(box, np.zeros((1, 1), np.int32), ~one, ~one, np.full((1, 1), 100.0), np.full((1, 2), 20))
    return DetectedBoxes(box, np.full((1, 1), 0.5), np.zeros((1, 1), np.int32), one)


@pytest.mark.parametrize('seed', [0, 1])
def test_the_digits_are_those_of_pycocotools(tmp_path, capsys, seed):
    truth, detections = scenes(seed=seed)
    expected = from_files(tmp_path, truth, detections, range(30))
    found = coco_metrics.evaluate(truth, detections, CLASSES).metrics
    assert [found[name] for name in NAMES] == expected.stats[:9].tolist()
    assert 0.05 < found['AP_small'] < found['AP50'] < 0.95
    precision = expected.eval['precision'][:, :, :, 0, 2]
    for number, name in enumerate(CLASSES[:3]):
        assert found[f'AP/{name}'] == precision[:, :, number].mean()
        assert found[f'AP50/{name}'] == precision[0, :, number].mean()
    assert found['AP/nothing'] is found['AP50/nothing'] is None
    assert json.loads(json.dumps(found)) == found
    assert capsys.readouterr() == ('', '')


def test_a_subset_of_the_images(tmp_path):
    truth, detections = scenes()
    chosen = np.array([4, 2, 11, 29, 7])
    rows, objects = (
        type(each)(**{key: value[chosen] for key, value in vars(each).items()}) for each in (detections, truth)
    )
    expected = from_files(tmp_path, truth, detections, chosen)
    found = coco_metrics.evaluate(objects, rows, CLASSES).metrics
    assert [found[name] for name in NAMES] == expected.stats[:9].tolist()
    with pytest.raises(ValueError, match='detections in 5 images, but the truth of 30'):
        coco_metrics.evaluate(truth, rows, CLASSES)


def test_more_detections_than_count(tmp_path):
    """Of 150 in an image, the best hundred count, and only they do in an interval."""
    truth, _ = scenes(images=4, most=80)
    generator = np.random.default_rng(0)
    boxes = np.concatenate([truth.boxes, truth.boxes], 1)[:, :150] + generator.normal(size=(4, 150, 4))
    scores = generator.permutation(600).reshape(4, 150) / 600
    detections = DetectedBoxes(boxes, scores, np.zeros((4, 150), np.int32), np.ones((4, 150), bool))
    expected = from_files(tmp_path, truth, detections, range(4), CLASSES[:1])
    evaluation = coco_metrics.evaluate(truth, detections, CLASSES[:1])
    assert [evaluation.metrics[name] for name in NAMES] == [None if x == -1 else x for x in expected.stats[:9]]
    np.testing.assert_array_equal(
        evaluation.precisions(np.ones((1, 4), int))[0], expected.eval['precision'][:, :, :, 0, 2]
    )


def test_the_first_object_and_detection_count():
    """Ids from 0 would leave the match of the first one out."""
    found = coco_metrics.evaluate(alone('truth'), alone('detections'), ('cell',)).metrics
    for name in ('AP', 'AP50', 'AP_small', 'AR_1', 'AP/cell'):
        assert found[name] == pytest.approx(1, abs=1e-12)
    assert found['AP_medium'] is found['AP_large'] is None


def test_nothing_found_and_nothing_there():
    truth, found = alone('truth'), alone('detections')
    blind = dataclasses.replace(found, valid=np.zeros((1, 1), bool))
    evaluation = coco_metrics.evaluate(truth, blind, ('cell',))
    assert evaluation.metrics['AP'] == evaluation.metrics['AR_100'] == 0
    assert evaluation.bootstrap(3) == {'AP': (0, 0), 'AP50': (0, 0)}
    empty = dataclasses.replace(truth, classes=np.full((1, 1), -1, np.int32))
    for detections in (found, blind):
        evaluation = coco_metrics.evaluate(empty, detections, ('cell',))
        assert set(evaluation.metrics.values()) == {None}
        assert evaluation.bootstrap(3) == {'AP': None, 'AP50': None}


@pytest.fixture(scope='module')
def evaluated() -> coco_metrics.CocoEvaluation:
    truth, detections = scenes()
    return coco_metrics.evaluate(truth, detections, CLASSES)


class TestIntervals:
    def test_every_image_once_is_the_metric(self, tmp_path, evaluated):
        truth, detections = scenes()
        expected = from_files(tmp_path, truth, detections, range(30)).eval['precision'][:, :, :, 0, 2]
        (precision,) = evaluated.precisions(np.ones((1, 30), int))
        np.testing.assert_array_equal(precision, expected)
        assert np.mean(precision[precision > -1]) == evaluated.metrics['AP']
        assert np.mean(precision[0][precision[0] > -1]) == evaluated.metrics['AP50']

    def test_a_sample_is_a_data_set_in_which_images_are_repeated(self, tmp_path, evaluated):
        truth, detections = scenes()
        counts = np.random.default_rng(3).multinomial(30, np.full(30, 1 / 30), 4)
        found = evaluated.precisions(counts)
        for number, count in enumerate(counts):
            repeated = np.repeat(np.arange(30), count)
            expected = from_files(tmp_path, truth, detections, repeated).eval['precision'][:, :, :, 0, 2]
            np.testing.assert_array_equal(found[number], expected)

    def test_an_interval_holds_the_metric_and_narrows_with_images(self, evaluated):
        few = evaluated.bootstrap(200, seed=0)
        assert few == evaluated.bootstrap(200, seed=0) != evaluated.bootstrap(200, seed=1)
        truth, detections = scenes(images=200)
        many = coco_metrics.evaluate(truth, detections, CLASSES).bootstrap(200)
        for name in ('AP', 'AP50'):
            low, high = few[name]
            assert low < evaluated.metrics[name] < high
            assert many[name][1] - many[name][0] < 0.7 * (high - low)
