"""The training images on which the statistics of random weights are calibrated."""

import numpy as np
from jaxtyping import Int, UInt8

from experiments.data import pipeline
from experiments.data.dataset import Dataset
from experiments.data.splits import hash_order


def examples(dataset: Dataset, seed: int, count: int) -> Int[np.ndarray, ' chosen']:
    """Training examples drawn by a seed; at most ``count``."""
    train = dataset.splits['train']
    order = hash_order(tuple(dataset.ids[index] for index in train), seed)
    return train[order[:count]]


def images(
    dataset: Dataset, indices: Int[np.ndarray, ' chosen'], bad_files_limit: int
) -> UInt8[np.ndarray, 'readable height width channels']:
    """Their stored images, without those that cannot be read.

    Raises:
        UserError: more than the limit cannot be read.
    """
    (batch,) = pipeline.evaluation_batches(dataset, indices, len(indices), bad_files_limit=bad_files_limit)
    return batch.arrays['image'][batch.arrays['weight'] > 0]
