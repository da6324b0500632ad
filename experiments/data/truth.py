"""What a dense task predicts about an image: boxes around objects, or a class for every pixel.

Both have one row per example, like ``Dataset.images``. A mask is the fourth channel of its image, so that it is stored,
decoded, sent and moved with it.
"""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from backbones.letterbox_placement import letterbox_placement
from backbones.pixel_labels import IGNORE


@dataclasses.dataclass(frozen=True)
class Masks:
    """The fourth channel of the images holds the class of each pixel, from 0, or ``IGNORE``.

    Attributes:
        pixels: how many pixels of each original mask are of each class and, last, ignored.
    """

    pixels: Int[np.ndarray, 'examples classes_and_ignored']

    @staticmethod
    def counted(masks: UInt8[np.ndarray, 'examples height width'], classes: int) -> 'Masks':
        """Those of masks in memory, with the pixels of so many classes counted."""
        counts = np.stack([np.bincount(mask.ravel(), minlength=IGNORE + 1) for mask in masks])
        return Masks(np.concatenate([counts[:, :classes], counts[:, IGNORE:]], -1))


@dataclasses.dataclass(frozen=True)
class Boxes:
    """The objects of every image, padded to the largest number in any image.

    Attributes:
        boxes: left, top, right, bottom in pixels of the original image; zeros where there is no object.
        classes: from 0; -1 where there is no object.
        crowd: whether a box holds several objects (COCO's ``iscrowd``): not trained on, and matched as COCO matches it.
        difficult: whether VOC's evaluation leaves the object out.
        area: area in pixels of the original image, by which COCO tells small from large: of the object's own mask where
            it has one, else of the box.
        sizes: height and width of the original images.
    """

    boxes: Float[np.ndarray, 'examples objects 4']
    classes: Int[np.ndarray, 'examples objects']
    crowd: Bool[np.ndarray, 'examples objects']
    difficult: Bool[np.ndarray, 'examples objects']
    area: Float[np.ndarray, 'examples objects']
    sizes: Int[np.ndarray, 'examples 2']

    def placements(self, stored_size: tuple[int, int] | None) -> Float[np.ndarray, 'examples 4']:
        """How pixels of the original images become stored ones: factors of x and y, then shifts of x and y.

        Args:
            stored_size: height and width that the images were brought to with a letterbox; ``None``: their own.
        """
        result = np.tile(np.array([1, 1, 0, 0], np.float32), (len(self.sizes), 1))
        if stored_size is None:
            return result
        sizes, which = np.unique(self.sizes, axis=0, return_inverse=True)
        for number, (height, width) in enumerate(sizes.tolist()):
            result[which == number] = letterbox_placement((height, width), stored_size)
        return result

    def stored(self, stored_size: tuple[int, int] | None) -> Float[np.ndarray, 'examples objects 4']:
        """The boxes in pixels of the stored images."""
        factors, shifts = np.split(self.placements(stored_size)[:, None], 2, axis=-1)
        moved = self.boxes * np.tile(factors, 2) + np.tile(shifts, 2)
        return np.where(self.classes[..., None] < 0, 0, moved).astype(np.float32)

    def arrays(self, stored_size: tuple[int, int] | None) -> dict[str, np.ndarray]:
        """What a batch holds of each example, in pixels of the stored images; crowds are no objects to learn from."""
        return {
            'boxes': self.stored(stored_size),
            'classes': np.where(self.crowd, -1, self.classes).astype(np.int32),
            'placement': self.placements(stored_size),
            'size': self.sizes.astype(np.int32),
        }

    def of(self, indices: Int[np.ndarray, ' subset']) -> 'Boxes':
        """The objects of some examples."""
        return Boxes(**{field.name: getattr(self, field.name)[indices] for field in dataclasses.fields(self)})


Truth = Boxes | Masks
# What a task needs to know about an image: its class, the boxes of its objects, or a mask.
TruthKind = Literal['class', 'boxes', 'masks']
IN_WORDS: dict[TruthKind, str] = {'class': 'a class for each image', 'boxes': 'boxes', 'masks': 'masks'}
# What metrics compare the predictions for some examples with: the class of each, or its boxes.
Targets = Int[np.ndarray, ' examples'] | Boxes
