"""What the images of a data set for a dense task hold: objects or pixels of each class, in each split."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int

from backbones.errors import listed
from experiments.data.truth import Boxes, Masks

if TYPE_CHECKING:
    from experiments.data.dataset import Dataset

# COCO's areas in pixels of the original image: small below 32x32, large from 96x96 on (cocoeval.py, areaRng).
_SMALL, _LARGE = 32**2, 96**2
# Objects whose longer side has fewer pixels than this where images are stored are hardly seen by any detector.
_VISIBLE = 8


def per_class(dataset: 'Dataset') -> dict[str, Int[np.ndarray, ' classes']]:
    """Split → number of objects of each class, or of pixels of the original masks."""
    truth, classes = dataset.truth, len(dataset.classes)
    found = {}
    for split, indices in _splits(dataset).items():
        if isinstance(truth, Boxes):
            labels = truth.classes[indices]
            found[split] = np.bincount(labels[labels >= 0], minlength=classes)
        elif isinstance(truth, Masks):
            found[split] = truth.pixels[indices, :-1].sum(0)
    return found


def present(dataset: 'Dataset', indices: Int[np.ndarray, ' subset']) -> Bool[np.ndarray, ' classes']:
    """Which classes some examples have something of: an image, an object, or a pixel of the original masks."""
    truth, classes = dataset.truth, len(dataset.classes)
    if isinstance(truth, Masks):
        return truth.pixels[indices, :-1].sum(0) > 0
    labels = truth.classes[indices] if isinstance(truth, Boxes) else dataset.targets[indices]
    return np.bincount(labels[labels >= 0], minlength=classes) > 0


def as_json(dataset: 'Dataset') -> dict[str, Any]:
    """Images, and objects or shares of pixels, of each split, as the files of a result keep them."""
    truth, splits = dataset.truth, _splits(dataset)
    found: dict[str, Any] = {'images': {split: len(indices) for split, indices in splits.items()}}
    counts = per_class(dataset)
    if isinstance(truth, Boxes):
        found['objects'] = {split: each.tolist() for split, each in counts.items()}
        found['images_without_objects'] = {split: without_objects(truth, each) for split, each in splits.items()}
        found['object_sizes'] = {split: object_sizes(truth, each) for split, each in splits.items()}
    elif isinstance(truth, Masks):
        found['pixel_shares'] = {split: shares(each).tolist() for split, each in counts.items()}
        found['ignored_pixels'] = {split: ignored(truth, each) for split, each in splits.items()}
    return found


def shares(counts: Int[np.ndarray, ' classes']) -> np.ndarray:
    """The share of each class, of all pixels that are not ignored."""
    return counts / max(counts.sum(), 1)


def without_objects(truth: Boxes, indices: Int[np.ndarray, ' subset']) -> int:
    """How many images have no object."""
    return int((truth.classes[indices] < 0).all(1).sum())


def object_sizes(truth: Boxes, indices: Int[np.ndarray, ' subset']) -> dict[str, int]:
    """Number of small, medium and large objects, as COCO tells them apart by their area in the original image."""
    areas = truth.area[indices][truth.classes[indices] >= 0]
    small, large = int((areas < _SMALL).sum()), int((areas >= _LARGE).sum())
    return {'small': small, 'medium': len(areas) - small - large, 'large': large}


def ignored(truth: Masks, indices: Int[np.ndarray, ' subset']) -> float:
    """The share of all pixels that count for nothing."""
    pixels = truth.pixels[indices]
    return float(pixels[:, -1].sum() / max(pixels.sum(), 1))


def noticed(dataset: 'Dataset') -> list[str]:
    """What may need attention: classes that cannot be learned, and objects too small as images are stored."""
    found = []
    counts = per_class(dataset)
    if 'train' in counts and (absent := np.flatnonzero(counts['train'] == 0)).size:
        names = [dataset.classes[index] for index in absent]
        elsewhere = [name for name in names if any(each[dataset.classes.index(name)] for each in counts.values())]
        found.append(
            f'{len(names)} of {len(dataset.classes)} classes missing from the training split ({listed(names, 5)})'
            f'{f", but not from the others: {listed(elsewhere)}" if elsewhere else ""}'
        )
    if isinstance(dataset.truth, Boxes) and dataset.stored_size is not None:
        boxes = dataset.truth.stored(dataset.stored_size)[dataset.truth.classes >= 0]
        tiny = int(((boxes[:, 2:] - boxes[:, :2]).max(1) < _VISIBLE).sum())
        if tiny:
            found.append(
                f'{tiny:,} of {len(boxes):,} objects have sides of less than {_VISIBLE} pixels as images are stored; a '
                'larger --config.stored_size keeps more of them'
            )
    return found


def _splits(dataset: 'Dataset') -> dict[str, np.ndarray]:
    return {split: dataset.splits[split] for split in ('train', 'validation', 'test') if split in dataset.splits}
