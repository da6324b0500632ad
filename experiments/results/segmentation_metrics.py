"""Metrics of semantic segmentation, from the confusion matrices of images.

The matrices are added up before anything is divided, as in PASCAL VOC's evaluation (Everingham et al. 2010): a metric
is one of all pixels, not a mean over images.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from experiments.results.statistics import percentile_interval, resamples


def metrics(matrices: Int[np.ndarray, 'examples classes classes'], classes: Sequence[str]) -> dict[str, float | None]:
    """Metrics of all images together.

    A class that is in neither the truth nor the prediction has no IoU (``None``) and is left out of the mean, as in
    mmsegmentation and detectron2; in torchvision's references it makes the mean NaN.

    Args:
        matrices: of each image, its pixels by true class (rows) and predicted class (columns).
        classes: names of the classes.

    Returns:
        ``mIoU``; ``pixel_accuracy``, the share of pixels that are right; ``mean_accuracy``, the mean of each class's
        own share, over classes in the truth; ``IoU/CLASS`` and ``accuracy/CLASS``.
    """
    overlaps, accuracies, total = _of_classes(_counts(matrices).sum(0))
    names = ('mIoU', 'pixel_accuracy', 'mean_accuracy')
    found = dict(zip(names, (_mean(overlaps), total, _mean(accuracies)), strict=True))
    found |= {f'IoU/{name}': value for name, value in zip(classes, overlaps, strict=True)}
    found |= {f'accuracy/{name}': value for name, value in zip(classes, accuracies, strict=True)}
    return {name: None if np.isnan(value) else float(value) for name, value in found.items()}


def bootstrap(
    matrices: Int[np.ndarray, 'examples classes classes'], samples: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float] | None]:
    """95 % intervals of ``mIoU`` and ``pixel_accuracy`` for other images of the same kind, as ``resampled``."""
    found = resampled(matrices, samples, seed)
    return dict(zip(('mIoU', 'pixel_accuracy'), map(percentile_interval, found.T), strict=True))


def resampled(
    matrices: Int[np.ndarray, 'examples classes classes'], samples: int = 1000, seed: int = 0
) -> Float[np.ndarray, 'samples 2']:
    """mIoU and pixel accuracy of samples of the images, drawn with replacement.

    Args:
        matrices: as for ``metrics``.
        samples: number of samples.
        seed: of the samples.
    """
    counts = _counts(matrices)
    # Whole numbers of pixels are exact in float64, whose matrix product is much faster.
    drawn = resamples(len(counts), samples, seed).astype(np.float64) @ counts.reshape(len(counts), -1)
    overlaps, _, totals = _of_classes(drawn.reshape(samples, *counts.shape[1:]))
    return np.stack([_mean(overlaps), totals], -1)


def _counts(matrices: Int[np.ndarray, 'examples classes classes']) -> Float[np.ndarray, 'examples 3 classes']:
    """Pixels of each class that are right, that are in the truth, and that are predicted."""
    right = np.diagonal(matrices, axis1=1, axis2=2)
    return np.stack([right, matrices.sum(2), matrices.sum(1)], 1).astype(np.float64)


def _of_classes(counts: Float[np.ndarray, '*samples 3 classes']) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """IoU and accuracy of each class, and the accuracy of all; NaN where there is no pixel."""
    right, true, predicted = np.moveaxis(counts, -2, 0)
    with np.errstate(invalid='ignore'):
        return right / (true + predicted - right), right / true, right.sum(-1) / true.sum(-1)


def _mean(values: Float[np.ndarray, '*samples classes']) -> Float[np.ndarray, '*samples']:
    known = ~np.isnan(values)
    with np.errstate(invalid='ignore'):
        return np.where(known, values, 0).sum(-1) / known.sum(-1)
