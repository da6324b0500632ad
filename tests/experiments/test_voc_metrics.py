"""VOC's average precision, against an implementation from the definition, which counts pixels."""

import dataclasses
import fractions

import numpy as np
import pytest

from experiments.data.truth import Boxes
from experiments.results import voc_metrics
from experiments.results.detected_boxes import DetectedBoxes
from tests.experiments.detection_scenes import CLASSES, scenes


def pixels(box: np.ndarray) -> set[tuple[int, int]]:
    left, top, right, bottom = map(int, box)
    return {(x, y) for x in range(left, right) for y in range(top, bottom)}


def overlap(a: np.ndarray, b: np.ndarray) -> fractions.Fraction:
    return fractions.Fraction(len(pixels(a) & pixels(b)), len(pixels(a) | pixels(b)))


def slowly(truth: Boxes, detections: DetectedBoxes, number: int, eleven_points: bool) -> float | None:
    """One class: all detections in the order of their scores, each matched with the object it overlaps most."""
    objects = {
        (image, which): 'difficult' if truth.difficult[image, which] else 'free'
        for image, which in zip(*np.nonzero(truth.classes == number), strict=True)
    }
    wanted = sum(state == 'free' for state in objects.values())
    if not wanted:
        return None
    found = zip(*np.nonzero(detections.valid & (detections.classes == number)), strict=True)
    curve, true, false = [], 0, 0
    for image, which in sorted(found, key=lambda place: -detections.scores[place]):
        here = [place for place in objects if place[0] == image]
        overlaps = [overlap(detections.boxes[image, which], truth.boxes[place]) for place in here]
        state = 'none'
        if overlaps and max(overlaps) > fractions.Fraction(1, 2):
            best = here[overlaps.index(max(overlaps))]
            state, objects[best] = objects[best], 'difficult' if objects[best] == 'difficult' else 'taken'
        true, false = true + (state == 'free'), false + (state in ('none', 'taken'))
        curve.append((true / wanted, true / max(true + false, 1)))
    if eleven_points:
        return sum(max((p for r, p in curve if r >= least), default=0) for least in np.arange(0, 1.1, 0.1)) / 11
    area, before = 0.0, 0.0
    for recall in sorted({r for r, _ in curve}):
        area += (recall - before) * max(p for r, p in curve if r >= recall)
        before = recall
    return area


@pytest.mark.parametrize('eleven_points', [False, True])
def test_as_it_is_defined(eleven_points):
    truth, detections = scenes(images=12, whole=True)
    found = voc_metrics.evaluate(truth, detections, CLASSES, eleven_points)
    name = 'VOC07_AP' if eleven_points else 'VOC_AP'
    expected = [slowly(truth, detections, number, eleven_points) for number in range(4)]
    assert expected[3] is found[f'{name}/nothing'] is None
    for each, value in zip(CLASSES[:3], expected, strict=False):
        assert 0.1 < value < 0.9
        assert found[f'{name}/{each}'] == pytest.approx(value, abs=1e-12)
    assert found[name] == pytest.approx(np.mean(expected[:3]), abs=1e-12)


def one_image(boxes, found, difficult=None) -> tuple[Boxes, DetectedBoxes]:
    boxes, found = np.array([boxes], np.float32), np.array([found], np.float32)
    no = np.zeros(boxes.shape[:2], bool)
    truth = Boxes(boxes, no.astype(np.int32), no, no, boxes[..., 0], np.full((1, 2), 99))
    if difficult is not None:
        truth = dataclasses.replace(truth, difficult=np.array([difficult]))
    scores = -np.arange(found.shape[1], dtype=float)[None]
    return truth, DetectedBoxes(found, scores, np.zeros(scores.shape, np.int32), np.ones(scores.shape, bool))


def average(*arguments) -> float | None:
    return voc_metrics.evaluate(*one_image(*arguments), ['a'])['VOC_AP']


def test_the_rules():
    square = [0, 0, 10, 10]
    assert average([square], [square]) == 1
    assert average([square], [square, square]) == 1, 'a second detection is wrong, but comes after full recall'
    assert average([square], [[0, 0, 10, 5], square]) == 0.5, 'an overlap of exactly one half is no match'
    assert average([square, [50, 50, 60, 60]], [square]) == 0.5
    assert average([square], [square], [True]) is None
    other = [50, 50, 60, 60]
    assert average([square, other], [square, square, other], [True, False]) == 1, 'difficult ones are not wrong'
    truth, detections = one_image([square], [square])
    assert voc_metrics.evaluate(truth, detections, ['a'], eleven_points=True)['VOC07_AP'] == pytest.approx(1)
    blind = dataclasses.replace(detections, valid=np.zeros((1, 1), bool))
    assert voc_metrics.evaluate(truth, blind, ['a'])['VOC_AP'] == 0
    assert voc_metrics.evaluate(truth, blind, ['a'], eleven_points=True)['VOC07_AP'] == 0
