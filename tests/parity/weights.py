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
    *_cases('convnext_tiny', 97),
    *_cases('convnext_tiny', 224, slow=True),
    *_cases('convnext_small', 131, 64, slow=True),
    *_cases('convnext_tiny', 64, layout='timm'),
    *_cases('convnext_tiny', 64, layout='transformers', options=(('head_epsilon', 1e-12),), slow=True),
    *_cases('convnext_tiny', 64, layout='facebook', slow=True),
    # CSPNet.
    # YOLO.
    # Vision transformers.
    *_cases('vit_tiny_patch16', 224, 96, (160, 224)),
    *_cases('vit_small_patch32', 224, 96, (288, 224)),
    # Swin.
    *_cases('swin_tiny', 100),
    *_cases('swin_tiny', 224, slow=True),
    *_cases('swin_tiny', 97, options=(('pad', True),)),
    *_cases('swin_small', 160, 68, slow=True),
    *_cases('swin_tiny', 96, layout='timm', options=(('window', 3),), slow=True),
    *_cases('swin_tiny', (96, 160), layout='timm', options=(('window', 3),)),
    *_cases('swin_tiny', (224, 160), layout='timm', slow=True),
    *_cases('swin_tiny', 64, layout='transformers', options=(('window', 2),)),
    *_cases('swin_tiny', 96, layout='microsoft', options=(('window', 3),)),
)

# Variants too large to run in a test: their keys and shapes.
KEYS_ONLY: tuple[Case, ...] = (
    # ResNet, ResNeXt, Wide ResNet.
    Case('resnet152', 0, 224),
    # ConvNeXt.
    Case('convnext_base', 0, 224),
    *(Case('convnext_small', 0, 224, layout) for layout in ('timm', 'transformers', 'facebook')),
    # Vision transformers.
    # Swin.
    Case('swin_base', 0, 224),
    *(Case('swin_small', 0, 224, layout) for layout in ('timm', 'transformers', 'microsoft')),
)


def marked(cases: Sequence[Case]) -> list:
    """The cases as pytest's parameters, with their names and their marks."""
    import pytest

    return [pytest.param(case, id=str(case), marks=[pytest.mark.slow] if case.slow else []) for case in cases]


# The last normalisation of a residual branch. A smaller scale keeps the sum of many branches from growing.
_LAST_NORM = re.compile(r'layer\d\.\d+\.bn[23]\.weight|_blocks\.\d+\._bn2\.weight')
# The same of a ConvNeXt, whose last normalisation follows the sum.
_LAYER_SCALE = re.compile(r'.*\.layer_scale(_parameter)?|stages\.\d\.(blocks\.)?\d+\.gamma')


def _random(*name: object, seed: int = 0) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32('/'.join(map(str, name)).encode()) ^ seed)


def _noise(random: np.random.RandomState, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform values of mean 0 and variance 1."""
    return random.uniform(-(3**0.5), 3**0.5, shape)


def _relative_position_index(shape: tuple[int, ...]) -> np.ndarray:
    """Swin's buffer: the row of the bias table for each pair of positions in a square window."""
    side = round(np.prod(shape) ** 0.25)
    y, x = np.indices((side, side)).reshape(2, -1)
    down, right = y[:, None] - y, x[:, None] - x
    return ((down + side - 1) * (2 * side - 1) + right + side - 1).reshape(shape)


def _shift_mask(windows: int, area: int, _: int) -> np.ndarray:
    """Swin's buffer: -100 between positions of a window that lie apart before half of the window is shifted around."""
    rows, side = round(windows**0.5), round(area**0.5)
    regions, size = np.zeros((rows * side, rows * side)), rows * side
    for number, (top, left) in enumerate([(size - side // 2, 0), (0, size - side // 2)], start=1):
        regions[top:, left:] += number
    cut = [np.hsplit(band, rows) for band in np.vsplit(regions, rows)]
    flat = np.reshape(cut, (windows, area))
    return np.where(flat[:, :, None] == flat[:, None], 0, -100).astype(np.float32)


def array(backbone: str, key: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """One entry of a state dictionary, scaled so that activations stay alive down to the last layer.

    What a normalisation first sees is small, for a wrong epsilon to show.
    """
    if key.endswith('num_batches_tracked'):
        return np.zeros(shape, np.int64)
    if key.endswith('relative_position_index'):
        return _relative_position_index(shape)
    if key.endswith('attn_mask'):
        return _shift_mask(*shape)
    random = _random(backbone, key, seed=seed)
    if key.endswith('running_var'):
        values = 0.01 * random.uniform(0.5, 1.5, shape)
    elif key.endswith('running_mean'):
        values = 0.01 * _noise(random, shape)
    elif key.startswith(('cls_token', 'pos_embed', 'patch_embed.proj')):
        values = 0.02 * _noise(random, shape) / np.prod(shape[1:] if len(shape) == 4 else 1) ** 0.5
    elif key.endswith('bias'):
        # A ConvNeXt normalises only what its convolutions have made: larger biases there would drown the image.
        values = (0.01 if backbone.startswith('convnext') else 0.1) * _noise(random, shape)
    elif len(shape) == 4:
        values = 0.1 * (2 / np.prod(shape[1:])) ** 0.5 * _noise(random, shape)
    elif len(shape) == 2:
        values = (1 / shape[1]) ** 0.5 * _noise(random, shape)
    elif _LAYER_SCALE.fullmatch(key):
        values = 0.2 * (1 + 0.1 * _noise(random, shape))
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
