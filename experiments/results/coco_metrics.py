"""COCO's average precision, computed by pycocotools, and its interval over images.

Source: pycocotools/cocoeval.py (``COCOeval``, ``bbox``).
"""

import contextlib
import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from experiments.data.truth import Boxes
from experiments.results.detected_boxes import DetectedBoxes, check_rows
from experiments.results.statistics import percentile_interval, resamples

# The order of ``COCOeval.stats``, after which come the recalls for small, medium and large objects.
_SUMMARY = ('AP', 'AP50', 'AP75', 'AP_small', 'AP_medium', 'AP_large', 'AR_1', 'AR_10', 'AR_100')
_RECALLS = 101
# Numbers that are computed at once for an interval: a limit of memory.
_AT_ONCE = 1 << 22


@dataclasses.dataclass(frozen=True)
class Matches:
    """The detections of one class in all images, best first, and what they matched.

    Attributes:
        images: which image each is in.
        scores: their scores.
        true: whether it is a true positive, at each threshold of the IoU.
        false: whether it is a false positive; a detection that matched a crowd is neither.
        objects: number of objects in each image, without crowds.
    """

    images: Int[np.ndarray, ' detections']
    scores: Float[np.ndarray, ' detections']
    true: Bool[np.ndarray, 'thresholds detections']
    false: Bool[np.ndarray, 'thresholds detections']
    objects: Int[np.ndarray, ' examples']


