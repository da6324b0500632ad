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


_TENSORFLOW = (('padding', 'same'), ('epsilon', 1e-3))

# The published size and one more; an odd one where padding depends on it. The last of each ViT resamples its positions.
CASES: tuple[Case, ...] = (
    # VGG.
    # GoogLeNet.
    # ResNet, ResNeXt, Wide ResNet.
    *_cases('resnet18', 224, 97),
    *_cases('resnet50', 224, 97),
    # EfficientNet. Weights from TensorFlow need options; the size also tells the cases' files apart.
    *_cases('efficientnet_b0', 224, 97),
    *_cases('efficientnet_b0', 97, layout='timm'),
    *_cases('efficientnet_b0', 131, layout='timm', options=_TENSORFLOW),
    *_cases('efficientnet_b0', 97, layout='lukemelas', options=_TENSORFLOW),
    *_cases('efficientnet_b0', 96, layout='transformers', options=_TENSORFLOW),
    *_cases('efficientnet_b1', 240, 131, slow=True),
    *_cases('efficientnet_b5', 131, slow=True),
    *_cases('efficientnet_lite0', 131, layout='timm'),
    *_cases('efficientnet_lite0', 224, 97),
    *_cases('efficientnet_lite1', 240, 131),
    # MobileNetV3.
    *_cases('mobilenet_v3_small', 224, 97),
    *_cases('mobilenet_v3_small', 131, layout='timm', options=(('epsilon', 1e-5),)),
    *_cases('mobilenet_v3_large', 224, 131),
    *_cases('mobilenet_v3_large', 97, layout='timm', options=(('padding', 'same'),)),
    # ConvNeXt.
    # CSPNet.
    # YOLO.
    # Vision transformers.
    *_cases('vit_tiny_patch16', 224, 96, (160, 224)),
    *_cases('vit_small_patch32', 224, 96, (288, 224)),
    # Swin.
)

# Variants too large to run in a test: their keys and shapes.
KEYS_ONLY: tuple[Case, ...] = (
    # ResNet, ResNeXt, Wide ResNet.
    Case('resnet152', 0, 224),
    # EfficientNet.
    Case('efficientnet_b3', 0, 300, layout='timm'),
    Case('efficientnet_b7', 0, 600),
    # Vision transformers.
)


def marked(cases: Sequence[Case]) -> list:
    """The cases as pytest's parameters, with their names and their marks."""
    import pytest

    return [pytest.param(case, id=str(case), marks=[pytest.mark.slow] if case.slow else []) for case in cases]


# The last normalisation of a residual branch. A smaller scale keeps the sum of many branches from growing.
_LAST_NORM = re.compile(r'layer\d\.\d+\.bn[23]\.weight|_blocks\.\d+\._bn2\.weight')

# Squeeze-and-excitation lets about half of a block through, which larger normalisations make up for; not the last of a
# residual branch, where the key tells. Its own kernels see means, which are smaller than what they are means of.
_SQUEEZED = {'efficientnet_b': 1.1, 'mobilenet_v3_small': 1.05, 'mobilenet_v3_large': 1.0}
_LAST_NORM_SQUEEZED = re.compile(r'features\.\d\.[1-9]\d*\.block\.[23]\.1\.weight|blocks\.\d\.[1-9]\d*\.bn3\.weight')
_SQUEEZE = re.compile(r'.*\.(block\.\d\.fc[12]|se\.conv_\w+|_se_\w+|squeeze_excite\.\w+)\.weight')


def _norm_scale(backbone: str, key: str) -> float:
    for prefix, scale in _SQUEEZED.items():
        if backbone.startswith(prefix):
            return 0.3 if _LAST_NORM_SQUEEZED.fullmatch(key) else scale
    return 0.5 if _LAST_NORM.fullmatch(key) else 1


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
    elif _SQUEEZE.fullmatch(key) or (backbone.startswith('mobilenet') and key == 'conv_head.weight'):
        values = 0.5 * (2 / np.prod(shape[1:])) ** 0.5 * _noise(random, shape)
    elif len(shape) == 4:
        values = 0.1 * (2 / np.prod(shape[1:])) ** 0.5 * _noise(random, shape)
    elif len(shape) == 2:
        values = (1 / shape[1]) ** 0.5 * _noise(random, shape)
    else:
        values = _norm_scale(backbone, key) * (1 + 0.1 * _noise(random, shape))
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
