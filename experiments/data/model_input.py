"""From stored images to a model's input: the constants of the weights, the size and the fit of the experiment."""

import backbones
from backbones.preprocessing import Preprocessing


def input_preprocessing(backbone: str, weights: str, image_size: int, fit: str = 'crop') -> Preprocessing:
    """The constants that belong to the weights, without the margin that they cut off: every backbone sees the same.

    Args:
        backbone: a registered name.
        weights: their source; ``'random'`` ones, or none, are taken to expect what the backbone's published ones do.
        image_size: side of the model's input in pixels; 0: what the preprocessing says.
        fit: how an image of other proportions is brought to the input: ``'crop'``, ``'squash'`` or ``'letterbox'``.

    Raises:
        UserError: no such backbone, weights or fit.
    """
    backbones.info(backbone)  # the name before the weights, which may be none
    expected = backbones.preprocess(backbone if weights in ('', 'random') else weights, backbone)
    return expected.replace(size=image_size or None, crop=1.0, fit=fit)