@dataclasses.dataclass(frozen=True)
class CocoEvaluation:
    """An evaluation by pycocotools.

    Attributes:
        metrics: AP (over IoU 0.5 to 0.95), AP50, AP75, AP_small, AP_medium, AP_large, AR_1, AR_10 and AR_100, and AP
            and AP50 of each class (``'AP/RBC'``). ``None``, where pycocotools says -1: there is no such object; means
            over classes leave such a class out.
        matches: of each class, for intervals and curves.
    """

    metrics: dict[str, float | None]
    matches: tuple[Matches, ...]

    def precisions(
        self, counts: Int[np.ndarray, 'samples examples']
    ) -> Float[np.ndarray, 'samples thresholds {_RECALLS} classes']:
        """The precision at every threshold and recall, as ``COCOeval.accumulate`` computes it, in samples of images.

        Args:
            counts: how often each image occurs in a sample.
        """
        return np.stack([_precisions(each, counts) for each in self.matches], -1)

    def bootstrap(self, samples: int = 1000, seed: int = 0) -> dict[str, tuple[float, float] | None]:
        """95 % intervals of AP and AP50 for other images of the same kind; arguments as for ``resampled``."""
        return dict(zip(('AP', 'AP50'), map(percentile_interval, self.resampled(samples, seed).T), strict=True))

    def resampled(self, samples: int = 1000, seed: int = 0) -> Float[np.ndarray, 'samples 2']:
        """AP and AP50 of samples of the images, drawn with replacement.

        Args:
            samples: number of samples.
            seed: of the samples.
        """
        counts = resamples(len(self.matches[0].objects), samples, seed)
        most = max(1, *(len(each.images) for each in self.matches), 10 * _RECALLS * len(self.matches))
        found = []
        for part in np.array_split(counts, -(-samples * most // _AT_ONCE)):
            found += [(_mean(each), _mean(each[:1])) for each in self.precisions(part)]
        return np.array(found)


def evaluate(truth: Boxes, detections: DetectedBoxes, classes: Sequence[str]) -> CocoEvaluation:
    """Evaluate the detections in images.

    Args:
        truth: the objects of each image; those that only VOC leaves out (``difficult``) are objects here.
        detections: in the same images; at most 100 per image and class count, the best ones.
        classes: names of the classes.
    """
    check_rows(truth, detections)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(
            _index(_objects(truth), truth, classes), _index(_found(detections), truth, classes), 'bbox'
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    metrics = dict(zip(_SUMMARY, map(_known, evaluation.stats), strict=False))
    # The axes are threshold, recall, class, area (all first) and number of detections (100 last).
    precision = np.asarray(evaluation.eval['precision'])[:, :, :, 0, -1]
    for number, name in enumerate(classes):
        metrics[f'AP/{name}'] = _none_if_nan(_mean(precision[:, :, number]))
        metrics[f'AP50/{name}'] = _none_if_nan(_mean(precision[:1, :, number]))
    images, thresholds = len(truth.sizes), len(precision)
    per_class = len(evaluation.params.areaRng) * images
    parts = [evaluation.evalImgs[start : start + images] for start in range(0, len(classes) * per_class, per_class)]
    return CocoEvaluation(metrics, tuple(_matches(part, thresholds) for part in parts))


def matches(truth: Boxes, detections: DetectedBoxes, classes: Sequence[str], iou: float = 0.5) -> tuple[Matches, ...]:
    """The matches of each class at one IoU: those of ``evaluate``, in a tenth of its time.

    Args:
        truth, detections, classes: as for ``evaluate``.
        iou: threshold of a match.
    """
    check_rows(truth, detections)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(
            _index(_objects(truth), truth, classes), _index(_found(detections), truth, classes), 'bbox'
        )
        parameters = evaluation.params
        parameters.iouThrs, parameters.maxDets = np.array([iou]), parameters.maxDets[-1:]
        # The first area is that of all objects.
        parameters.areaRng, parameters.areaRngLbl = parameters.areaRng[:1], parameters.areaRngLbl[:1]
        evaluation.evaluate()
    images = len(truth.sizes)
    parts = [evaluation.evalImgs[start : start + images] for start in range(0, len(classes) * images, images)]
    return tuple(_matches(part, 1) for part in parts)


def _index(annotations: list[dict[str, Any]], truth: Boxes, classes: Sequence[str]) -> COCO:
    result = COCO()
    # pycocotools takes an object with id 0 for one that nothing matched, so ids begin with 1.
    for number, annotation in enumerate(annotations):
        annotation['id'] = number + 1
    result.dataset = {
        'images': [{'id': number + 1} for number in range(len(truth.sizes))],
        'categories': [{'id': number + 1, 'name': name} for number, name in enumerate(classes)],
        'annotations': annotations,
    }
    result.createIndex()
    return result


def _annotations(
    boxes: np.ndarray, classes: np.ndarray, present: Bool[np.ndarray, 'examples objects']
) -> list[dict[str, Any]]:
    rows, columns = np.nonzero(present)
    corners = boxes[rows, columns].astype(np.float64)
    sides = corners[:, 2:] - corners[:, :2]
    return [
        {'image_id': row + 1, 'category_id': number + 1, 'bbox': box, 'area': box[2] * box[3], 'iscrowd': 0}
        for row, number, box in zip(
            rows.tolist(),
            classes[rows, columns].tolist(),
            np.concatenate([corners[:, :2], sides], 1).tolist(),
            strict=True,
        )
    ]


def _objects(truth: Boxes) -> list[dict[str, Any]]:
    present = truth.classes >= 0
    found = _annotations(truth.boxes, truth.classes, present)
    for annotation, area, crowd in zip(found, truth.area[present], truth.crowd[present], strict=True):
        annotation |= {'area': float(area), 'iscrowd': int(crowd)}
    return found


def _found(detections: DetectedBoxes) -> list[dict[str, Any]]:
    found = _annotations(detections.boxes, detections.classes, detections.valid)
    for annotation, score in zip(found, detections.scores[detections.valid].tolist(), strict=True):
        annotation['score'] = score
    return found


def _matches(images: list[dict[str, Any] | None], thresholds: int) -> Matches:
    """What ``COCOeval.evaluateImg`` found in each image; ``None`` where there is neither an object nor a detection."""
    scores = [np.asarray(each['dtScores'] if each else [], np.float64) for each in images]
    none = np.zeros((thresholds, 0), bool)
    matched = np.concatenate([each['dtMatches'] > 0 if each else none for each in images], 1)
    ignored = np.concatenate([each['dtIgnore'].astype(bool) if each else none for each in images], 1)
    together = np.concatenate(scores)
    order = np.argsort(-together, kind='stable')
    return Matches(
        images=np.repeat(np.arange(len(images)), list(map(len, scores)))[order],
        scores=together[order],
        true=(matched & ~ignored)[:, order],
        false=(~matched & ~ignored)[:, order],
        objects=np.array([np.count_nonzero(each['gtIgnore'] == 0) if each else 0 for each in images], np.int64),
    )


def _precisions(
    matches: Matches, counts: Int[np.ndarray, 'samples examples']
) -> Float[np.ndarray, 'samples thresholds {_RECALLS}']:
    total = counts @ matches.objects
    wanted = _least_true(total)
    result = np.zeros((len(counts), len(matches.true), _RECALLS))
    weights = counts[:, matches.images]
    for number, (true, false) in enumerate(zip(matches.true, matches.false, strict=True)):
        places = np.flatnonzero(true)  # precision is highest, and recall rises, at true positives alone
        if not len(places):
            continue
        positives = np.cumsum(weights[:, places], 1)
        negatives = np.cumsum(weights * false, 1)[:, places]
        precision = positives / (negatives + positives + np.spacing(1))
        precision = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
        # One search for all samples: each has a range of numbers of its own.
        offsets = np.arange(len(counts))[:, None] * (max(total.max(), positives.max()) + 1)
        found = np.searchsorted((positives + offsets).ravel(), wanted + offsets)
        found -= np.arange(len(counts))[:, None] * len(places)
        reached = wanted <= positives[:, -1:]
        found = np.where(reached, found, 0)
        result[:, number] = np.where(reached, np.take_along_axis(precision, found, 1), 0)
    result[total == 0] = -1
    return result


def _least_true(total: Int[np.ndarray, ' samples']) -> Int[np.ndarray, 'samples {_RECALLS}']:
    """The fewest true positives whose quotient by the number of objects is at least each recall."""
    recalls = np.linspace(0, 1, _RECALLS)
    total = np.maximum(total, 1)[:, None]
    near = np.floor(recalls * total)
    # The product is rounded; what counts is the quotient.
    candidates = near[..., None] + np.array([-1, 0, 1, 2])
    enough = candidates / total[..., None] >= recalls[:, None]
    return np.take_along_axis(candidates, enough.argmax(-1)[..., None], -1)[..., 0].astype(np.int64)


def _mean(precision: np.ndarray) -> float:
    """The mean of what is known (``COCOeval.summarize``)."""
    known = precision[precision > -1]
    return float(np.mean(known)) if len(known) else float('nan')


def _none_if_nan(value: float) -> float | None:
    return None if np.isnan(value) else value


def _known(value: float) -> float | None:
    return None if value == -1 else float(value)
