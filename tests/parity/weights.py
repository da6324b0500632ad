"""Weights and images that the reference and our tests both make from a name, so that none need to be stored.

Only numpy, and of it only ``RandomState``, whose stream of numbers is frozen for good. What a reference answers to
these weights is in ``reference/``, written by ``generate.py``.
"""

import dataclasses
import json
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

    @property
    def training_path(self) -> Path:
        """Where its answers in training mode are kept."""
        return REFERENCE / f'{self}_training.npz'

    def of_the_file(self) -> 'Case':
        """The same case at the size that its file was made for."""
        return dataclasses.replace(self, image_size=self.file_size)


def _cases(backbone: str, *sizes: int | tuple[int, int], **fields) -> list[Case]:
    """One case per size; a pair is the size of the images and the size that the file was made for."""
    pairs = [size if isinstance(size, tuple) else (size, size) for size in sizes]
    return [Case(backbone, *pair, **fields) for pair in pairs]


# Fewer channels and blocks, where only keys and the order of things are asked about.
_NARROW = (('channels', 96), ('heads', 3), ('depth', 8))

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
    # YOLO.
    # Vision transformers.
    *_cases('vit_tiny_patch16', 224, 96, (160, 224)),
    *_cases('vit_small_patch32', 224, 96, (288, 224)),
    *_cases('vit_tiny_patch16', 64, options=(('pooling', 'average'),)),
    *_cases('vit_tiny_patch16', 96, layout='torchvision'),
    *_cases('vit_tiny_patch16', 96, layout='transformers', options=(('epsilon', 1e-12),)),
    *_cases('vit_tiny_patch16', 96, layout='big_vision'),
    *_cases('deit_tiny_patch16', 96),
    *_cases('deit_tiny_patch16', 224, slow=True),
    *_cases('deit_tiny_patch16', 64, layout='transformers', options=(('epsilon', 1e-12),)),
    *_cases('deit_tiny_distilled_patch16', 224, 96, (160, 224)),
    *_cases('deit_tiny_distilled_patch16', 96, layout='transformers', options=(('epsilon', 1e-12),)),
    *_cases('deit_tiny_distilled_patch16', 64, layout='transformers', options=(('pooling', 'token'),)),
    *_cases('dinov2_small', 98, classifier=False),
    *_cases('dinov2_small', 224, 518, classifier=False, slow=True),
    *_cases('dinov2_small', 70, layout='timm', options=(*_NARROW, ('position_method', 'timm')), classifier=False),
    *_cases(
        'dinov2_small',
        70,
        layout='transformers',
        options=(*_NARROW, ('position_method', 'transformers')),
        classifier=False,
    ),
    *_cases('dinov2_small_reg', 98, classifier=False),
    *_cases('dinov2_small_reg', 224, 518, classifier=False, slow=True),
    *_cases('dinov2_small_reg', 70, layout='timm', options=_NARROW, classifier=False),
    *_cases('dinov2_small_reg', 70, layout='transformers', options=_NARROW, classifier=False),
    *_cases('clip_vit_base_patch16', 224, 96, classifier=False, slow=True),
    *_cases('clip_vit_base_patch16', 64, layout='clip', options=_NARROW, classifier=False),
    *_cases('clip_vit_base_patch16', 64, layout='clip_visual', options=_NARROW, classifier=False),
    *_cases('clip_vit_base_patch16', 64, layout='transformers', options=_NARROW, classifier=False),
    *_cases('clip_vit_base_patch16', 64, (96, 64), layout='timm', options=_NARROW, classifier=False),
    *_cases('siglip_vit_base_patch16', 224, 96, classifier=False, slow=True),
    *_cases('siglip_vit_base_patch16', 80, (96, 80), layout='timm', options=_NARROW, classifier=False),
    *_cases('siglip_vit_base_patch16', 64, layout='timm', options=(*_NARROW, ('activation', 'gelu')), classifier=False),
    *_cases('siglip_vit_base_patch16', 64, layout='transformers', options=_NARROW, classifier=False),
    *_cases('siglip_vit_base_patch16', 64, layout='big_vision', options=_NARROW, classifier=False),
    # Swin.
)

# Variants too large to run in a test: their keys and shapes.
KEYS_ONLY: tuple[Case, ...] = (
    # ResNet, ResNeXt, Wide ResNet.
    Case('resnet152', 0, 224),
    # Vision transformers: the base, and the numbering of the large in every layout, narrowed.
    Case('vit_base_patch16', 0, 224),
    *(
        Case('vit_large_patch16', 0, 224, layout, options=(('channels', 64),))
        for layout in ('timm', 'torchvision', 'transformers', 'big_vision')
    ),
    *(
        Case('dinov2_large', 0, 518, layout, options=(('channels', 64),), classifier=False)
        for layout in ('dinov2', 'timm', 'transformers')
    ),
    Case('dinov2_large_reg', 0, 518, options=(('channels', 64),), classifier=False),
)


