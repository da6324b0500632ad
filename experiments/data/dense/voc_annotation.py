"""One annotation file of Pascal VOC: the objects of an image.

Source of the format: VOCdevkit, ``VOCcode/PASreadrecord.m`` and the devkit's documentation.
"""

import math
from typing import NamedTuple
from xml.etree import ElementTree

from experiments.data.dense.annotations import AnnotatedObject, digest_of

_CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')


class VocAnnotation(NamedTuple):
    """What an annotation file says."""

    objects: tuple[AnnotatedObject, ...]
    size: tuple[int, int] | None
    filename: str
    digest: str


def parse(content: bytes) -> VocAnnotation:
    """Read an annotation file; corners are as it has them.

    Raises:
        xml.etree.ElementTree.ParseError: it is no XML.
    """
    root = ElementTree.fromstring(content)
    width, height = _number(root, 'size/width'), _number(root, 'size/height')
    # Some tools write 0 where they do not know it.
    size = (int(height), int(width)) if 0 < width < math.inf and 0 < height < math.inf else None
    objects = tuple(_object(each) for each in root.findall('object'))
    return VocAnnotation(objects, size, (root.findtext('filename') or '').strip(), digest_of(content))


def _object(element: ElementTree.Element) -> AnnotatedObject:
    label = (element.findtext('name') or '').strip()
    left, top, right, bottom = (_number(element, f'bndbox/{corner}') for corner in _CORNERS)
    problem = None
    if not label:
        problem = 'it has no name'
    elif element.find('bndbox') is None:
        problem = 'it has no box'
    elif left == right or top == bottom:
        # One pixel wide if taken literally, but in practice a slip of the mouse.
        problem = 'without area'
    return AnnotatedObject(
        label, (left, top, right, bottom), difficult=_number(element, 'difficult') == 1, problem=problem
    )


def _number(element: ElementTree.Element, path: str) -> float:
    try:
        return float(element.findtext(path) or 'nan')
    except ValueError:
        return math.nan
