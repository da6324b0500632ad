"""Detections of a split as its metrics take them: padded arrays in pixels of the original images."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

from experiments.data.truth import Boxes


@dataclasses.dataclass(frozen=True)
class Detections:
    """What a detector found in each image.

    Attributes:
        boxes: left, top, right, bottom in pixels of the original image.
        scores: higher is surer.
        classes: from 0.
        valid: whether there is a detection; the other values are then of no account.
    """

    boxes: Float[np.ndarray, 'examples detections 4']
    scores: Float[np.ndarray, 'examples detections']
    classes: Int[np.ndarray, 'examples detections']
    valid: Bool[np.ndarray, 'examples detections']


def truth_of(truth: Boxes, indices: Int[np.ndarray, ' subset'], detections: Detections) -> Boxes:
    """The truth of the examples that the rows of ``detections`` stand for.

    Raises:
        ValueError: there are more or fewer rows than examples.
    """
    if len(indices) != len(detections.valid):
        raise ValueError(f'detections in {len(detections.valid)} images, but {len(indices)} images are named')
    fields = dataclasses.fields(truth)
    return Boxes(**{field.name: getattr(truth, field.name)[indices] for field in fields})
