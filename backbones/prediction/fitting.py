"""Images fitted to a model's input on the host, and what is found there brought back to the images.

``Preprocessing`` does the same on the device, with the same result, but needs a program for every size of image. A
directory of photographs may hold a new size in every file, while inputs have few.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from backbones import detection_input
from backbones.detection_input import DetectionInput
from backbones.images import to_stored
from backbones.letterbox import LETTERBOX_GREY, letterbox_geometry
from backbones.preprocessing import Preprocessing, _resized_shape

_PILLOW = {
    'nearest': Image.Resampling.NEAREST,
    'bilinear': Image.Resampling.BILINEAR,
    'bicubic': Image.Resampling.BICUBIC,
    'lanczos': Image.Resampling.LANCZOS,
}
# Inputs of any proportions have sides that are multiples of it, so that they are few.
_MULTIPLE = 32


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a resized image lies in a larger one.

    Attributes:
        size: height and width of the image before it was resized.
        top, left: of the resized image, in pixels.
        rows, columns: height and width of the resized image.
    """

    size: tuple[int, int]
    top: int
    left: int
    rows: int
    columns: int

    def boxes_back(self, boxes: Float[np.ndarray, 'n 4']) -> Float[np.ndarray, 'n 4']:
        """Boxes in pixels of the image from those where it lies, clipped to it."""
        height, width = self.size
        factors = np.array([self.columns / width, self.rows / height] * 2, np.float32)
        shifts = np.array([self.left, self.top] * 2, np.float32)
        return np.clip((boxes - shifts) / factors, 0, np.array([width, height] * 2, np.float32))

    def map_back(self, values: Float[np.ndarray, 'rows columns']) -> Float[np.ndarray, 'height width']:
        """A map of the size of the image from one where it lies."""
        inside = values[self.top : self.top + self.rows, self.left : self.left + self.columns]
        return detection_input.resize(inside[..., None], self.size)[..., 0]


@dataclasses.dataclass(frozen=True)
class Cut:
    """Where a resized image would lie, if the part that was cut out of it lay at the top left.

    Attributes:
        size: height and width of the image before it was resized.
        top, left: of the resized image, in pixels; not positive.
        rows, columns: height and width of the resized image.
    """

    size: tuple[int, int]
    top: float
    left: float
    rows: float
    columns: float


@dataclasses.dataclass(frozen=True)
class Fitted:
    """An image as a model's input has it.

    Attributes:
        pixels: ``uint8``, or ``float32`` where it is normalised already.
        extent: height and width of what is no padding to the right or below.
        places: what was done to it, one after the other; where a part was cut off (``fit='crop'``), nothing is found
            again, and there are none.
        cuts: as ``places``, where a part was cut off.
    """

    pixels: np.ndarray
    extent: tuple[int, int]
    places: tuple[Place, ...]
    cuts: tuple[Cut, ...] = ()

    @property
    def window(self) -> tuple[float, float, float, float]:
        """Top, left, bottom and right of the input in pixels of the image; outside it where the input is padded."""
        top, left, bottom, right = 0.0, 0.0, *map(float, self.pixels.shape[:2])
        for step in reversed(self.places or self.cuts):
            down, across = step.size[0] / step.rows, step.size[1] / step.columns
            top, bottom = ((side - step.top) * down for side in (top, bottom))
            left, right = ((side - step.left) * across for side in (left, right))
        return top, left, bottom, right

    def boxes_back(self, boxes: Float[np.ndarray, 'n 4']) -> Float[np.ndarray, 'n 4']:
        """Boxes in pixels of the image from those in the input."""
        for place in reversed(self.places):
            boxes = place.boxes_back(boxes)
        return boxes

    def map_back(self, values: Float[np.ndarray, 'rows columns']) -> Float[np.ndarray, 'height width']:
        """A map of the size of the image from one of the size of the input."""
        for place in reversed(self.places):
            values = place.map_back(values)
        return values


