"""Masks that are painted from the outlines of objects: polygons and run lengths, as COCO has them.

They are kept as run lengths, which pycocotools decodes as COCO's own tools do.
"""

import dataclasses
import hashlib
import math
import warnings
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from experiments.data.dense.mask_source import InspectedMask, LabelTable, counted


def ignore_warnings_of_pycocotools() -> None:
    """Let pycocotools 2.0.11 say nothing of what numpy 2 wants of it, once for each mask.

    Call it in the main thread: the filters of warnings belong to the whole process.
    """
    warnings.filterwarnings('ignore', "__array__ implementation doesn't accept a copy keyword", DeprecationWarning)


class BadOutline(ValueError):
    """An outline that makes no sense; the message says why."""


@dataclasses.dataclass(frozen=True)
class Outline:
    """An object's mask.

    Attributes:
        value: of its pixels.
        counts: COCO's compressed run lengths.
        area: number of its pixels.
    """

    value: int
    counts: bytes
    area: int


@dataclasses.dataclass(frozen=True)
class PaintedMask:
    """A mask that is painted from outlines, the first at the bottom; both a source of masks and a reader.

    Attributes:
        shape: height and width.
        outlines: of the objects.
    """

    shape: tuple[int, int]
    outlines: tuple[Outline, ...]

    @property
    def digest(self) -> str:
        """A hash of the outlines."""
        return hashlib.sha256(repr((self.shape, self.outlines)).encode()).hexdigest()

    def inspect(self) -> InspectedMask:
        """Paint it: see ``MaskSource``."""
        return InspectedMask(self.shape, counted(self().astype(np.int64)), self)

    def reader(self, table: LabelTable) -> 'PaintedMask':
        """Itself: its values are the classes already."""
        return self

    def __call__(self) -> UInt8[np.ndarray, 'height width']:
        """Paint it."""
        from pycocotools import mask  # imported late: only data sets with outlines need it

        result = np.zeros(self.shape, np.uint8, order='F')  # as pycocotools has them, which is quicker
        for outline in self.outlines:
            inside = mask.decode({'size': list(self.shape), 'counts': outline.counts})
            np.copyto(result, np.uint8(outline.value), where=inside.view(bool))
        return np.ascontiguousarray(result)


def outline(segmentation: Any, shape: tuple[int, int], value: int) -> Outline:
    """An object's mask from its ``segmentation`` in COCO's form.

    Args:
        segmentation: a list of polygons, or run lengths, compressed or not.
        shape: height and width of the image.
        value: of its pixels.

    Raises:
        BadOutline: it is none of these, belongs to an image of another size, or is empty.
    """
    from pycocotools import mask

    if isinstance(segmentation, list) and segmentation:
        polygons = [_polygon(each, shape) for each in segmentation]
        encoded = mask.merge(mask.frPyObjects(polygons, *shape))
    elif isinstance(segmentation, dict):
        encoded = _run_lengths(segmentation, shape)
    else:
        raise BadOutline('it has no segmentation')
    area = int(mask.area(encoded))
    if area == 0:
        raise BadOutline('its segmentation is empty')
    return Outline(value, encoded['counts'], area)


def _polygon(points: Any, shape: tuple[int, int]) -> list[float]:
    if not isinstance(points, list) or len(points) < 6 or len(points) % 2:
        raise BadOutline('a polygon of it has not three corners or more')
    try:
        numbers = [float(each) for each in points]
    except (TypeError, ValueError, OverflowError):
        numbers = [math.nan]
    if not all(map(math.isfinite, numbers)):
        raise BadOutline('a polygon of it is not finite')
    # Its outline is followed pixel by pixel, however far it goes.
    for axis, side in enumerate(reversed(shape)):
        if min(numbers[axis::2]) < -side or max(numbers[axis::2]) > 2 * side:
            raise BadOutline('a polygon of it reaches far out of its image')
    return numbers


def _run_lengths(given: dict[str, Any], shape: tuple[int, int]) -> dict[str, Any]:
    from pycocotools import mask

    if list(given.get('size', ())) != list(shape):
        raise BadOutline(f'its run lengths are for {given.get("size")}, not for {list(shape)}')
    counts = given.get('counts')
    if isinstance(counts, list):
        if not all(isinstance(each, int) and each >= 0 for each in counts) or sum(counts) != math.prod(shape):
            raise BadOutline('its run lengths do not add up to the pixels of its image')
        return mask.frPyObjects(given, *shape)
    if not isinstance(counts, str | bytes):
        raise BadOutline('its run lengths are neither numbers nor text')
    encoded = counts.encode() if isinstance(counts, str) else counts
    runs = _decompressed(encoded)
    if runs is None or (runs < 0).any():
        raise BadOutline('its run lengths are damaged')
    # Where they are too few, pycocotools leaves the rest of the mask as the memory was.
    if runs.sum() != math.prod(shape):
        raise BadOutline('its run lengths do not add up to the pixels of its image')
    return {'size': list(shape), 'counts': encoded}


def _decompressed(text: bytes) -> Int[np.ndarray, ' runs'] | None:
    """Run lengths from their compressed form, or ``None`` if it is damaged.

    Each character holds five bits of a number, the lowest first, and whether more follow; the last one's highest bit is
    the sign. From the fourth number on they are differences to the one before the last (COCO's ``maskApi.c``,
    ``rleFrString``).
    """
    digits = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    last = (digits & 32) == 0
    if not len(digits) or ((digits < 0) | (digits > 63)).any() or not last[-1]:
        return None
    ends = np.flatnonzero(last)
    lengths = np.diff(ends, prepend=-1)
    if lengths.max() > 7:  # more than 32 bits
        return None
    starts = ends - lengths + 1
    places = np.arange(len(digits)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((digits & 31) << (5 * places), starts)
    numbers -= np.where(digits[ends] & 16, 1 << (5 * lengths), 0)
    for first in (1, 2):
        numbers[first::2] = numbers[first::2].cumsum()
    return numbers
