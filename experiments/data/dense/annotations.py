"""What the reader of a format finds in its annotations, before any image is opened."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from experiments.data.dense.mask_source import MaskSource


class AnnotatedObject(NamedTuple):
    """One object of an image, as its annotation has it: it may make no sense.

    Attributes:
        label: name of its class.
        box: left, top, right, bottom in pixels, or in shares of the width and height (``Annotations.normalised``).
        crowd: whether it stands for several objects.
        difficult: whether VOC's evaluation leaves it out.
        area: of its own mask in pixels; 0: that of the box.
        problem: why it cannot be used, where the reader of the format finds it.
    """

    label: str
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    crowd: bool = False
    difficult: bool = False
    area: float = 0.0
    problem: str | None = None


@dataclasses.dataclass(frozen=True)
class AnnotatedImage:
    """An image that a data set lists, and what its annotation says about it.

    Attributes:
        name: path below the root of the data set, printable; its id.
        path: where it is.
        split: ``'train'``, ``'validation'``, ``'test'``, or empty where no split is given.
        objects: in detection, its objects.
        mask: in segmentation, its mask.
        size: height and width that the annotation says; ``None``: it does not.
        problem: why it cannot be used, where the reader of the format finds it.
        digest: a hash of the annotation.
        listed: ``id`` and ``file_name`` in COCO's annotation file; ``None`` in other formats.
    """

    name: str
    path: Path
    split: str = ''
    objects: tuple[AnnotatedObject, ...] = ()
    mask: MaskSource | None = None
    size: tuple[int, int] | None = None
    problem: str | None = None
    digest: str = ''
    listed: tuple[int | str, str] | None = None


@dataclasses.dataclass(frozen=True)
class Annotations:
    """All annotations of a data set.

    Attributes:
        images: in the order of the examples.
        classes: names of the classes of boxes; masks have theirs from ``LabelTable``.
        format: such as ``'VOC'``.
        normalised: whether boxes are given in shares of the width and height.
        extents: whether boxes were written as left, top, width and height in pixels, for which many write corners.
        upright: whether images whose orientation tag turns them are annotated upright, where the size does not tell.
        strays: reason → names of objects that are in no image of these.
        painted: number of objects that masks are painted from, with those among the strays.
        left_out, guessed, noticed: for the account.
        categories: name of a class → its ``id`` in COCO's annotation file; empty in other formats.
    """

    images: tuple[AnnotatedImage, ...]
    classes: tuple[str, ...]
    format: str
    normalised: bool = False
    extents: bool = False
    upright: bool = False
    strays: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    painted: int = 0
    left_out: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    guessed: tuple[str, ...] = ()
    noticed: tuple[str, ...] = ()
    categories: Mapping[str, int | str] = dataclasses.field(default_factory=dict)


def digest_of(annotation: object) -> str:
    """A hash of an annotation, from its ``repr``."""
    return hashlib.sha256(repr(annotation).encode()).hexdigest()
