"""Predictions as a table, and in the layout of COCO."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from backbones.prediction import class_names
from backbones.prediction.prediction import Prediction, run_lengths
from experiments.data.coco_ids import CocoIds


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
    numbered from 1 if not all files are called by different numbers. Images and classes of a data set that was read
    from COCO's annotation files have the ids and file names of these, so that results can be compared with them.

    Args:
        names: of the classes.
        own: ids of the data set whose images are predicted. A class that is none of its categories, such as the
            background, is left out. Where images of several files have the same ids, they are numbered as others are.
    """

    def __init__(self, names: Sequence[str], own: CocoIds | None = None):
        self._names = names
        self._own = own
        self._ids: Sequence[int | str | None] = class_names.coco_ids(names) or tuple(range(1, len(names) + 1))
        if own is not None:
            self._ids = [own.categories.get(name) for name in names]
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
        ids, files = self._numbered([each['file_name'] for each in self._images])
        images = [
            {'id': number} | each | {'file_name': file}
            for number, file, each in zip(ids, files, self._images, strict=True)
        ]
        annotations = [each | {'image_id': ids[each['image_id']]} for each in self._annotations]
        numbered = zip(self._ids, self._names, strict=True)
        categories = [{'id': number, 'name': name} for number, name in numbered if number is not None]
        return {'images': images, 'categories': categories, 'annotations': annotations}

    def _numbered(self, names: Sequence[str]) -> tuple[Sequence[int | str], Sequence[str]]:
        """Ids and file names of images."""
        if self._own is not None:
            found = [self._own.images.get(name) for name in names]
            known = [each for each in found if each is not None]
            if len({number for number, _ in known}) == len(names):
                return [number for number, _ in known], [file for _, file in known]
        stems = [Path(name).stem for name in names]
        if all(stem.isascii() and stem.isdecimal() for stem in stems) and len(set(map(int, stems))) == len(stems):
            return [int(stem) for stem in stems], names
        return range(1, len(names) + 1), names
