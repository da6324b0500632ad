"""Weights and images that the reference and our tests both make from a name, so that none need to be stored.

Only numpy, and of it only ``RandomState``, whose stream of numbers is frozen for good. What a reference answers to
these weights is in ``reference/``, written by ``generate.py``.
"""

import dataclasses
import re
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

REFERENCE = Path(__file__).parent / 'reference'


@dataclasses.dataclass(frozen=True)
class Case:
    """A registered backbone, the side of the images it sees, and the side that a ViT's file was made for."""

    backbone: str
    image_size: int
    file_size: int

    def __str__(self) -> str:
        origin = '' if self.file_size == self.image_size else f'_from_{self.file_size}'
        return f'{self.backbone}_{self.image_size}{origin}'

    @property
    def path(self) -> Path:
        """Where the answers of the reference are kept."""
        return REFERENCE / f'{self}.npz'


# The published size and one more; an odd one where padding depends on it. The last of each ViT resamples its positions.
CASES = tuple(
    Case(backbone, *sizes)
    for backbone, pairs in {
        'resnet18': [(224, 224), (97, 97)],
        'resnet50': [(224, 224), (97, 97)],
        'efficientnet_lite0': [(224, 224), (97, 97)],
        'efficientnet_lite1': [(240, 240), (131, 131)],
        'vit_tiny_patch16': [(224, 224), (96, 96), (160, 224)],
        'vit_small_patch32': [(224, 224), (96, 96), (288, 224)],
    }.items()
    for sizes in pairs
)

# The last normalisation of a residual branch. A smaller scale keeps the sum of many branches from growing.
_LAST_NORM = re.compile(r'layer\d\.\d+\.bn[23]\.weight|_blocks\.\d+\._bn2\.weight')


def _random(*name: object) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32('/'.join(map(str, name)).encode()))


def _noise(random: np.random.RandomState, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform values of mean 0 and variance 1."""
    return random.uniform(-(3**0.5), 3**0.5, shape)


def array(backbone: str, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """One entry of a state dictionary, scaled so that activations stay alive down to the last layer.

    What a normalisation first sees is small, for a wrong epsilon to show.
    """
    if key.endswith('num_batches_tracked'):
        return np.zeros(shape, np.int64)
    random = _random(backbone, key)
    if key.endswith('running_var'):
        values = 0.01 * random.uniform(0.5, 1.5, shape)
    elif key.endswith('running_mean'):
        values = 0.01 * _noise(random, shape)
    elif key.startswith(('cls_token', 'pos_embed', 'patch_embed')):
        values = 0.02 * _noise(random, shape) / np.prod(shape[1:] if len(shape) == 4 else 1) ** 0.5
    elif key.endswith('bias'):
        values = 0.1 * _noise(random, shape)
    elif len(shape) == 4:
        values = 0.1 * (2 / np.prod(shape[1:])) ** 0.5 * _noise(random, shape)
    elif len(shape) == 2:
        values = (1 / shape[1]) ** 0.5 * _noise(random, shape)
    else:
        values = (0.5 if _LAST_NORM.fullmatch(key) else 1) * (1 + 0.1 * _noise(random, shape))
    return values.astype(np.float32)


def state_dict(backbone: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """A state dictionary for the keys and shapes of the reference."""
    return {key: array(backbone, key, tuple(shape)) for key, shape in shapes.items()}


def images(size: int) -> np.ndarray:
    """Two images ``float32[2, size, size, 3]``: noise on coarse patches, which also survive a global mean."""
    random = _random('images', size)
    patch = np.arange(size) * 4 // size
    coarse = _noise(random, (2, 4, 4, 3))[:, patch][:, :, patch]
    return (coarse + 0.5 * _noise(random, (2, size, size, 3))).astype(np.float32)


def summary(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """What is stored of an output: its shape, its mean, deviation and largest magnitude, and some of its values."""
    values = np.asarray(values, np.float64)
    positions = _random(name, *values.shape).randint(0, values.size, 64 if values.ndim == 4 else 256)
    return {
        f'{name}/shape': np.array(values.shape),
        f'{name}/moments': np.array([values.mean(), values.std(), np.abs(values).max()], np.float32),
        f'{name}/values': values.ravel()[positions].astype(np.float32),
    }
