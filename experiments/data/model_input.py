"""Preprocessing from stored images to a model's input: constants of the weights, size and fit of the experiment."""

import ml_collections

import backbones
from backbones.errors import UserError
from backbones.preprocessing import Preprocessing
from backbones.pretrained.load import preprocessing_of
from experiments.data.dataset import Dataset


def input_size(config: ml_collections.ConfigDict) -> int | tuple[int, int]:
    """Height and width of the input that a training or an ablation asks for; 0: what the preprocessing says.

    Raises:
        UserError: there is a height without a width.
    """
    width, height = config.image_size, config.image_height
    if height and not width:
        raise UserError(f'config key image_height is {height}, but image_size, the width, is 0; set both')
    return (height or width, width) if width else 0


def input_preprocessing(
    backbone: str, weights: str, image_size: int | tuple[int, int], fit: str = 'crop'
) -> Preprocessing:
    """The weights' preprocessing without its centre crop, so that every backbone sees the same part of an image.

    Args:
        backbone: a registered name.
        weights: their source; for ``'random'`` or none, the preprocessing of the backbone's published weights is used.
            For a run of ours, it is the run's: its mean, std and interpolation; how the run stored its images does not
            matter, since those of this experiment are stored already.
        image_size: side, or height and width, of the model's input in pixels; 0: what the preprocessing says, for a
            run of ours the size that it was trained at.
        fit: how a non-square image becomes the input: ``'crop'``, ``'squash'`` or ``'letterbox'``.

    Raises:
        UserError: no such backbone, weights or fit, or weights of a run of another backbone.
    """
    backbones.info(backbone)  # checks the name first
    expected = preprocessing_of(backbone, weights)
    assert isinstance(expected, Preprocessing)
    return expected.for_stored_images().replace(size=image_size or None, crop=1.0, fit=fit)


def in_words(preprocessing: Preprocessing, dataset: Dataset) -> str:
    """How the stored images of a data set reach a model's input."""
    height, width = preprocessing.size
    text = f'{width}x{height} ({preprocessing.fit}, {preprocessing.interpolation})'
    if dataset.stored_size is not None and max(preprocessing.size) > max(dataset.stored_size):
        text += f', enlarged from what is stored; --config.stored_size={max(preprocessing.size)} keeps more'
    return text
