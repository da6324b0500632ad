"""Objects, and detections near them, for the tests of detection metrics."""

import numpy as np

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
