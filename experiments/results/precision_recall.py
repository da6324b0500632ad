"""Precision and recall of a detector at every threshold of its scores, and the threshold with the best F1.

A detection is right if its IoU with an object of its class that no surer one has taken is at least 0.5, as pycocotools
matches them (``coco_metrics``). What a surer detection matches does not depend on less sure ones, so that one matching
serves all thresholds.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from experiments.data.truth import Boxes
from experiments.results import coco_metrics
from experiments.results.detected_boxes import DetectedBoxes


@dataclasses.dataclass(frozen=True)
class Curve:
    """Precision and recall of the surest detections, one point for each.

    Attributes:
        scores: of the detections, the surest first; those that matched a crowd are left out.
        precision: the share of right ones among this detection and all before it.
        recall: the share of the objects that they have found.
        objects: number of objects.
    """

    scores: Float[np.ndarray, ' detections']
    precision: Float[np.ndarray, ' detections']
    recall: Float[np.ndarray, ' detections']
    objects: int

    def interpolated(self) -> Float[np.ndarray, ' 101']:
        """The highest precision at each of the recalls 0, 0.01, …, 1 or a larger one, as COCO's evaluation takes it.

        It is 0 beyond the highest recall; the mean is the average precision.
        """
        highest = np.maximum.accumulate(self.precision[::-1])[::-1]
        places = np.searchsorted(self.recall, np.linspace(0, 1, 101), side='left')
        return np.append(highest, 0.0)[places]

    def best_f1(self) -> dict[str, float]:
        """The best F1 of all thresholds, at the highest of several.

        Returns:
            ``best_F1``, and where it is not 0 ``best_F1_threshold`` (detections of this score or more are taken),
            ``best_F1_precision`` and ``best_F1_recall``.
        """
        # A threshold takes all detections of equal scores or none.
        ends = np.flatnonzero(np.diff(self.scores, append=-np.inf))
        precision, recall = self.precision[ends], self.recall[ends]
        f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(np.float64).tiny)
        if not f1.any():
            return {'best_F1': 0.0}
        best = int(f1.argmax())
        return {
            'best_F1': float(f1[best]),
            'best_F1_threshold': float(self.scores[ends[best]]),
            'best_F1_precision': float(precision[best]),
            'best_F1_recall': float(recall[best]),
        }


def precision_recall(truth: Boxes, detections: DetectedBoxes, classes: Sequence[str]) -> dict[str, Curve]:
    """The curve of each class that there is an object of.

    Args:
        truth: the objects of each image.
        detections: in the same images; at most 100 per image and class count, the best ones.
        classes: names of the classes.
    """
    matches = coco_metrics.matches(truth, detections, classes)
    curves = {name: curve([each]) for name, each in zip(classes, matches, strict=True)}
    return {name: each for name, each in curves.items() if each is not None}


def curve(matches: Sequence[coco_metrics.Matches]) -> Curve | None:
    """The curve of the detections of some classes together, with one threshold for all; ``None`` without an object."""
    objects = int(sum(each.objects.sum() for each in matches))
    if not objects:
        return None
    # The first threshold of the IoU is 0.5.
    scores = np.concatenate([each.scores for each in matches])
    true, false = (
        np.concatenate(each) for each in zip(*((each.true[0], each.false[0]) for each in matches), strict=True)
    )
    order = np.argsort(-scores, kind='stable')
    order = order[(true | false)[order]]
    found = np.cumsum(true[order])
    return Curve(scores[order], found / np.arange(1, len(order) + 1), found / objects, objects)
