"""What a record of a TFDS data set for a dense task holds: its objects, or its mask.

TFDS divides VOC's corners by the image's size as they are; they count pixels from 1 and include the last one, so a box
from 1 to 10 is one from 0 to 10 here.

Of the values of the trimaps of ``oxford_iiit_pet``, 1 is the pet and 2 the background; 3, the border, which its authors
call not classified (``annotations/README`` of the data set), is ignored.
"""

import dataclasses
import hashlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from backbones.errors import UserError
from experiments.data.dense.annotations import AnnotatedObject, digest_of
from experiments.data.truth import IGNORE, Masks

# Name → classes, and value in the mask → class.
MASKS: dict[str, tuple[tuple[str, ...], Mapping[int, int]]] = {
    'oxford_iiit_pet': (('background', 'pet'), {1: 1, 2: 0, 3: IGNORE})
}
IMAGE, OBJECTS, MASK = 'image', 'objects', 'segmentation_mask'


@dataclasses.dataclass(frozen=True)
class AnnotatedRecord:
    """What is kept of a record: all but pixels.

    Attributes:
        split, position: where it is.
        size: height and width of its image.
        digest: a hash of the image, and of its mask if there is one.
        annotation: a hash of the objects, or of the mask.
        objects: in detection, its objects.
        pixels: in segmentation, how many pixels are of each class and, last, ignored.
    """

    split: str
    position: int
    size: tuple[int, int]
    digest: bytes
    annotation: str
    objects: tuple[AnnotatedObject, ...] = ()
    pixels: Int[np.ndarray, '1 classes_and_ignored'] | None = None


def with_objects(
    record: Mapping[str, Any], split: str, position: int, family: str, names: Sequence[str]
) -> AnnotatedRecord:
    """Keep the objects of a record, which may make no sense.

    Args:
        record: its image encoded, its objects as TFDS has them.
        split, position: where it is.
        family: name of the data set without configuration and version.
        names: of the classes.
    """
    size, objects = _size(record), record[OBJECTS]
    height, width = size
    corners = np.asarray(objects['bbox'], np.float64).reshape(-1, 4)[:, [1, 0, 3, 2]]
    # Single precision loses the digits after the third.
    corners = np.round(corners * [width, height, width, height], 3)
    if family == 'voc':
        corners[:, :2] -= 1
    count = len(corners)
    columns = [np.asarray(objects.get(field, np.zeros(count))) for field in ('is_crowd', 'is_difficult', 'area')]
    found = tuple(
        AnnotatedObject(
            names[label] if 0 <= label < len(names) else '', tuple(box), bool(crowd), bool(difficult), float(area)
        )
        for label, box, crowd, difficult, area in zip(
            np.asarray(objects['label']).tolist(), corners.tolist(), *(each.tolist() for each in columns), strict=True
        )
    )
    return AnnotatedRecord(split, position, size, _digest(record[IMAGE]), digest_of((size, found)), objects=found)


def with_mask(record: Mapping[str, bytes], split: str, position: int, family: str) -> AnnotatedRecord:
    """Count the pixels of a record's mask.

    Args:
        record: its image and its mask, encoded.
        split, position: where it is.
        family: a row of ``MASKS``.

    Raises:
        UserError: see ``mask_of``.
    """
    size, (classes, values) = _size(record), MASKS[family]
    counted = Masks.counted(mask_of(record, size, values)[None], len(classes)).pixels
    annotation = hashlib.sha256(record[MASK]).hexdigest()
    return AnnotatedRecord(split, position, size, _digest(record[IMAGE], record[MASK]), annotation, pixels=counted)


def _size(record: Mapping[str, bytes]) -> tuple[int, int]:
    with Image.open(io.BytesIO(record[IMAGE])) as image:
        return image.height, image.width


def _digest(*encoded: bytes) -> bytes:
    return hashlib.sha256(b''.join(hashlib.sha256(each).digest() for each in encoded)).digest()


def mask_of(
    record: Mapping[str, bytes], size: tuple[int, int], values: Mapping[int, int]
) -> UInt8[np.ndarray, 'height width']:
    """The class of every pixel.

    Args:
        record: with a mask.
        size: height and width of its image.
        values: value in the mask → class.

    Raises:
        UserError: the mask has another size, or holds a value that is no class.
    """
    with Image.open(io.BytesIO(record[MASK])) as opened:
        mask = np.asarray(opened)
    if mask.shape != size:
        raise UserError(f'its mask is {mask.shape[1]}x{mask.shape[0]}, its image {size[1]}x{size[0]}')
    # A value that has no class is marked by one that no class has.
    classes = np.array([values.get(value, IGNORE - 1) for value in range(256)], np.uint8)[mask]
    if (classes == IGNORE - 1).any():
        raise UserError(f'its mask holds {mask[classes == IGNORE - 1][0]}, which is no class')
    return classes
