"""The place of an image in a letterbox as a map of coordinates, for boxes on the image.

It is a module of its own because features are stored under a hash of the code of preprocessing, which pixels need and
this map does not change.
"""

from backbones.letterbox import letterbox_geometry


def letterbox_placement(shape: tuple[int, int], size: tuple[int, int]) -> tuple[float, float, int, int]:
    """How coordinates in an image become those in its letterbox: factors of x and y, then shifts of x and y in pixels.

    The factors differ by what rounding to whole pixels changes (``letterbox_geometry``).

    Args:
        shape: height and width of the image.
        size: height and width of the input.
    """
    height, width = shape
    (rows, columns), ((top, _), (left, _)) = letterbox_geometry(shape, size)
    return columns / width, rows / height, left, top
