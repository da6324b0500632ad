"""Which test examples a model is most wrong about."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int

Boxes = Float[np.ndarray, 'n 4']


@dataclasses.dataclass(frozen=True)
class WrongClass:
    """An image of which another class was predicted.

    Attributes:
        example: its row.
        confidence: probability of the predicted class; ``None`` where there are no probabilities.
    """

    example: int
    confidence: float | None


def of_classes(
    targets: Int[np.ndarray, ' examples'],
    predictions: Int[np.ndarray, ' examples'],
    confidence: Float[np.ndarray, ' examples'],
    most: int,
    is_probability: bool = True,
) -> list[WrongClass]:
    """The wrong predictions, the most confident first.

    Args:
        confidence: higher is surer.
        is_probability: whether it is one.
    """
    wrong = np.flatnonzero(targets != predictions)
    order = wrong[np.argsort(-confidence[wrong], kind='stable')][:most]
    return [WrongClass(int(row), float(confidence[row]) if is_probability else None) for row in order]


@dataclasses.dataclass(frozen=True)
class WrongBox:
    """A detection that no object accounts for.

    Attributes:
        example: row of its image.
        detection: its place among the image's detections.
        overlap: the highest IoU with an object of the image, and ``other`` that object's class; -1 for no object.
        why: in words.
    """

    example: int
    detection: int
    overlap: float
    other: int
    why: str


def of_boxes(arrays: Mapping[str, np.ndarray], most: int, threshold: float = 0.5) -> list[WrongBox]:
    """The false positives at an IoU, the most confident of each image, the most confident images first.

    Detections are matched as COCO's evaluation does: the best first, each with the free object of its class that it
    overlaps most. What matches a crowd, or an object that only VOC leaves out, is no mistake; it matches a crowd if
    so much of it lies inside (pycocotools divides by the area of the detection alone).

    Args:
        arrays: ``boxes``, ``scores``, ``labels`` and ``found`` of a detector, and ``truth_boxes``, ``truth_classes``,
            ``truth_crowd`` and ``truth_difficult``, as ``scores.write`` keeps them.
        most: number of images.
        threshold: lowest IoU of a match.
    """
    found: list[tuple[float, WrongBox]] = []
    for row in range(len(arrays['found'])):
        places = np.flatnonzero(arrays['found'][row])
        places = places[np.argsort(-arrays['scores'][row, places], kind='stable')]
        objects = np.flatnonzero(arrays['truth_classes'][row] >= 0)
        crowd = arrays['truth_crowd'][row, objects]
        left_out = crowd | arrays['truth_difficult'][row, objects]
        truth, classes = arrays['truth_boxes'][row, objects], arrays['truth_classes'][row, objects]
        boxes = arrays['boxes'][row, places]
        overlaps = ious(boxes, truth)
        matching = np.where(crowd, _inside(boxes, truth), overlaps)
        place = _first_false(matching, arrays['labels'][row, places], classes, left_out, threshold)
        if place is None:
            continue
        detection, overlaps = int(places[place]), overlaps[place]
        nearest = int(overlaps.argmax()) if len(overlaps) else -1
        overlap = float(overlaps[nearest]) if len(overlaps) else 0.0
        other = int(classes[nearest]) if overlap > 0 else -1
        why = _why(overlap, other, int(arrays['labels'][row, detection]), threshold)
        found.append((float(arrays['scores'][row, detection]), WrongBox(row, detection, overlap, other, why)))
    found.sort(key=lambda each: -each[0])
    return [each for _, each in found[:most]]


def _why(overlap: float, other: int, label: int, threshold: float) -> str:
    if overlap < 0.1 or other < 0:
        return 'nothing there'
    if other == label:
        return 'found twice' if overlap >= threshold else 'badly placed'
    return 'another class' if overlap >= threshold else 'badly placed, another class'


def _first_false(
    overlaps: Float[np.ndarray, 'n objects'],
    labels: Int[np.ndarray, ' n'],
    classes: Int[np.ndarray, ' objects'],
    left_out: Bool[np.ndarray, ' objects'],
    threshold: float,
) -> int | None:
    free = np.ones(len(classes), bool)
    for place in range(len(labels)):
        same = (classes == labels[place]) & (overlaps[place] >= threshold)
        candidates = np.flatnonzero(same & free & ~left_out)
        if len(candidates):
            free[candidates[overlaps[place, candidates].argmax()]] = False
        elif not (same & left_out).any():
            return place
    return None


def ious(one: Boxes, other: Float[np.ndarray, 'm 4']) -> Float[np.ndarray, 'n m']:
    """Intersection over union of each two boxes."""
    shared = _shared(one, other)
    union = _areas(one)[:, None] + _areas(other)[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _inside(one: Boxes, other: Float[np.ndarray, 'm 4']) -> Float[np.ndarray, 'n m']:
    """The share of each box that lies in each other one."""
    shared, areas = _shared(one, other), np.broadcast_to(_areas(one)[:, None], (len(one), len(other)))
    return np.divide(shared, areas, out=np.zeros_like(shared), where=areas > 0)


def _shared(one: Boxes, other: Float[np.ndarray, 'm 4']) -> Float[np.ndarray, 'n m']:
    """The area that each two boxes have in common."""
    least, most = np.maximum(one[:, None, :2], other[None, :, :2]), np.minimum(one[:, None, 2:], other[None, :, 2:])
    return np.clip(most - least, 0, None).prod(-1)


def _areas(boxes: Boxes) -> Float[np.ndarray, ' n']:
    return np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(-1)


def of_masks(confusion: Int[np.ndarray, 'examples classes classes'], most: int) -> list[tuple[int, float]]:
    """The images with the lowest mean IoU over the classes that are in their truth or prediction, lowest first."""
    right = np.diagonal(confusion, axis1=1, axis2=2)
    union = confusion.sum(1) + confusion.sum(2) - right
    present = union > 0
    with np.errstate(invalid='ignore'):
        mean = np.where(present, right / np.maximum(union, 1), 0).sum(-1) / present.sum(-1)
    order = np.argsort(mean, kind='stable')  # an image without a class, whose mean is NaN, comes last
    return [(int(row), float(mean[row])) for row in order[:most] if present[row].any() and mean[row] < 1]
