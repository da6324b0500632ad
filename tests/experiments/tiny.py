"""A small data set that is quick to learn, and configs that are quick to run."""

import dataclasses

import numpy as np

from experiments.ablation import cells
from experiments.data.dataset import Dataset
from experiments.data.decoding import DecodedImages
from experiments.data.splits import split_by_hash


def make_dataset(name='tiny', examples=160, classes=4, size=8, channels=1, seed=0) -> Dataset:
    """Images whose class is the quadrant that is bright."""
    generator = np.random.default_rng(seed)
    labels = np.arange(examples, dtype=np.int32) % classes
    images = generator.integers(0, 90, (examples, size, size, channels), dtype=np.uint8)
    half = size // 2
    for index, label in enumerate(labels):
        row, column = half * (label // 2 % 2), half * (label % 2)
        images[index, row : row + half, column : column + half] += 80
    ids = tuple(f'{index:04d}' for index in range(examples))
    splits, how = split_by_hash(labels, ids)
    return Dataset(name, images, labels, ids, tuple('abcdefgh'[:classes]), splits, f'made up; {how}')


def make_config(**changes):
    """An ablation of seconds."""
    config = cells.default_config()
    config.backbones = ('resnet_micro@random', 'vit_micro@random', 'pixels')
    config.datasets = ('digits',)
    config.fractions = (0.5, 1.0)
    config.seeds = (0, 1)
    config.image_size = 16
    config.calibration_images = 32
    config.linear.learning_rates = (1e-2, 3e-2)
    config.linear.weight_decays = (0.01,)
    config.linear.values_of_c = 5
    config.linear.steps = 30
    config.linear.batch_size = 16
    config.training.epochs = 1.0
    config.training.batch_size = 16
    config.training_learning_rates = (1e-3,)
    for key, value in changes.items():
        config[key] = value
    return config


def lazy(dataset, bad=(), content=None):
    """The same images, decoded one by one; some are damaged."""

    def read(index):
        if index in bad:
            raise OSError('image file is truncated')
        return dataset.images[index]

    return dataclasses.replace(dataset, images=DecodedImages(read, dataset.images.shape, content))
