"""Precision-recall curves against pycocotools, and the best F1 against a matching of its own at every threshold."""

import dataclasses

import numpy as np
import pytest

from experiments import tasks
from experiments.results import coco_metrics, precision_recall, scores
from tests.experiments.detection_scenes import CLASSES, from_files, scenes


def without_crowds(images: int, seed: int = 0):
    truth, detections = scenes(images, seed)
    classes = np.where(truth.crowd, -1, truth.classes)
    return dataclasses.replace(truth, classes=classes, crowd=np.zeros_like(truth.crowd)), detections


def test_the_points_are_those_of_pycocotools(tmp_path):
    truth, detections = scenes()
    expected = from_files(tmp_path, truth, detections, range(30))
    curves = precision_recall.precision_recall(truth, detections, CLASSES)
    assert list(curves) == list(CLASSES[:3])  # of the last there is no object
    for number, name in enumerate(CLASSES[:3]):
        curve = curves[name]
        assert (np.diff(curve.scores) <= 0).all()
        # pycocotools tells the highest precision at each of 101 recalls or more, and the last recall.
        highest = [max(curve.precision[curve.recall >= recall], default=0.0) for recall in expected.params.recThrs]
        np.testing.assert_allclose(highest, expected.eval['precision'][0, :, number, 0, 2], atol=1e-12)
        assert curve.recall[-1] == expected.eval['recall'][0, number, 0, 2]


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    common = np.prod(np.maximum(sides, 0))
    return common / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - common)


def count(truth, detections, threshold: float) -> tuple[int, int, int]:
    """True positives, detections and objects, each detection matched with the free object that it overlaps most."""
    right, total = 0, 0
    for image in range(len(truth.sizes)):
        taken = set()
        chosen = detections.valid[image] & (detections.scores[image] >= threshold)
        for which in sorted(np.flatnonzero(chosen), key=lambda each: -detections.scores[image, each]):
            total += 1
            free = {
                place: overlap(detections.boxes[image, which], truth.boxes[image, place])
                for place in np.flatnonzero(truth.classes[image] == detections.classes[image, which])
                if place not in taken
            }
            best = max(free, key=free.__getitem__, default=None)
            if best is not None and free[best] >= 0.5:
                taken.add(best)
                right += 1
    return right, total, int((truth.classes >= 0).sum())


@pytest.mark.parametrize('seed', [0, 1])
def test_the_best_f1_is_that_of_every_threshold(seed):
    truth, detections = without_crowds(8, seed)
    # Some scores are equal: a threshold takes all of them or none.
    detections = dataclasses.replace(detections, scores=np.ceil(detections.scores * 20) / 20)
    found = tasks.find('detection').every_metric(
        dict(zip(('boxes', 'scores', 'labels', 'found'), vars(detections).values(), strict=True)), truth, CLASSES
    )
    counts = {each: count(truth, detections, each) for each in np.unique(detections.scores[detections.valid])}
    f1 = {each: 2 * right / (total + objects) for each, (right, total, objects) in counts.items()}
    best = max(f1, key=lambda each: (f1[each], each))
    right, total, objects = counts[best]
    assert found['best_F1_threshold'] == best
    assert found['best_F1'] == pytest.approx(f1[best])
    assert found['best_F1_precision'] == pytest.approx(right / total)
    assert found['best_F1_recall'] == pytest.approx(right / objects)
    assert 0 < found['best_F1'] < 1


def test_a_detector_that_finds_nothing():
    truth, detections = without_crowds(4)
    nothing = dataclasses.replace(detections, valid=np.zeros_like(detections.valid))
    curve = precision_recall.curve(coco_metrics.evaluate(truth, nothing, CLASSES).matches)
    assert curve.best_f1() == {'best_F1': 0.0}
    assert curve.objects == (truth.classes >= 0).sum()
    empty = dataclasses.replace(truth, classes=np.full_like(truth.classes, -1))
    assert precision_recall.precision_recall(empty, detections, CLASSES) == {}


def test_kept_boxes_read_back(tmp_path):
    truth, detections = scenes(5)
    names = ('boxes', 'scores', 'labels', 'found')
    arrays = dict(zip(names, vars(detections).values(), strict=True))
    scores.write(tmp_path / 'x.npz', list('abcde'), truth, arrays, np.zeros(3))
    for kept, given in zip(scores.read_boxes(tmp_path / 'x.npz'), (truth, detections), strict=True):
        for name, array in vars(given).items():
            np.testing.assert_array_equal(getattr(kept, name), array)
    scores.write(tmp_path / 'y.npz', ['a'], np.zeros(1, int), {'logits': np.zeros((1, 2))})
    assert scores.read_boxes(tmp_path / 'y.npz') is None
