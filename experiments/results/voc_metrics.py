"""Pascal VOC's average precision at an IoU of 0.5.

Sources: Everingham et al. 2010, "The Pascal Visual Object Classes (VOC) Challenge", section 4.2; the development kit's
``VOCevaldet.m``; detectron2/evaluation/pascal_voc_evaluation.py.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from experiments.data.truth import Boxes
from experiments.results.detected_boxes import DetectedBoxes, check_rows

_MATCH = 0.5


def evaluate(
    truth: Boxes,
    detections: DetectedBoxes,
    classes: Sequence[str],
    eleven_points: bool = False,
) -> dict[str, float | None]:
    """Evaluate the detections in images.

    Args:
        truth: the objects of each image. A difficult one is neither to be found nor wrong to find.
        detections: in the same images; all count, however many there are.
        classes: names of the classes.
        eleven_points: the mean of the precision at recalls 0, 0.1, … 1, as until VOC 2009; otherwise the area under
            the precision made monotonic, as since VOC 2010.

    Returns:
        ``VOC_AP``, the mean over the classes that have an object that is not difficult, and ``VOC_AP/CLASS``, which is
        ``None`` for others; with eleven points ``VOC07_AP`` and ``VOC07_AP/CLASS``.
    """
    check_rows(truth, detections)
    name = 'VOC07_AP' if eleven_points else 'VOC_AP'
    of_class = [_of_class(truth, detections, number, eleven_points) for number in range(len(classes))]
    known = [each for each in of_class if each is not None]
    mean = float(np.mean(known)) if known else None
    return {name: mean, **{f'{name}/{each}': found for each, found in zip(classes, of_class, strict=True)}}


def _of_class(truth: Boxes, detections: DetectedBoxes, number: int, eleven_points: bool) -> float | None:
    objects = truth.classes == number
    wanted = np.count_nonzero(objects & ~truth.difficult)
    if not wanted:
        return None
    found = detections.valid & (detections.classes == number)
    scores, true, false = [np.zeros(0)], [np.zeros(0, bool)], [np.zeros(0, bool)]
    for image in np.flatnonzero(found.any(1)):
        # Whether an object was found before matters within one image only.
        order = np.argsort(-detections.scores[image, found[image]], kind='stable')
        of_image = detections.boxes[image, found[image]][order]
        outcome = _match(of_image, truth.boxes[image, objects[image]], truth.difficult[image, objects[image]])
        scores.append(detections.scores[image, found[image]][order])
        true.append(outcome[0])
        false.append(outcome[1])
    order = np.argsort(-np.concatenate(scores), kind='stable')
    positives, negatives = (np.cumsum(np.concatenate(each)[order]) for each in (true, false))
    precision = positives / np.maximum(positives + negatives, np.finfo(np.float64).eps)
    return _average(positives / wanted, precision, eleven_points)


def _match(
    found: Float[np.ndarray, 'detections 4'], boxes: Float[np.ndarray, 'objects 4'], difficult: np.ndarray
) -> tuple[Bool[np.ndarray, ' detections'], Bool[np.ndarray, ' detections']]:
    """Which detections of an image, best first, are true and which false positives."""
    true, false = np.zeros((2, len(found)), bool)
    if not len(boxes):
        return true, ~false
    overlaps = _overlaps(found, boxes)
    taken = np.zeros(len(boxes), bool)
    for place, best in enumerate(overlaps.argmax(1)):
        if overlaps[place, best] <= _MATCH:
            false[place] = True
        elif not difficult[best]:
            true[place], false[place] = not taken[best], taken[best]
            taken[best] = True
    return true, false


def _overlaps(
    found: Float[np.ndarray, 'detections 4'], boxes: Float[np.ndarray, 'objects 4']
) -> Float[np.ndarray, 'detections objects']:
    """The IoU as VOC computes it, from the numbers of the first and the last pixel of each side, counted from 1.

    Ours are the edges of the pixels: the first pixel lies between edges 0 and 1. VOC adds one to each difference, which
    gives the distance of the edges again.
    """
    first, last = np.split(np.asarray(found, np.float64)[:, None], 2, -1)
    first_object, last_object = np.split(np.asarray(boxes, np.float64)[None], 2, -1)
    first, first_object = first + 1, first_object + 1
    common = np.maximum(np.minimum(last, last_object) - np.maximum(first, first_object) + 1, 0).prod(-1)
    areas = (last - first + 1).prod(-1) + (last_object - first_object + 1).prod(-1)
    return common / (areas - common)


def _average(recall: np.ndarray, precision: np.ndarray, eleven_points: bool) -> float:
    if eleven_points:
        highest = [precision[recall >= least].max(initial=0) for least in np.arange(0, 1.1, 0.1)]
        return float(sum(each / 11 for each in highest))
    recall, precision = np.concatenate([[0], recall, [1]]), np.concatenate([[0], precision, [0]])
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall) * precision[1:]))
