"""What a detector found in a split, as its metrics take them: padded arrays in pixels of the original images."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

from experiments.data.truth import Boxes


@dataclasses.dataclass(frozen=True)
class DetectedBoxes:
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


def check_rows(truth: Boxes, detections: DetectedBoxes) -> None:
    """Check that the rows of the truth and of the detections can be of the same images.

    Raises:
        ValueError: there are more of one than of the other.
    """
    if len(truth.sizes) != len(detections.valid):
        raise ValueError(f'detections in {len(detections.valid)} images, but the truth of {len(truth.sizes)}')
