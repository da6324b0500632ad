"""Weights and inputs that the references of necks, heads and losses and our tests both make from names.

Only numpy; see ``tests/parity/weights.py``, whose weights they are.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tests.parity import weights

DIRECTORY = Path(__file__).parent

# Maps of images of 97 by 77 pixels at strides 4 to 32, whose sides are odd where halving is no exact matter.
SIZE = (97, 77)
MAPS = {'stage1': (25, 20, 8), 'stage2': (13, 10, 12), 'stage3': (7, 5, 16), 'stage4': (4, 3, 24)}
CHANNELS = 8
CLASSES = 5

# FPNs: extra levels, whether the first sees the backbone's last map (torchvision's choice where that map has another
# number of channels than the pyramid), and whether there are BatchNorms.
PYRAMIDS = {
    'plain': ('none', False, False),
    'pool': ('pool', False, True),
    'p6p7': ('p6p7', False, False),
    'p6p7_from_stage': ('p6p7', True, False),
}

# Sides of maps before and after: larger, smaller, odd ratios, one position.
RESIZED = (((7, 5), (13, 10)), ((13, 10), (7, 5)), ((65, 33), (520, 261)), ((97, 77), (11, 30)), ((1, 1), (4, 3)))

# Widths and depths of the ResNets that stand for torchvision's: one block per stage, a sixteenth of the channels.
NARROW = {'depths': (1, 1, 1, 1), 'channels': (4, 8, 16, 32)}
# Images of a step of training.
BATCH = 4
IGNORE = 255


def noise(name: str, *shape: int, seed: int = 0) -> np.ndarray:
    """Normal values, float32."""
    random = np.random.RandomState(sum(map(ord, name)) + 1000 * seed)
    return random.standard_normal(shape).astype(np.float32)


def maps() -> dict[str, np.ndarray]:
    """A map for each of ``MAPS``, of two images, NHWC."""
    return {name: noise(name, 2, *shape) for name, shape in MAPS.items()}


def images(count: int = 2, seed: int = 0) -> np.ndarray:
    """Images of ``SIZE``."""
    return noise('images', count, *SIZE, 3, seed=seed)


def labels(count: int, seed: int = 0) -> np.ndarray:
    """A class for every pixel of images of ``SIZE``, about a tenth of them ignored, and all of the last image's."""
    random = np.random.RandomState(seed)
    values = random.randint(0, CLASSES, (count, *SIZE))
    values[random.uniform(size=values.shape) < 0.1] = IGNORE
    values[-1] = IGNORE
    return values.astype(np.int32)


def state(shapes: Mapping[str, Sequence[int]], seed: int = 0) -> dict[str, np.ndarray]:
    """A state dictionary for the keys and shapes of a reference."""
    return {key: weights.array('segmentation', key, tuple(shape), seed) for key, shape in shapes.items()}
