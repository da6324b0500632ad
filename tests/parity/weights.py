"""Weights and images that the reference and our tests both make from a name, so that none need to be stored.

Only numpy, and of it only ``RandomState``, whose stream of numbers is frozen for good. What a reference answers to
these weights is in ``reference/``, written by ``generate.py``.
"""

import dataclasses
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

REFERENCE = Path(__file__).parent / 'reference'


@dataclasses.dataclass(frozen=True)
class Case:
    """What is asked of a reference, and of us.

    Attributes:
        backbone: a registered name.
        image_size: side of the images; 0 where only keys and shapes are kept.
        file_size: side of the images that the file was made for; another one than ``image_size`` resamples positions.
        layout: whose implementation and whose keys; ``''`` is the first of the family (``references/__init__.py``).
        seed: of weights and images.
        options: overrides of the backbone.
        classifier: whether the file holds one.
        slow: takes more than a few seconds.
    """

    backbone: str
    image_size: int
    file_size: int
    layout: str = ''
    seed: int = 0
    options: tuple[tuple[str, object], ...] = ()
    classifier: bool = True
    slow: bool = False

    def __str__(self) -> str:
        layout = f'_{self.layout}' if self.layout else ''
        origin = '' if self.file_size == self.image_size else f'_from_{self.file_size}'
        return f'{self.backbone}{layout}_{self.image_size}{origin}' if self.image_size else f'{self.backbone}{layout}'

    @property
    def path(self) -> Path:
        """Where the answers of the reference are kept."""
        return REFERENCE / f'{self}.npz'

    def of_the_file(self) -> 'Case':
        """The same case at the size that its file was made for."""
        return dataclasses.replace(self, image_size=self.file_size)


def _cases(backbone: str, *sizes: int | tuple[int, int], **fields) -> list[Case]:
    """One case per size; a pair is the size of the images and the size that the file was made for."""
    pairs = [size if isinstance(size, tuple) else (size, size) for size in sizes]
    return [Case(backbone, *pair, **fields) for pair in pairs]


# The published size and one more; an odd one where padding depends on it. The last of each ViT resamples its positions.
CASES: tuple[Case, ...] = (
    # VGG.
    # GoogLeNet.
    # ResNet, ResNeXt, Wide ResNet.
    *_cases('resnet18', 224, 97),
    *_cases('resnet50', 224, 97),
    # EfficientNet.
    *_cases('efficientnet_lite0', 224, 97),
    *_cases('efficientnet_lite1', 240, 131),
    # MobileNetV3.
    # ConvNeXt.
    # CSPNet.
    *_cases('cspresnet50', 256, 97),
    *_cases('cspdarknet53', 256, 131),
    # YOLO.
    *_cases('yolo11n', 97, 160),
    *_cases('yolo11n', 640, slow=True),
    *_cases('yolo26n', 97, 160),
    *_cases('yolo26n', 640, slow=True),
    # Vision transformers.
    *_cases('vit_tiny_patch16', 224, 96, (160, 224)),
    *_cases('vit_small_patch32', 224, 96, (288, 224)),
    # Swin.
)

# Variants too large to run in a test: their keys and shapes.
KEYS_ONLY: tuple[Case, ...] = (
    # ResNet, ResNeXt, Wide ResNet.
    Case('resnet152', 0, 224),
    # YOLO.
    Case('yolo11m', 0, 640, classifier=False),
    Case('yolo26x', 0, 640, classifier=False),
    # Vision transformers.
)

# Whole models that a backbone is a part of, by their task: keys and shapes. The rest of them is dropped on import.
WHOLE: tuple[Case, ...] = (
    *(Case('yolo11n', 0, 640, task, classifier=False) for task in ('detect', 'segment', 'pose')),
    *(Case('yolo26n', 0, 640, task, classifier=False) for task in ('detect', 'segment', 'semantic', 'depth')),
    Case('yolo11n', 0, 640, 'classify', classifier=False),
)


def marked(cases: Sequence[Case]) -> list:
    """The cases as pytest's parameters, with their names and their marks."""
    import pytest

    return [pytest.param(case, id=str(case), marks=[pytest.mark.slow] if case.slow else []) for case in cases]


# The last normalisation of a residual branch. A smaller scale keeps the sum of many branches from growing (and with it
# the scores of YOLO's attention, which are the square of what enters).
_LAST_NORM = re.compile(
    r'layer\d\.\d+\.bn[23]\.weight|_blocks\.\d+\._bn2\.weight'
    r'|stages\.\d+\.(blocks\.\d+\.conv[23]|conv_transition)\.bn\.weight'  # CSPNet
    r'|model\.(6\.m\.\d+\.m\.\d+\.cv2|10\.m\.\d+\.(attn\.(pe|proj)|ffn\.\d))\.bn\.weight'  # YOLO
)


def _random(*name: object, seed: int = 0) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32('/'.join(map(str, name)).encode()) ^ seed)


def _noise(random: np.random.RandomState, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform values of mean 0 and variance 1."""
    return random.uniform(-(3**0.5), 3**0.5, shape)


def array(backbone: str, key: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """One entry of a state dictionary, scaled so that activations stay alive down to the last layer.

    What a normalisation first sees is small, for a wrong epsilon to show.
    """
    if key.endswith('num_batches_tracked'):
        return np.zeros(shape, np.int64)
    random = _random(backbone, key, seed=seed)
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


def state_dict(case: Case, shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """A state dictionary for the keys and shapes of the reference."""
    return {key: array(case.backbone, key, tuple(shape), case.seed) for key, shape in shapes.items()}


def images(case: Case) -> np.ndarray:
    """Two images ``float32[2, size, size, 3]``: noise on coarse patches, which also survive a global mean."""
    size = case.image_size
    random = _random('images', size, seed=case.seed)
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
