"""Predictions as a table, and in the layout of COCO."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from backbones.prediction import class_names
from backbones.prediction.prediction import Prediction, run_lengths


def heading(name: str, prediction: Prediction) -> str:
    """Name and size of an image."""
    height, width = prediction.size
    return f'{name}  {width}x{height}'


def table(prediction: Prediction) -> Table:
    """Everything about an image: the most likely classes, the boxes, or the share of each class of pixels."""
    result = Table()
    if prediction.boxes is not None and prediction.scores is not None and prediction.classes is not None:
        result.add_column('class')
        for column in ('score', 'left', 'top', 'right', 'bottom'):
            result.add_column(column, justify='right')
        for box, score, index in zip(prediction.boxes, prediction.scores, prediction.classes, strict=True):
            result.add_row(escape(prediction.names[index]), f'{score:.2f}', *(f'{side:.0f}' for side in box))
        if not len(prediction.boxes):
            result.add_row('none: no score is above --score_threshold', *[''] * 5)
        return result
    result.add_column('class')
    result.add_column('probability' if prediction.mask is None else 'share of pixels', justify='right')
    for each, share in prediction.most_likely or prediction.shares:
        result.add_row(escape(each), f'{share:.1%}')
    return result


class CocoResults:
    """Results of many images in COCO's layout: ``images``, ``categories``, and ``annotations`` with a ``score``.

    Boxes are left, top, width and height; segments have run lengths, and the score 1. COCO's own classes have COCO's
    numbers, and others are numbered from 1. Images have the numbers that their files are called, as COCO's are, or are
    numbered from 1 if not all files are called by different numbers.

    Args:
        names: of the classes.
    """

    def __init__(self, names: Sequence[str]):
        self._names = names
        self._ids = class_names.coco_ids(names) or tuple(range(1, len(names) + 1))
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, name: str, prediction: Prediction) -> None:
        """Add the result of one image."""
        number = len(self._images)
        height, width = prediction.size
        self._images.append({'file_name': name, 'height': height, 'width': width})
        if prediction.boxes is not None and prediction.scores is not None and prediction.classes is not None:
            for box, score, index in zip(prediction.boxes, prediction.scores, prediction.classes, strict=True):
                left, top, right, bottom = (float(side) for side in box)
                size = [right - left, bottom - top]
                self._annotate(number, int(index), float(score), [left, top, *size], area=size[0] * size[1])
        if prediction.mask is not None:
            for index in sorted(set(prediction.mask.ravel().tolist())):
                inside = prediction.mask == index
                rows, columns = inside.any(1).nonzero()[0], inside.any(0).nonzero()[0]
                box = [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1]
                self._annotate(number, index, 1.0, box, area=int(inside.sum()), segmentation=run_lengths(inside))

    def _annotate(self, image: int, index: int, score: float, box: list, **more: Any) -> None:
        if self._ids[index] is None:
            return
        self._annotations.append(
            {
                'id': len(self._annotations) + 1,
                'image_id': image,
                'category_id': self._ids[index],
                'bbox': box,
                'score': score,
                'iscrowd': 0,
                **more,
            }
        )

    def as_json(self) -> dict[str, Any]:
        """The file's content."""
        stems = [Path(each['file_name']).stem for each in self._images]
        ids = list(range(1, len(stems) + 1))
        if all(stem.isascii() and stem.isdecimal() for stem in stems) and len(set(map(int, stems))) == len(stems):
            ids = [int(stem) for stem in stems]
        images = [{'id': number} | each for number, each in zip(ids, self._images, strict=True)]
        annotations = [each | {'image_id': ids[each['image_id']]} for each in self._annotations]
        numbered = zip(self._ids, self._names, strict=True)
        categories = [{'id': number, 'name': name} for number, name in numbered if number is not None]
        return {'images': images, 'categories': categories, 'annotations': annotations}
