"""Small data sets and configs of dense tasks, quick to learn and quick to run."""

import dataclasses

import ml_collections
import numpy as np

from experiments.data import shapes
from experiments.data.dataset import Dataset
from experiments.data.truth import Boxes, Masks
from experiments.training.config import default_config


def make_dense(task: str, splits=(16, 8, 8), size: int = 32, seed: int = 3, objects=(0, 8)) -> Dataset:
    """Generated shapes with boxes, or with masks, in the order training, validation, test."""
    made = shapes.generate(sum(splits), size, seed, objects)
    images, classes, truth = made.images, shapes.CLASSES, made.boxes
    if task == 'segmentation':
        images, classes = np.concatenate([images, made.masks[..., None]], -1), ('background', *classes)
        truth = Masks.counted(made.masks, len(classes))
    ends = np.cumsum(splits)
    return Dataset(
        name='shapes',
        images=images,
        targets=np.zeros(len(images), np.int32),
        ids=tuple(f'{index:04d}' for index in range(len(images))),
        classes=classes,
        splits={
            name: np.arange(end - count, end)
            for name, count, end in zip(('train', 'validation', 'test'), splits, ends, strict=True)
        },
        provenance='generated',
        truth=truth,
    )


def without_objects(dataset: Dataset, indices) -> Dataset:
    """The same images, some of them without any object."""
    truth = dataset.truth
    assert isinstance(truth, Boxes)
    classes = truth.classes.copy()
    classes[np.asarray(indices)] = -1
    return dataclasses.replace(dataset, truth=dataclasses.replace(truth, classes=classes))


def dense_config(
    task: str, backbone: str = 'vit_micro', regime: str = 'frozen', **changes
) -> ml_collections.ConfigDict:
    """A training of seconds: thin neck and head on small images."""
    config = default_config()
    config.task, config.dataset = task, 'shapes'
    config.backbone, config.regime = backbone, regime
    config.weights = '' if regime == 'scratch' else f'bundled:{backbone}'
    config.image_size = 32
    config.strides = (4, 8)
    config.neck_channels = config.head_channels = 16
    if task == 'detection':
        config.head_depth = 1
    config.batch_size = 8
    config.epochs, config.warmup_epochs = 1.0, 0.0
    config.threads = 1
    for key, value in changes.items():
        config[key] = value
    return config