# One model per family, in training mode.
TRAINING: tuple[Case, ...] = (
    Case('resnet18', 32, 32),
    Case('vit_tiny_patch16', 64, 64),
    Case('deit_tiny_distilled_patch16', 64, 64, options=(('stochastic_depth', 0.1),)),
    Case('dinov2_small_reg', 70, 70, options=_NARROW, classifier=False),
    Case('clip_vit_base_patch16', 64, 64, options=_NARROW, classifier=False),
    Case('siglip_vit_base_patch16', 64, 64, options=_NARROW, classifier=False),
)
# The largest deviation of a gradient or a statistic, as a share of the largest value of its leaf.
TRAINING_TOLERANCE = 1e-4
TRAINING_STEPS = 3
LEARNING_RATE = 0.01


def marked(cases: Sequence[Case]) -> list:
    """The cases as pytest's parameters, with their names and their marks."""
    import pytest

    return [pytest.param(case, id=str(case), marks=[pytest.mark.slow] if case.slow else []) for case in cases]


# The last normalisation of a residual branch. A smaller scale keeps the sum of many branches from growing.
_LAST_NORM = re.compile(r'layer\d\.\d+\.bn[23]\.weight|_blocks\.\d+\._bn2\.weight')


# Tokens, positions and patch embeddings of vision transformers, in all of their layouts.
_VISION_TRANSFORMERS = ('vit_', 'deit_', 'dinov2_', 'clip_', 'siglip_')
_EMBEDDINGS = re.compile(
    r'(cls|dist|reg|mask|class)_token|register_tokens|(conv_proj|((vit|deit|vision_model)\.)?embeddings)\..*'
    r'|encoder\.pos_embedding|(visual\.)?(class_embedding|positional_embedding|conv1\.weight)'
    r'|(params/img/)?(cls|embedding/.*|(Transformer/posembed_input/)?pos_embedding)'
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
    if key == 'head.bias' and backbone.startswith('clip_'):  # of timm's, which stores a projection without a bias
        return np.zeros(shape, np.float32)
    random = _random(backbone, key, seed=seed)
    if key.endswith('running_var'):
        values = 0.01 * random.uniform(0.5, 1.5, shape)
    elif key.endswith('running_mean'):
        values = 0.01 * _noise(random, shape)
    elif key.startswith(('cls_token', 'pos_embed', 'patch_embed')) or (
        backbone.startswith(_VISION_TRANSFORMERS) and _EMBEDDINGS.fullmatch(key)
    ):
        values = 0.02 * _noise(random, shape) / np.prod(shape[1:] if len(shape) == 4 else 1) ** 0.5
    elif key.endswith('bias'):
        values = 0.1 * _noise(random, shape)
    elif key.endswith('/kernel'):  # of flax: inputs first; queries, keys and values have heads among their outputs
        inputs = shape[:1] if re.search('/(query|key|value)/', key) else shape[:-1]
        values = np.prod(inputs) ** -0.5 * _noise(random, shape)
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


def images(case: Case, step: int | None = None) -> np.ndarray:
    """Noise on coarse patches, which also survive a global mean, ``float32[count, size, size, 3]``.

    Two images, or the eight of a step of training.
    """
    size, count = case.image_size, 2 if step is None else 8
    random = _random('images', size, *([] if step is None else [step]), seed=case.seed)
    patch = np.arange(size) * 4 // size
    coarse = _noise(random, (count, 4, 4, 3))[:, patch][:, :, patch]
    return (coarse + 0.5 * _noise(random, (count, size, size, 3))).astype(np.float32)


def targets(case: Case, shape: tuple[int, ...], step: int) -> np.ndarray:
    """What the logits of a step of training are pulled to."""
    return _noise(_random('targets', step, seed=case.seed), shape).astype(np.float32)


def summary(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """What is stored of an output: its shape, its mean, deviation and largest magnitude, and some of its values."""
    values = np.asarray(values, np.float64)
    positions = _random(name, *values.shape).randint(0, values.size, 64 if values.ndim == 4 else 256)
    return {
        f'{name}/shape': np.array(values.shape),
        f'{name}/moments': np.array([values.mean(), values.std(), np.abs(values).max()], np.float32),
        f'{name}/values': values.ravel()[positions].astype(np.float32),
    }


def digest(key: str, values: np.ndarray) -> np.ndarray:
    """What is stored of one leaf: its largest magnitude and a few of its values."""
    values = np.asarray(values, np.float64).ravel()
    positions = _random(key).randint(0, values.size, 6)
    return np.concatenate([[np.abs(values).max()], values[positions]])


def packed(name: str, digests: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Many digests as two arrays of an npz file; ``unpacked`` takes them apart."""
    keys = np.frombuffer(json.dumps(list(digests)).encode(), np.uint8)
    return {f'{name}/keys': keys, f'{name}/digests': np.stack(list(digests.values())).astype(np.float32)}


def unpacked(name: str, stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Key → digest; empty where none were stored."""
    if f'{name}/keys' not in stored:
        return {}
    return dict(zip(json.loads(stored[f'{name}/keys'].tobytes()), stored[f'{name}/digests'], strict=True))


def worst(expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> tuple[str, float]:
    """The leaf that deviates most, as a share of its largest magnitude.

    A gradient that is zero in exact arithmetic (that of a bias in front of a BatchNorm) is rounding on both sides, so
    no leaf is measured by less than a millionth of the largest.
    """
    floor = 1e-6 * max(digest[0] for digest in expected.values())
    errors = {key: np.abs(found[key] - digest).max() / max(digest[0], floor) for key, digest in expected.items()}
    key = max(errors, key=lambda each: errors[each])
    return key, float(errors[key])