def fit(image: UInt8[np.ndarray, 'height width 3'], expected: Preprocessing | DetectionInput) -> Fitted:
    """Fit one image to the input of a model.

    Args:
        image: upright.
        expected: what the model expects of images.
    """
    if isinstance(expected, DetectionInput):
        batch = expected([image])
        rows, columns = (int(side) for side in batch.extents[0])
        return Fitted(batch.images[0], (rows, columns), (Place(image.shape[:2], 0, 0, rows, columns),))
    places, cuts = [], []
    if expected.stored_size is not None and image.shape[:2] != expected.stored_size:
        if expected.fit == 'letterbox':
            places.append(_in_letterbox(image.shape[:2], expected.stored_size))
        elif expected.fit == 'squash':
            places.append(Place(image.shape[:2], 0, 0, *expected.stored_size))
        elif expected.fit == 'crop':
            cuts.append(_stored_cut(image.shape[:2], expected.stored_size))
        image = to_stored(Image.fromarray(image), expected.stored_size, expected.fit)
    size = image.shape[:2]
    if expected.fit == 'letterbox':
        place = _in_letterbox(size, expected.size)
        resized = _resized(image, (place.rows, place.columns), expected.interpolation)
        pixels = np.full((*expected.size, resized.shape[2]), LETTERBOX_GREY, np.uint8)
        pixels[place.top : place.top + place.rows, place.left : place.left + place.columns] = resized
        return Fitted(pixels, expected.size, (*places, place))
    shape = _resized_shape(size, expected.size, expected.crop, expected.fit == 'squash')
    resized = _resized(image, shape, expected.interpolation)
    if expected.fit == 'shorter_side':
        rest = [-side % _MULTIPLE for side in shape]
        pixels = np.pad(resized, ((0, rest[0]), (0, rest[1]), (0, 0)), constant_values=LETTERBOX_GREY)
        return Fitted(pixels, shape, (*places, Place(size, 0, 0, *shape)))
    if expected.fit == 'squash' and shape == expected.size:
        return Fitted(resized, expected.size, (*places, Place(size, 0, 0, *shape)))
    top, left = (round((have - want) / 2) for have, want in zip(shape, expected.size, strict=True))
    cuts += [Cut(place.size, place.top, place.left, place.rows, place.columns) for place in places]
    pixels = resized[top : top + expected.size[0], left : left + expected.size[1]]
    return Fitted(pixels, expected.size, (), (*cuts, Cut(size, -top, -left, *shape)))


def _stored_cut(size: tuple[int, int], target: tuple[int, int]) -> Cut:
    """The centre that ``to_stored`` cuts out."""
    scale = max(want / have for want, have in zip(target, size, strict=True))
    rows, columns = (have * scale for have in size)
    return Cut(size, (target[0] - rows) / 2, (target[1] - columns) / 2, rows, columns)


def _in_letterbox(size: tuple[int, int], target: tuple[int, int]) -> Place:
    (rows, columns), ((top, _), (left, _)) = letterbox_geometry(size, target)
    return Place(size, top, left, rows, columns)


def _resized(
    image: UInt8[np.ndarray, 'height width channels'], shape: tuple[int, int], interpolation: str
) -> UInt8[np.ndarray, 'rows columns channels']:
    """As ``Preprocessing`` resizes: as Pillow does, or as OpenCV's ``INTER_LINEAR`` but for its rounding."""
    if image.shape[:2] == shape:
        return image
    if interpolation == 'bilinear_opencv':
        resized = detection_input.resize(image.astype(np.float32), shape)
        return np.clip(np.floor(resized + 0.5), 0, 255).astype(np.uint8)
    rows, columns = shape
    return np.asarray(Image.fromarray(image).resize((columns, rows), _PILLOW[interpolation]))


def of_one_shape(fitted: list[Fitted]) -> np.ndarray:
    """A batch of inputs of the same shape."""
    return np.stack([each.pixels for each in fitted])


def normalisation(expected: Preprocessing | DetectionInput, shape: Sequence[int]) -> Preprocessing | None:
    """What is left to be done on the device for inputs of this height and width; ``None`` for nothing."""
    if isinstance(expected, DetectionInput):
        return None
    return expected.for_stored_images().replace(size=tuple(shape), fit='squash', crop=1.0)
