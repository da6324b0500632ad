"""From stored images or texts to a model's input: constants of the weights, size and fit of the experiment."""

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

import ml_collections

import backbones
from backbones.errors import UserError, listed, unknown
from backbones.inputs import AnyPreprocessing
from backbones.preprocessing import Preprocessing
from backbones.pretrained.load import preprocessing_of
from backbones.text.tokenising import Tokenising
from experiments.data import text_lengths
from experiments.data.dataset import Dataset
from experiments.data.texts import Inputs, Texts
from experiments.results.axes import BASELINES, TFIDF


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
    backbone: str, weights: str, image_size: int | tuple[int, int], fit: str = 'crop', text_length: int = 0
) -> AnyPreprocessing:
    """The weights' preprocessing without its centre crop, so that every backbone sees the same part of an image.

    Args:
        backbone: a registered name.
        weights: their source; for ``'random'`` or none, the preprocessing of the backbone's published weights is used.
            For a run of ours, it is the run's: its mean, std and interpolation; how the run stored its images does not
            matter, since those of this experiment are stored already.
        image_size: side, or height and width, of the model's input in pixels; 0: what the preprocessing says, for a
            run of ours the size that it was trained at.
        fit: how a non-square image becomes the input: ``'crop'``, ``'squash'`` or ``'letterbox'``.
        text_length: for a backbone that reads texts, the most tokens of one; 0: what the weights say.

    Raises:
        UserError: no such backbone, weights or fit, weights of a run of another backbone, a size of images for a
            backbone that reads texts or the reverse, or texts longer than it takes.
    """
    backbones.info(backbone)  # checks the name first
    if reads_texts(backbone):
        if image_size:
            width = image_size[1] if isinstance(image_size, tuple) else image_size
            raise UserError(f'config key image_size is {width}, but {backbone} reads texts; set text_length')
        longest = backbones.create(backbone).longest()
        if text_length > longest:
            raise UserError(f'config key text_length is {text_length}, but {backbone} takes {longest} tokens at most')
        return preprocessing_of(backbone, weights).replace(length=text_length or None)
    if text_length:
        raise UserError(f'config key text_length is {text_length}, but {backbone} reads images; set image_size')
    expected = preprocessing_of(backbone, weights)
    assert isinstance(expected, Preprocessing)
    return expected.for_stored_images().replace(size=image_size or None, crop=1.0, fit=fit)


def reads_texts(backbone: str) -> bool:
    """Whether a backbone, or a baseline, takes texts and not images."""
    return backbone == TFIDF or (backbone in backbones.names('text'))


def input_kind(backbone: str) -> Inputs:
    """What the inputs of a data set for a backbone, or a baseline, must be.

    Raises:
        UserError: there is no such backbone.
    """
    if backbone not in (known := (*backbones.names(), *BASELINES)):
        raise unknown('backbone', backbone, known)
    return 'texts' if reads_texts(backbone) else 'images'


class Reader(NamedTuple):
    """A backbone that reads a data set.

    Attributes:
        backbone: its registered name.
        preprocessing: how images, or texts, become its input.
        trains: whether it is trained on them, and not only passed over them.
        label: what messages call it; empty where there is no other.
    """

    backbone: str
    preprocessing: AnyPreprocessing
    trains: bool
    label: str = ''


def read_by(dataset: Dataset, readers: Iterable[Reader]) -> tuple[Dataset, list[str]]:
    """How the stored images, or the texts, of a data set reach the inputs of models.

    Returns:
        The data set, whose account says which of its texts are cut off, and a line for each reader.

    Raises:
        UserError: a tokenizer cannot be read.
    """
    lines: dict[str, None] = {}
    noticed: dict[str, list[str]] = {}
    labels = []
    for reader in readers:
        labels.append(reader.label)
        line = in_words(reader.preprocessing, dataset, reader.trains)
        lines[f'{reader.label}: {line}' if reader.label else line] = None
        if isinstance(reader.preprocessing, Tokenising) and isinstance(dataset.images, Texts):
            longest = backbones.create(reader.backbone).longest()
            for note in text_lengths.notes(dataset.images, reader.preprocessing, reader.trains, longest):
                noticed.setdefault(note, []).append(reader.label)
    if noticed and dataset.account is not None:
        # Backbones with one tokenizer, as with random weights, say the same.
        notes = (
            note if {*who} == {*labels} else f'{listed(dict.fromkeys(who))}: {note}' for note, who in noticed.items()
        )
        account = dataclasses.replace(dataset.account, noticed=(*dataset.account.noticed, *notes))
        dataset = dataclasses.replace(dataset, account=account)
    return dataset, [*lines]


def in_words(preprocessing: AnyPreprocessing, dataset: Dataset, trains: bool = False) -> str:
    """How the stored images, or the texts, of a data set reach a model's input, which may be trained on them."""
    if isinstance(preprocessing, Tokenising):
        assert isinstance(dataset.images, Texts)
        return text_lengths.in_words(dataset.images, preprocessing, trains)
    height, width = preprocessing.size
    text = f'{width}x{height} ({preprocessing.fit}, {preprocessing.interpolation})'
    if dataset.stored_size is not None and max(preprocessing.size) > max(dataset.stored_size):
        text += f', enlarged from what is stored; --config.stored_size={max(preprocessing.size)} keeps more'
    return text
