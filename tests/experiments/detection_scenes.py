"""Objects, and detections near them, for the tests of detection metrics."""

import contextlib
import io
import json

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from experiments.data.truth import Boxes
from experiments.results.detected_boxes import DetectedBoxes

CLASSES = ('cell', 'plate', 'rod', 'nothing')


def scenes(images: int = 30, seed: int = 0, most: int = 9, whole: bool = False) -> tuple[Boxes, DetectedBoxes]:
    """Up to ``most`` objects per image, with crowds and difficult ones, and as many detections again as there are.

    Some images have no object, others no detection; the last class has no object, but detections.

    Args:
        images: number of images.
        seed: of the numbers.
        most: the most objects in an image.
        whole: all coordinates are whole numbers.
    """
    generator = np.random.default_rng(seed)
    start = generator.uniform(0, 150, (images, most, 2))
    side = generator.choice([8, 20, 60, 130], (images, most, 1)) * generator.uniform(0.7, 1.3, (images, most, 2))
    boxes = np.concatenate([start, start + side], -1)
    classes = generator.integers(0, 3, (images, most))
    classes[np.arange(most) >= generator.integers(0, most + 1, images)[:, None]] = -1
    crowd = generator.random(classes.shape) < 0.15
    difficult = generator.random(classes.shape) < 0.2
    area = side.prod(-1) * generator.uniform(0.5, 1, classes.shape)

    spread = generator.choice([0.02, 0.08, 0.3], (images, most, 1))
    near = boxes + spread * np.tile(side, 2) * generator.normal(size=boxes.shape)
    twice = near + 0.05 * np.tile(side, 2) * generator.normal(size=boxes.shape)
    found = np.concatenate([near, twice], 1)
    found[..., 2:] = np.maximum(found[..., 2:], found[..., :2] + 1)
    guesses = np.where(generator.random((images, 2 * most)) < 0.8, np.tile(classes, 2), 3)
    guesses = np.where(guesses < 0, generator.integers(0, 4, guesses.shape), guesses)
    valid = (generator.random(guesses.shape) < 0.7) & (generator.random((images, 1)) < 0.9)
    scores = generator.permutation(valid.size).reshape(valid.shape) / valid.size
    if whole:
        boxes, found = np.round(boxes), np.round(found)
    truth = Boxes(
        boxes.astype(np.float32),
        classes.astype(np.int32),
        crowd,
        difficult,
        area.astype(np.float32),
        np.full((images, 2), 300),
    )
    return truth, DetectedBoxes(found.astype(np.float32), scores.astype(np.float32), guesses.astype(np.int32), valid)


def from_files(directory, truth: Boxes, detections: DetectedBoxes, images, classes=CLASSES) -> COCOeval:
    """An evaluation as its users make it: annotations and results in files, image ids of their own."""
    objects, found = [], []
    for image_id, image in enumerate(images):
        for which in np.flatnonzero(truth.classes[image] >= 0):
            left, top, right, bottom = map(float, truth.boxes[image, which])
            objects.append(
                {
                    'id': 100 + len(objects),
                    'image_id': 7 + image_id,
                    'category_id': 3 + int(truth.classes[image, which]),
                    'bbox': [left, top, right - left, bottom - top],
                    'area': float(truth.area[image, which]),
                    'iscrowd': int(truth.crowd[image, which]),
                }
            )
        for which in np.flatnonzero(detections.valid[image]):
            left, top, right, bottom = map(float, detections.boxes[image, which])
            found.append(
                {
                    'image_id': 7 + image_id,
                    'category_id': 3 + int(detections.classes[image, which]),
                    'bbox': [left, top, right - left, bottom - top],
                    'score': float(detections.scores[image, which]),
                }
            )
    annotations = {
        'images': [{'id': 7 + image_id} for image_id in range(len(images))],
        'categories': [{'id': 3 + number, 'name': name} for number, name in enumerate(classes)],
        'annotations': objects,
    }
    (directory / 'objects.json').write_text(json.dumps(annotations))
    (directory / 'found.json').write_text(json.dumps(found))
    with contextlib.redirect_stdout(io.StringIO()):
        read = COCO(str(directory / 'objects.json'))
        evaluation = COCOeval(read, read.loadRes(str(directory / 'found.json')), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation
