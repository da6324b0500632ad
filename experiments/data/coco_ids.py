"""What the annotation files of COCO call images and categories, so that results can be told in the same terms."""

from collections.abc import Mapping
from typing import NamedTuple


class CocoIds(NamedTuple):
    """Ids and names of a data set's own annotation files.

    Attributes:
        images: id of an example → the image's ``id`` and ``file_name``; those of several files may have the same.
        categories: name of a class → the ``id`` of its category; a background has none.
    """

    images: Mapping[str, tuple[int | str, str]]
    categories: Mapping[str, int | str]
