"""Images of a run's own data set, with the truth about them, for pictures of both."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from backbones.errors import UserError, unknown
from backbones.images import ImageReading, read_image
from backbones.prediction import drawing, labels
from backbones.prediction.prediction import Prediction
from backbones.pretrained import sources
from experiments import tasks
from experiments.cli import work_directories
from experiments.data import loading
from experiments.data.dataset import Dataset
from experiments.data.model_input import input_kind
from experiments.data.options import KEYS, ReadingOptions
from experiments.data.truth import IGNORE, Boxes, Masks

# What --split takes.
SPLITS = ('train', 'validation', 'test', 'all')


def dataset_of(workdir: Path, data_directory: Path | None) -> Dataset:
    """The data set that a run was trained on, read as the run read it.

    Args:
        workdir: of ``experiments.train``, one of its checkpoints, or ``trainings/CELL/RATE`` of an ablation.
        data_directory: of prepared TFDS data sets.

    Raises:
        UserError: it is none of these, or the data cannot be read.
    """
    description, _ = sources.kept(sources.resolve(str(workdir)))
    places = (workdir, *workdir.absolute().parents[:3])
    config = next(filter(None, map(work_directories.read_config, places)), None)
    if description is None or 'name' not in description.data or config is None:
        raise UserError(f'{str(workdir)!r} is no work directory of experiments.train, so its data are not known')
    options = ReadingOptions(**{key: config[key] for key in KEYS if key in config})
    truth, inputs = tasks.find(description.task).truth, input_kind(description.backbone)
    return loading.load(description.data['name'], data_directory, options, truth, inputs=inputs)


def check_name(split: str) -> None:
    """Check the name of a split before anything is read, which may take long.

    Raises:
        UserError: there is no such split.
    """
    if split not in SPLITS:
        raise unknown('split', split, SPLITS)


def chosen(dataset: Dataset, split: str, limit: int | None) -> np.ndarray:
    """The examples of a split (``'all'``: of the data set), or so many of them, evenly spread."""
    indices = np.sort(np.concatenate([*dataset.splits.values()])) if split == 'all' else dataset.splits[split]
    if limit is None or limit >= len(indices):
        return indices
    return indices[np.arange(limit) * len(indices) // limit]


def images(dataset: Dataset, indices: np.ndarray, reading: ImageReading | None = None) -> Iterator[Path | np.ndarray]:
    """Their files, or their pixels as they are stored where there are no files, or the truth lies in stored pixels.

    Args:
        dataset: whose images they are.
        indices: the examples.
        reading: how the model reads files. Where it knows no range of deep grey images, that of the data set is taken.
    """
    moved = isinstance(dataset.truth, Masks) and dataset.stored_size is not None
    own = dataset.reading.grey_range is not None and reading is not None and reading.grey_range is None
    for index in indices:
        file = None if moved or dataset.files is None else dataset.files[index]
        if file is None:
            yield dataset.images[np.array([index])][0, ..., :3]
        else:
            yield read_image(file, dataset.reading) if own else file


def truth_picture(dataset: Dataset, index: int, prediction: Prediction) -> Image.Image:
    """An example with the truth about it, on the image that was predicted."""
    scale = drawing.enlargement(prediction.size)
    picture = drawing.enlarged(Image.fromarray(prediction.image), scale)
    if isinstance(dataset.truth, Boxes):
        truth = dataset.truth.of(np.array([index]))
        there = (truth.classes[0] >= 0) & ~truth.crowd[0]
        classes = truth.classes[0][there]
        stored = None if prediction.size == tuple(truth.sizes[0]) else dataset.stored_size
        boxes = scale * truth.stored(stored)[0][there]
        return drawing.with_boxes(picture, boxes, [dataset.classes[each] for each in classes], classes)
    if isinstance(dataset.truth, Masks):
        mask = dataset.images[np.array([index])][0, ..., 3].repeat(scale, 0).repeat(scale, 1)
        return drawing.with_mask(picture, mask, dataset.classes, IGNORE)
    target = int(dataset.targets[index])
    return drawing.with_lines(picture, [labels.written(dataset.classes[target], target)])


def beside_truth(truth: Image.Image, predicted: Image.Image) -> Image.Image:
    """Both in one picture."""
    return drawing.beside([truth, predicted], ('truth', 'predicted'))
