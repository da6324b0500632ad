"""Detectors, images and objects that ultralytics and our tests both make from a seed; ultralytics' answers are kept.

Only numpy, and of it only ``RandomState``, whose stream of numbers is frozen for good.
"""

import dataclasses
import re
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

DIRECTORY = Path(__file__).parent

# Branch → the names that ultralytics gives its layers.
BRANCHES = {'one_to_many': 'one2many', 'one_to_one': 'one2one'}
# The last convolution of a branch, of boxes and of classes.
_PREDICTION = re.compile(r'model\.23\.(one2one_)?cv([23])\.\d\.2\.(weight|bias)')


@dataclasses.dataclass(frozen=True)
class Case:
    """A detector and what it is asked.

    Attributes:
        kind: a row of ``published_models.TABLE``.
        size: height and width of the images, multiples of 32.
        seed: of weights, images and objects.
        classes: number of classes.
        threshold: scores of detections are above it.
        gain: factor on how much the scores of classes vary; large images need less, or many would be rounded to 1.
    """

    kind: str
    size: tuple[int, int] = (64, 96)
    seed: int = 0
    classes: int = 80
    threshold: float = 0.2
    gain: float = 1.0

    @property
    def path(self) -> Path:
        """Where ultralytics' answers are kept."""
        return DIRECTORY / f'{self.kind}.npz'

    @property
    def bins(self) -> int:
        """Bins of the distribution of a distance."""
        return 16 if self.kind.startswith('yolo11') else 1

    @property
    def kinds(self) -> tuple[str, ...]:
        """The branches."""
        return ('one_to_many',) if self.bins > 1 else tuple(BRANCHES)


# The seed of the first is one with which no rounding decides: the reference moves the boxes of the last class by
# 606,720 pixels before it compares them.
CASES = (Case('yolo11n', seed=1), Case('yolo26n'), Case('yolo11s'), Case('yolo26s'))


def _random(case: Case, what: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(f'{case.kind}/{what}'.encode()) ^ case.seed)


def array(case: Case, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """One entry of the state dictionary: statistics, biases and scales that all matter."""
    if key.endswith('num_batches_tracked'):
        return np.zeros(shape, np.int64)
    if key == 'model.23.dfl.conv.weight':
        return np.arange(shape[1], dtype=np.float32).reshape(shape)
    random = _random(case, key)
    noise = random.uniform(-(3**0.5), 3**0.5, shape)
    found = _PREDICTION.fullmatch(key)
    if key.endswith('running_var'):
        values = 0.01 * random.uniform(0.5, 1.5, shape)
    elif key.endswith('running_mean'):
        values = 0.02 * noise
    elif found and found[3] == 'weight':
        gain = {'2': 3.0, '3': 2.5}[found[2]] if case.bins > 1 else 1.0
        gain *= case.gain if found[2] == '3' else 1
        values = noise * gain / np.prod(shape[1:]) ** 0.5
    elif found:
        centre = (0.0 if case.bins > 1 else 2.0) if found[2] == '2' else -3.0
        values = centre + 0.3 * noise
    elif len(shape) == 1 and key.endswith('weight'):  # of a BatchNorm
        values = random.uniform(0.7, 1.3, shape)
    elif len(shape) > 1:
        # What a normalisation first sees is small, for a wrong epsilon to show.
        values = noise * (2 / np.prod(shape[1:])) ** 0.5 * 0.1
    else:
        values = 0.2 * noise
    return values.astype(np.float32)


def state_dict(case: Case, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """All entries, by ultralytics' keys."""
    return {key: array(case, key, tuple(shape)) for key, shape in shapes.items()}


def images(case: Case) -> np.ndarray:
    """``float32[2, height, width, 3]`` from 0 to 1: blobs of colour with noise."""
    height, width = case.size
    random = _random(case, 'images')
    coarse = random.uniform(0, 1, (2, height // 12 + 1, width // 12 + 1, 3))
    fine = np.repeat(np.repeat(coarse, 12, 1), 12, 2)[:, :height, :width]
    return np.clip(fine + random.uniform(-0.1, 0.1, fine.shape), 0, 1).astype(np.float32)


def objects(case: Case, what: str = 'objects', count: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of the two images in pixels, tiny to large, some one in another; and their classes."""
    random = _random(case, what)
    height, width = case.size
    sides = np.exp(random.uniform(np.log(4), np.log(0.8 * min(case.size)), (2, count, 2)))
    corners = random.uniform(0, 1, (2, count, 2)) * np.maximum([width, height] - sides, 1)
    boxes = np.concatenate([corners, np.minimum(corners + sides, [width, height])], -1)
    boxes[:, -1] = boxes[:, -2] + [0, 0, 1, 0]
    return boxes.astype(np.float32), random.randint(0, case.classes, (2, count)).astype(np.int32)


def raw_case(case: Case) -> Case:
    """What the same losses and detections are asked without a network: more points, fewer classes."""
    return dataclasses.replace(case, size=(192, 256), classes=7, threshold=0.4)


def raw(case: Case) -> dict[str, dict[str, np.ndarray]]:
    """Branch → classes and boxes at the points of all levels, of two images."""
    height, width = case.size
    count = sum((height // stride) * (width // stride) for stride in (8, 16, 32))
    outputs = {}
    for kind in case.kinds:
        random = _random(case, f'raw/{kind}')
        centre, spread = (0, 1.5) if case.bins > 1 else (2.0, 1.5)
        outputs[kind] = {
            'classes': random.normal(-3.0, 1.5, (2, count, case.classes)).astype(np.float32),
            'boxes': random.normal(centre, spread, (2, count, 4 * case.bins)).astype(np.float32),
        }
    return outputs


def one_of_each(state: Mapping[str, np.ndarray]) -> np.ndarray:
    """One value of each array, another one each time."""
    return np.array(
        [each.reshape(-1)[(7 * index) % each.size] for index, each in enumerate(state.values())], np.float32
    )


def sample(values: np.ndarray) -> np.ndarray:
    """Up to 400 of the values, evenly spread."""
    flat = values.reshape(-1)
    return flat[:: max(len(flat) // 400, 1)]
