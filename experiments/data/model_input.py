"""Preprocessing of a model's input: the constants of its weights, with the size and fit of the experiment."""

import backbones
from backbones.preprocessing import Preprocessing


def input_preprocessing(backbone: str, weights: str, image_size: int, fit: str = 'crop') -> Preprocessing:
    """The preprocessing of the weights without its margin crop, so that every backbone sees the same image area.

    Args:
        backbone: a registered name.
        weights: their source; ``'random'`` or ``''``: as for the backbone's published weights.
        image_size: side of the model's input in pixels; 0: that of the preprocessing.
        fit: how an image that is not square is made square: ``'crop'``, ``'squash'`` or ``'letterbox'``.

    Raises:
        UserError: no such backbone, weights or fit.
    """
    backbones.info(backbone)  # check the name before the weights, which may be empty
    expected = backbones.preprocess(backbone if weights in ('', 'random') else weights, backbone)
    return expected.replace(size=image_size or None, crop=1.0, fit=fit)
