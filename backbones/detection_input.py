"""From photographs of any size to a detector's input, on the host, and back to pixels of the photographs.

Every image has a shape of its own, for which no program should be compiled; the padded batches have few.

Source: torchvision/models/detection/transform.py, ``GeneralizedRCNNTransform``.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from backbones.boxes.nms import Detections
from backbones.errors import UserError
from backbones.preprocessing import IMAGENET_MEAN, IMAGENET_STD


@dataclasses.dataclass(frozen=True)
class InputBatch:
    """What a detector sees.

    Attributes:
        images: normalised, with zeros to the right and below.
        extents: height and width of each image without its padding.
        sizes: height and width of each image as it came.
    """

    images: Float[np.ndarray, 'batch height width channels']
    extents: Float[np.ndarray, 'batch 2']
    sizes: Float[np.ndarray, 'batch 2']

    def restore(self, detections: Detections) -> Detections:
        """The same detections in pixels of the images as they came."""
        factors = np.tile((self.sizes / self.extents)[:, ::-1], 2)
        return dataclasses.replace(detections, boxes=detections.boxes * factors[:, None])


@dataclasses.dataclass(frozen=True)
class DetectionInput:
    """How images are brought to a detector's input: normalised, resized, padded.

    Attributes:
        min_size: length in pixels that the shorter side gets.
        max_size: length that the longer side has at most; the shorter one is then shorter.
        multiple: of which height and width of the padded batch are multiples.
        mean, std: of each channel, on the scale where pixels run from 0 to 1.
    """

    min_size: int = 800
    max_size: int = 1333
    multiple: int = 32
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def of_size(self, size: int | tuple[int, int]) -> 'DetectionInput':
        """The same with another shorter side, and a longer side in proportion, or with both."""
        shorter, longer = (size, round(size * self.max_size / self.min_size)) if isinstance(size, int) else sorted(size)
        if shorter < 1:
            raise UserError(f'image_size must be at least 1, not {size}')
        return dataclasses.replace(self, min_size=shorter, max_size=longer)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """The height and width that an image gets; at least one pixel."""
        scale = min(self.min_size / min(height, width), self.max_size / max(height, width))
        return max(math.floor(height * scale), 1), max(math.floor(width * scale), 1)

    def __call__(self, images: Sequence[UInt8[np.ndarray, 'height width channels']]) -> InputBatch:
        """A batch of images of any sizes.

        Raises:
            UserError: there is no image, or one that is not uint8 with as many channels as the model takes.
        """
        if not len(images):
            raise UserError('a batch needs at least one image')
        channels = len(self.mean)
        for image in images:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != channels or 0 in image.shape:
                raise UserError(
                    f'images must be uint8 [height, width, {channels}], not {image.dtype} {list(image.shape)}'
                )
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        resized = [resize((image / np.float32(255) - mean) / std, self.resized(*image.shape[:2])) for image in images]
        extents = np.array([image.shape[:2] for image in resized])
        rows, columns = (math.ceil(side / self.multiple) * self.multiple for side in extents.max(0))
        batch = np.zeros((len(images), rows, columns, channels), np.float32)
        for place, image in zip(batch, resized, strict=True):
            place[: image.shape[0], : image.shape[1]] = image
        sizes = np.array([image.shape[:2] for image in images], np.float32)
        return InputBatch(batch, extents.astype(np.float32), sizes)


def resize(
    image: Float[np.ndarray, 'height width channels'], size: tuple[int, int]
) -> Float[np.ndarray, 'rows columns channels']:
    """Bilinear interpolation without antialiasing, as torch's with ``align_corners=False``, where shrinking too."""
    for axis, target in enumerate(size):
        length = image.shape[axis]
        if target == length:
            continue
        step = np.float32(length) / np.float32(target)
        position = np.maximum((np.arange(target, dtype=np.float32) + np.float32(0.5)) * step - np.float32(0.5), 0)
        before = np.minimum(position.astype(np.int64), length - 1)
        after = np.minimum(before + 1, length - 1)
        share = (position - before).reshape(-1, *[1] * (2 - axis)).astype(np.float32)
        image = image.take(before, axis) * (1 - share) + image.take(after, axis) * share
    return image
