"""Weights and images that the reference and our tests both make from a name, so that none need to be stored.

Only numpy, and of it only ``RandomState``, whose stream of numbers is frozen for good. What a reference answers to
these weights is in ``reference/``, written by ``generate.py``.
"""

import dataclasses
import json
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

# Ends of the keys that hold whole numbers.
INTEGERS = ('num_batches_tracked', 'relative_position_index', 'position_ids')

REFERENCE = Path(__file__).parent / 'reference'


@dataclasses.dataclass(frozen=True)
class Case:
    """What is asked of a reference, and of us.

    Attributes:
        backbone: a registered name.
        image_size: side of the images, or their height; 0 where only keys and shapes are kept.
        file_size: side of the images that the file was made for; another one than ``image_size`` resamples positions.
        layout: whose implementation and whose keys; ``''`` is the first of the family (``references/__init__.py``).
        seed: of weights and images.
        options: overrides of the backbone.
        classifier: whether the file holds one.
        width: of the images, where they are not square.
    """

    backbone: str
    image_size: int
    file_size: int
    layout: str = ''
    seed: int = 0
    options: tuple[tuple[str, object], ...] = ()
    classifier: bool = True
    width: int = 0

    def __str__(self) -> str:
        layout = f'_{self.layout}' if self.layout else ''
        origin = '' if self.file_size == self.image_size else f'_from_{self.file_size}'
        size = f'{self.image_size}x{self.width}' if self.width else str(self.image_size)
        return f'{self.backbone}{layout}_{size}{origin}' if self.image_size else f'{self.backbone}{layout}'

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images; of those that the file was made for where only keys are kept."""
        height = self.image_size or self.file_size
        return height, self.width or height

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
_ROUNDED = (('rotary', 'dinov3_bfloat16'),)
_NARROW_HIERA = (('channels', 24), ('depths', (1, 2, 2, 1)))
_TENSORFLOW = (('padding', 'same'), ('epsilon', 1e-3))

# The published size and one more; an odd one where padding depends on it. The last of each ViT resamples its positions.
CASES: tuple[Case, ...] = (
    # VGG. Narrow hidden layers, but for two: the usual ones are 120 million parameters.
    *_cases('vgg16', 224, 97, options=(('hidden_channels', 64),)),
    *_cases('vgg19_bn', 131, 260, options=(('hidden_channels', 64),)),
    *_cases('vgg16_bn', 224),
    *_cases('vgg16_bn', 65, layout='timm', options=(('hidden_channels', 64),)),
    *_cases('vgg19', 96, layout='timm'),
    # GoogLeNet.
    *_cases('googlenet', 224, 97),
    *_cases('googlenet', 131, options=(('auxiliary_classes', 1000),)),
    # ResNet, ResNeXt, Wide ResNet.
    *_cases('resnet18', 224, 97),
    *_cases('resnet50', 224, 97),
    *_cases('resnet18', 65, layout='transformers'),
    *_cases('resnet50', 65, layout='transformers'),
    *_cases('resnext50_32x4d', 224, 97),
    *_cases('wide_resnet50_2', 224, 97),
    # EfficientNet. Weights from TensorFlow need options; the size also tells the cases' files apart.
    *_cases('efficientnet_b0', 224, 97),
    *_cases('efficientnet_b0', 97, layout='timm'),
    *_cases('efficientnet_b0', 131, layout='timm', options=_TENSORFLOW),
    *_cases('efficientnet_b0', 97, layout='lukemelas', options=_TENSORFLOW),
    *_cases('efficientnet_b0', 96, layout='transformers', options=_TENSORFLOW),
    *_cases('efficientnet_b1', 240, 131),
    *_cases('efficientnet_b5', 131),
    *_cases('efficientnet_lite0', 131, layout='timm'),
    *_cases('efficientnet_lite0', 224, 97),
    *_cases('efficientnet_lite1', 240, 131),
    # MobileNetV3.
    *_cases('mobilenet_v3_small', 224, 97),
    *_cases('mobilenet_v3_small', 131, layout='timm', options=(('epsilon', 1e-5),)),
    *_cases('mobilenet_v3_large', 224, 131),
    *_cases('mobilenet_v3_large', 97, layout='timm', options=(('padding', 'same'),)),
    # MobileNetV4.
    *_cases('mobilenet_v4_conv_small', 224, 97),
    *_cases('mobilenet_v4_conv_small', 131, options=(('output_stride', 8),)),
    *_cases('mobilenet_v4_conv_medium', 256, 97),
    *_cases('mobilenet_v4_hybrid_medium', 256, 97),
    *_cases('mobilenet_v4_hybrid_medium', 131, options=(('output_stride', 16),)),
    # ConvNeXt.
    *_cases('convnext_tiny', 97),
    *_cases('convnext_tiny', 224),
    *_cases('convnext_small', 131, 64),
    *_cases('convnext_tiny', 64, layout='timm'),
    *_cases('convnext_tiny', 64, layout='transformers', options=(('head_epsilon', 1e-12),)),
    *_cases('convnext_tiny', 64, layout='facebook'),
    *_cases('convnextv2_atto', 97, 224),
    *_cases('convnextv2_atto', 64, layout='timm', width=105),
    *_cases('convnextv2_atto', 64, layout='transformers', options=(('head_epsilon', 1e-12),)),
    *_cases('convnextv2_tiny', 64, layout='timm'),
    *_cases('dinov3_convnext_tiny', 97, classifier=False),
    *_cases('dinov3_convnext_tiny', 64, layout='timm', classifier=False),
    *_cases('dinov3_convnext_tiny', 64, layout='transformers', classifier=False, width=100),
    # CSPNet.
    *_cases('cspresnet50', 256, 97),
    *_cases('cspdarknet53', 256, 131),
    # YOLO.
    *_cases('yolo11n', 97, 160),
    *_cases('yolo11n', 640),
    *_cases('yolo26n', 97, 160),
    *_cases('yolo26n', 640),
    *_cases('yolo11s', 97),
    *_cases('yolo26s', 97),
    # Vision transformers.
    *_cases('vit_tiny_patch16', 224, 96, (160, 224)),
    *_cases('vit_small_patch32', 224, 96, (288, 224)),
    *_cases('vit_tiny_patch16', 64, options=(('pooling', 'average'),)),
    *_cases('vit_tiny_patch16', 96, layout='torchvision'),
    *_cases('vit_tiny_patch16', 96, layout='transformers', options=(('epsilon', 1e-12),)),
    *_cases('vit_tiny_patch16', 96, layout='big_vision'),
    *_cases('vit_medium_patch16_reg4_gap', 64, (96, 64), options=_NARROW),
    *_cases('vit_medium_patch16_reg4_gap', 256),
    *_cases('vit_wee_patch16_reg1_gap', 96),
    *_cases('vit_little_patch16_reg4_gap', 96),
    *_cases('deit_tiny_patch16', 96),
    *_cases('deit_tiny_patch16', 224),
    *_cases('deit_small_patch16', 224, 64),
    *_cases('deit_tiny_patch16', 64, layout='transformers', options=(('epsilon', 1e-12),)),
    *_cases('deit_tiny_distilled_patch16', 224, 96, (160, 224)),
    *_cases('deit_tiny_distilled_patch16', 96, layout='transformers', options=(('epsilon', 1e-12),)),
    *_cases(
        'deit_tiny_distilled_patch16', 64, layout='transformers', options=(('pooling', 'token'), ('epsilon', 1e-6))
    ),
    *_cases('dinov2_small', 98, classifier=False),
    *_cases('dinov2_small', 224, 518, classifier=False),
    *_cases('dinov2_small', 70, layout='timm', options=(*_NARROW, ('position_method', 'timm')), classifier=False),
    *_cases(
        'dinov2_small',
        70,
        layout='transformers',
        options=(*_NARROW, ('position_method', 'transformers')),
        classifier=False,
    ),
    *_cases('dinov2_base', 70, 98, classifier=False),
    *_cases('dinov2_small_reg', 98, classifier=False),
    *_cases('dinov2_small_reg', 224, 518, classifier=False),
    *_cases('dinov2_small_reg', 70, layout='timm', options=_NARROW, classifier=False),
    *_cases('dinov2_small_reg', 70, layout='transformers', options=_NARROW, classifier=False),
    *_cases('dinov3_vit_small', 256, 112, options=_ROUNDED, classifier=False),
    *_cases('dinov3_vit_small', 64, options=(*_NARROW, *_ROUNDED), classifier=False, width=112),
    *_cases('dinov3_vit_small', 80, layout='timm', options=_NARROW, classifier=False),
    *_cases('dinov3_vit_small', 64, layout='timm_qkvb', options=(*_NARROW, ('pooling', 'average')), classifier=False),
    *_cases('dinov3_vit_small', 96, layout='transformers', options=_NARROW, classifier=False, width=48),
    *_cases('dinov3_vit_small_plus', 64, options=(*_NARROW, *_ROUNDED), classifier=False),
    *_cases('dinov3_vit_small_plus', 48, layout='timm_qkvb', options=_NARROW, classifier=False, width=80),
    *_cases('dinov3_vit_small_plus', 64, layout='transformers', options=_NARROW, classifier=False),
    *_cases('dinov3_vit_base', 112, options=_ROUNDED, classifier=False),
    *_cases('eva02_small_patch14', 336, 98),
    *_cases('eva02_small_patch14', 70, (112, 70), options=_NARROW),
    *_cases('eva02_small_patch14', 98, layout='eva02', options=_NARROW),
    *_cases('eva02_base_patch14', 70, options=_NARROW),
    *_cases('eva02_base_patch14', 98, layout='eva02', options=_NARROW),
    *_cases('eva02_base_patch14', 224),
    *_cases('clip_vit_base_patch16', 224, 96, classifier=False),
    *_cases('clip_vit_base_patch16', 64, layout='clip', options=_NARROW, classifier=False),
    *_cases('clip_vit_base_patch16', 64, layout='clip_visual', options=_NARROW, classifier=False),
    *_cases('clip_vit_base_patch16', 64, layout='transformers', options=_NARROW, classifier=False),
    *_cases('clip_vit_base_patch16', 64, (96, 64), layout='timm', options=_NARROW, classifier=False),
    *_cases('siglip_vit_base_patch16', 224, 96, options=(('activation', 'gelu_tanh'),), classifier=False),
    *_cases(
        'siglip_vit_base_patch16',
        80,
        (96, 80),
        layout='timm',
        options=(*_NARROW, ('activation', 'gelu_tanh')),
        classifier=False,
    ),
    *_cases('siglip_vit_base_patch16', 64, layout='timm', options=(*_NARROW, ('activation', 'gelu')), classifier=False),
    *_cases('siglip_vit_base_patch16', 64, layout='transformers', options=_NARROW, classifier=False),
    *_cases('siglip_vit_base_patch16', 64, layout='big_vision', options=_NARROW, classifier=False),
    *_cases('siglip2_vit_base_patch16', 224, layout='transformers', classifier=False),
    *_cases('siglip2_vit_base_patch16', 224, layout='timm', options=(('activation', 'gelu'),), classifier=False),
    *_cases('siglip2_vit_base_patch16', 64, layout='transformers', options=_NARROW, classifier=False),
    # Hiera.
    *_cases('hiera_tiny', 224, 96),
    *_cases('hiera_tiny', 64, layout='facebook', options=_NARROW_HIERA),
    *_cases('hiera_tiny', 64, layout='transformers', options=_NARROW_HIERA),
    # Swin.
    *_cases('swin_tiny', 100),
    *_cases('swin_tiny', 224),
    *_cases('swin_tiny', 97, options=(('pad', True),)),
    *_cases('swin_small', 160, 68),
    *_cases('swin_tiny', 96, layout='timm', options=(('window', 3),)),
    *_cases('swin_tiny', (96, 160), layout='timm', options=(('window', 3),)),
    *_cases('swin_tiny', (224, 160), layout='timm'),
    *_cases('swin_tiny', 64, layout='transformers', options=(('window', 2),)),
    *_cases('swin_tiny', 96, layout='microsoft', options=(('window', 3),)),
)

# Variants too large to run in a test: their keys and shapes.
KEYS_ONLY: tuple[Case, ...] = (
    # VGG.
    # ResNet, ResNeXt, Wide ResNet.
    *(Case(name, 0, 224) for name in ('resnet34', 'resnet101', 'resnet152')),
    Case('resnet152', 0, 224, 'transformers'),
    # EfficientNet.
    *(Case(f'efficientnet_b{size}', 0, 224) for size in (2, 3, 4, 6, 7)),
    Case('efficientnet_b3', 0, 300, layout='timm'),
    Case('efficientnet_lite2', 0, 260),
    # ConvNeXt.
    *(Case('convnext_base', 0, 224, layout) for layout in ('', 'timm')),
    *(Case('convnext_small', 0, 224, layout) for layout in ('timm', 'transformers', 'facebook')),
    *(Case(f'convnextv2_{size}', 0, 224) for size in ('femto', 'pico', 'nano', 'base')),
    *(Case(f'convnextv2_{size}', 0, 224, 'timm') for size in ('nano', 'large')),
    Case('convnextv2_tiny', 0, 224, 'transformers'),
    *(Case('dinov3_convnext_small', 0, 224, layout, classifier=False) for layout in ('', 'timm', 'transformers')),
    *(Case(f'dinov3_convnext_{size}', 0, 224, classifier=False) for size in ('base', 'large')),
    # YOLO.
    *(Case(f'yolo{version}{size}', 0, 640, classifier=False) for version in (11, 26) for size in 'smlx'),
    # Vision transformers.
    *(Case(f'vit_{size}_patch16', 0, 224) for size in ('small', 'base', 'large')),
    *(Case(f'vit_{size}_patch32', 0, 224) for size in ('tiny', 'base', 'large')),
    *(
        Case(f'vit_{size}_gap', 0, 256)
        for size in ('little_patch16_reg1', 'mediumd_patch16_reg4', 'betwixt_patch16_reg1', 'betwixt_patch16_reg4')
    ),
    Case('vit_medium_patch16_reg1_gap', 0, 256),
    *(Case(f'deit_{size}_patch16', 0, 224) for size in ('small', 'base')),
    *(Case(f'deit_{size}_distilled_patch16', 0, 224) for size in ('small', 'base')),
    *(Case(f'dinov2_base{registers}', 0, 518, classifier=False) for registers in ('', '_reg')),
    *(  # the numbering of the large in every layout, narrowed
        Case('vit_large_patch16', 0, 224, layout, options=(('channels', 64),))
        for layout in ('torchvision', 'transformers', 'big_vision')
    ),
    *(
        Case('dinov2_large', 0, 518, layout, options=(('channels', 64),), classifier=False)
        for layout in ('dinov2', 'timm', 'transformers')
    ),
    Case('dinov2_large_reg', 0, 518, options=(('channels', 64),), classifier=False),
    Case('eva02_tiny_patch14', 0, 336),
    Case('dinov3_vit_small_plus', 0, 256, 'timm', options=_NARROW, classifier=False),
    *(
        Case('dinov3_vit_large', 0, 256, layout, options=(('channels', 64),), classifier=False)
        for layout in ('dinov3', 'timm', 'timm_qkvb', 'transformers')
    ),
    # Hiera.
    *(Case(f'hiera_{size}', 0, 224) for size in ('small', 'base')),
    # Swin.
    Case('swin_base', 0, 224),
    *(Case('swin_small', 0, 224, layout) for layout in ('timm', 'transformers', 'microsoft')),
)

# One model per family, in training mode. The seed and the size are such that float32 can decide (training.py).
TRAINING: tuple[Case, ...] = (
    Case('vgg16_bn', 32, 32, seed=2, options=(('hidden_channels', 64),)),
    Case('googlenet', 32, 32, seed=3),
    Case('resnet18', 32, 32),
    Case('efficientnet_b0', 96, 96),
    Case('mobilenet_v3_small', 48, 48),
    # ReLU has a kink.
    Case('mobilenet_v4_hybrid_medium', 64, 64, options=(('activation', 'gelu'), ('stochastic_depth', 0.1))),
    Case('convnext_tiny', 32, 32),
    Case('convnextv2_atto', 32, 32, 'timm', options=(('stochastic_depth', 0.0),)),  # timm's rate
    Case('cspresnet50', 96, 96, options=(('activation', 'silu'),)),  # LeakyReLU has a kink
    Case('yolo26n', 96, 96, classifier=False),
    Case('vit_tiny_patch16', 64, 64),
    Case('swin_tiny', 32, 32),
    Case('hiera_tiny', 64, 64, options=(('stochastic_depth', 0.1),)),
    Case('deit_tiny_distilled_patch16', 64, 64, options=(*_NARROW, ('stochastic_depth', 0.1))),
    Case('dinov2_small_reg', 70, 70, options=_NARROW, classifier=False),
    Case('dinov3_vit_small_plus', 64, 64, 'timm_qkvb', options=(*_NARROW, ('stochastic_depth', 0.1)), classifier=False),
    Case('eva02_base_patch14', 70, 70, options=(*_NARROW, ('stochastic_depth', 0.1))),
    Case('clip_vit_base_patch16', 64, 64, options=_NARROW, classifier=False),
    Case('siglip_vit_base_patch16', 64, 64, options=(*_NARROW, ('activation', 'gelu_tanh')), classifier=False),
)
# Those with ReLU or with the maximum of values that are alike (Hiera's queries): their gradient jumps where float32
# cannot tell which of two values is the larger.
KINKED = frozenset(('vgg16_bn', 'googlenet', 'resnet18', 'mobilenet_v3_small', 'hiera_tiny'))
# The largest deviation of a gradient or a statistic, as a share of the largest value of its leaf.
TRAINING_TOLERANCE = 1e-4
# The same in float64, of which the stored answers are the float32 roundings.
ROUNDING = 1e-6
TRAINING_STEPS = 3
LEARNING_RATE = 1e-4

# Whole models that a backbone is a part of, by their task: keys and shapes. The rest of them is dropped on import.
WHOLE: tuple[Case, ...] = (
    *(Case('yolo11n', 0, 640, task, classifier=False) for task in ('detect', 'segment', 'pose')),
    *(Case('yolo26n', 0, 640, task, classifier=False) for task in ('detect', 'segment', 'semantic', 'depth')),
    Case('yolo11n', 0, 640, 'classify', classifier=False),
)


# What the default tests run: of each family the outputs of one case, of each of its layouts at least the keys, always
# the smallest; the others are slow or exhaustive. test_parity.py asks for completeness.
QUICK = frozenset(
    (
        # Compared stage by stage.
        'vgg16_97',
        'googlenet_97',
        'resnet18_97',
        'efficientnet_b0_lukemelas_97',
        'mobilenet_v3_small_97',
        'mobilenet_v4_conv_small_97',
        'convnext_tiny_timm_64',
        'convnextv2_atto_timm_64x105',
        'dinov3_convnext_tiny_transformers_64x100',
        'cspresnet50_97',
        'yolo26n_97',
        'vit_tiny_patch16_160_from_224',
        'vit_medium_patch16_reg4_gap_64',
        'dinov2_small_reg_timm_70',
        'dinov3_vit_small_64x112',
        'dinov3_vit_small_plus_timm_qkvb_48x80',
        'eva02_base_patch14_eva02_98',
        'clip_vit_base_patch16_clip_64',
        'clip_vit_base_patch16_clip_visual_64',
        'siglip_vit_base_patch16_transformers_64',
        'hiera_tiny_facebook_64',
        'swin_tiny_timm_96_from_160',
        # Keys and shapes alone.
        'resnet152_transformers',
        'efficientnet_b3_timm',
        'efficientnet_lite2',
        'convnext_base',
        'convnext_small_transformers',
        'convnext_small_facebook',
        'convnextv2_femto',
        'convnextv2_tiny_transformers',
        'dinov3_convnext_small',
        'dinov3_convnext_small_timm',
        'yolo11s',
        'vit_large_patch16_torchvision',
        'vit_large_patch16_transformers',
        'vit_large_patch16_big_vision',
        'deit_small_distilled_patch16',
        'dinov2_base_reg',
        'dinov2_large_dinov2',
        'dinov2_large_transformers',
        'dinov3_vit_small_plus_timm',
        'dinov3_vit_large_dinov3',
        'dinov3_vit_large_transformers',
        'hiera_small',
        'swin_base',
        'swin_small_transformers',
        'swin_small_microsoft',
        'eva02_tiny_patch14',
        # Trained, with the regularisers; a step with BatchNorm is that of test_segmentation_heads.py.
        'deit_tiny_distilled_patch16_64',
    )
)


# Run by CI beside those that follow from QUICK.
SLOW = frozenset(
    (
        # Compared stage by stage: other layouts of backbones that are quick, and other blocks.
        'resnet50_transformers_65',
        'efficientnet_lite0_timm_131',
        'mobilenet_v4_conv_small_131',
        'mobilenet_v4_hybrid_medium_97',
        'vit_tiny_patch16_torchvision_96',
        'vit_tiny_patch16_big_vision_96',
        'deit_tiny_distilled_patch16_transformers_96',
        'dinov2_small_timm_70',
        'dinov2_small_transformers_70',
        'convnextv2_atto_97',
        'dinov3_convnext_tiny_97',
        'dinov3_vit_small_timm_qkvb_64',
        'dinov3_vit_small_transformers_96x48',
        'dinov3_vit_small_plus_64',
        'eva02_small_patch14_112_from_70',
        'eva02_small_patch14_eva02_98',
        'clip_vit_base_patch16_timm_96_from_64',
        'siglip_vit_base_patch16_big_vision_64',
        # Trained; the other trainings repeat these for other families.
        'resnet18_32',
        'yolo26n_96',
    )
)


# Exhaustive, though of a quick backbone: a layout whose keys are quick, or what a quick or slow case also shows.
REPEATING = frozenset(
    (
        'efficientnet_b0_timm_97',
        'efficientnet_b0_timm_131',
        'convnext_tiny_97',
        'convnext_tiny_facebook_64',
        'vit_tiny_patch16_96',
        'eva02_base_patch14_70',
        'eva02_base_patch14_224',
        'clip_vit_base_patch16_96',
        'siglip_vit_base_patch16_96',
        'siglip_vit_base_patch16_timm_80',
        'swin_tiny_100',
        'swin_tiny_timm_96',
        'swin_tiny_timm_224_from_160',
        'swin_tiny_transformers_64',
    )
)


# Cases of which the default tests ask for the keys alone; the outputs are for the slow ones.
QUICK_KEYS = tuple(
    case
    for case in CASES
    if str(case)
    in (
        'vgg16_bn_timm_65',
        'efficientnet_b0_transformers_96',
        'mobilenet_v3_small_timm_131',
        'hiera_tiny_transformers_64',
    )
)


def marked(cases: Sequence[Case]) -> list:
    """The cases as parameters of pytest, named and marked: of several sizes, all but the smallest repeat it.

    So does a backbone of which no case is quick: it is another of its family.
    """
    import pytest

    def kind(case: Case) -> Case:
        """What cases of several sizes have in common."""
        return dataclasses.replace(case, image_size=0, width=0, file_size=int(case.image_size != case.file_size))

    smallest: dict[Case, int] = {}
    for case in cases:
        smallest[kind(case)] = min(case.image_size, smallest.get(kind(case), case.image_size))

    quick = {case.backbone for case in cases if str(case) in QUICK}

    def marks(case: Case) -> list:
        if str(case) in QUICK:
            return []
        if str(case) in SLOW:
            return [pytest.mark.slow]
        repeats = case in TRAINING or str(case) in REPEATING
        repeats = repeats or case.backbone not in quick or case.image_size > smallest[kind(case)]
        return [pytest.mark.exhaustive if repeats else pytest.mark.slow]

    return [pytest.param(case, id=str(case), marks=marks(case)) for case in cases]


# Convolutions that no normalisation follows.
_UNNORMALISED = re.compile(r'vgg\d+/features\..*|vgg.*/pre_logits\..*')
# The last normalisation of a residual branch. A smaller scale keeps the sum of many branches from growing (and with it
# the scores of YOLO's attention, which are the square of what enters).
_LAST_NORM = re.compile(
    r'layer\d\.\d+\.bn[23]\.weight'
    r'|resnet\.encoder\.stages\.\d\.layers\.\d+\.layer\.[12]\.normalization\.weight'
    r'|_blocks\.\d+\._bn2\.weight'
    r'|stages\.\d+\.(blocks\.\d+\.conv[23]|conv_transition)\.bn\.weight'  # CSPNet
    r'|blocks\.\d\.\d+\.(dw_start|pw_proj)\.bn\.weight'  # MobileNetV4; no activation comes after the first either
    r'|model\.(6\.m\.\d+\.m\.\d+\.cv2|10\.m\.\d+\.(attn\.(pe|proj)|ffn\.\d))\.bn\.weight'  # YOLO
)

# The same of a ConvNeXt, whose last normalisation follows the sum.
_LAYER_SCALE = re.compile(r'.*\.layer_scale(_parameter)?|stages\.\d\.(blocks\.|layers\.)?\d+\.gamma')
# Of its V2: global response normalisations, and dense layers, which timm may store as 1x1 convolutions; the last of a
# residual branch is smaller in place of a factor.
_GRN = re.compile(r'.*\.grn\.\w+')
_V2_DENSE = re.compile(r'.*\.(pwconv|mlp\.fc)(?P<number>[12])\.weight')
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


# Tokens, positions and patch embeddings of vision transformers, in all of their layouts.
_VISION_TRANSFORMERS = ('vit_', 'deit_', 'dinov2_', 'dinov3_vit_', 'eva02_', 'hiera_', 'clip_', 'siglip_', 'siglip2_')
_EMBEDDINGS = re.compile(
    r'(cls|dist|reg|mask|class)_token|(register|storage)_tokens|(conv_proj|((vit|deit|vision_model|hiera)\.)?embeddings)\..*'
    r'|encoder\.pos_embedding|(visual\.)?(class_embedding|positional_embedding|conv1\.weight)'
    r'|(params/img/)?(cls|embedding/.*|(Transformer/posembed_input/)?pos_embedding)'
)


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


def held_as(key: str) -> str:
    """The key of the same array, where a file has it under two: the last normalisation of DINOv3's ConvNeXt."""
    return key.replace('norms.3.', 'norm.')


def _dinov3_periods(shape: tuple[int]) -> np.ndarray:
    """The buffer of DINOv3's authors: periods of the positions, rounded to bfloat16."""
    exact = (100 ** (np.arange(*shape) / shape[0])).astype(np.float32)
    return ((exact.view(np.uint32) + 0x8000) & 0xFFFF0000).view(np.float32)


def _eva_angles(function: Callable, positions: int, width: int) -> np.ndarray:
    """The buffers of EVA-02's authors, of each patch's angles: the first half is of its row, twice for each pair."""
    side = round(positions**0.5)
    angles = np.repeat(np.arange(side)[:, None] * 16 / side / 1e4 ** (np.arange(width // 4) * 4 / width), 2, axis=1)
    rows, columns = np.repeat(angles, side, axis=0), np.tile(angles, (side, 1))
    return function(np.concatenate([rows, columns], axis=1)).astype(np.float32)


def _without_keys(values: np.ndarray) -> np.ndarray:
    """Zero in the middle third."""
    return np.where(np.arange(len(values)) * 3 // len(values) == 1, 0, values)


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
    if key == 'rope_embed.periods':
        return _dinov3_periods(shape)
    if key.endswith(('rope.freqs_cos', 'rope.freqs_sin')):
        return _eva_angles(np.cos if key.endswith('cos') else np.sin, *shape)
    if key.endswith('qkv.bias_mask'):
        return _without_keys(np.ones(shape, np.float32))
    if key == 'head.bias' and backbone.startswith('clip_'):  # of timm's, which stores a projection without a bias
        return np.zeros(shape, np.float32)
    key = held_as(key)
    random = _random(backbone, key, seed=seed)
    v2_dense = _V2_DENSE.fullmatch(key) if backbone.startswith('convnextv2') else None
    if v2_dense is not None:
        values = {'1': 1, '2': 0.2}[v2_dense['number']] * shape[1] ** -0.5 * _noise(random, shape)
    elif _GRN.fullmatch(key):
        values = 0.3 * _noise(random, shape)
    elif key.endswith('running_var'):
        values = 0.01 * random.uniform(0.5, 1.5, shape)
    elif key.endswith('running_mean'):
        values = 0.01 * _noise(random, shape)
    elif key.startswith(('cls_token', 'pos_embed', 'patch_embed.proj')) or (
        backbone.startswith(_VISION_TRANSFORMERS) and _EMBEDDINGS.fullmatch(key)
    ):
        values = 0.02 * _noise(random, shape) / np.prod(shape[1:] if len(shape) == 4 else 1) ** 0.5
    elif key.endswith('bias'):
        # A ConvNeXt normalises only what its convolutions have made: larger biases there would drown the image.
        values = (0.01 if 'convnext' in backbone else 0.1) * _noise(random, shape)
    elif key.endswith('/kernel'):  # of flax: inputs first; queries, keys and values have heads among their outputs
        inputs = shape[:1] if re.search('/(query|key|value)/', key) else shape[:-1]
        values = np.prod(inputs) ** -0.5 * _noise(random, shape)
    elif _SQUEEZE.fullmatch(key) or (backbone.startswith('mobilenet_v3') and key == 'conv_head.weight'):
        values = 0.5 * (2 / np.prod(shape[1:])) ** 0.5 * _noise(random, shape)
    elif len(shape) == 4:
        gain = 1 if _UNNORMALISED.fullmatch(f'{backbone}/{key}') else 0.1
        values = _noise(random, shape)
        values *= gain * (2 / np.prod(shape[1:])) ** 0.5  # in place: the largest of a VGG takes 800 MB
    elif len(shape) == 2:
        values = _noise(random, shape)
        values *= (1 / shape[1]) ** 0.5
    elif _LAYER_SCALE.fullmatch(key):
        values = 0.2 * (1 + 0.1 * _noise(random, shape))
    else:
        values = _norm_scale(backbone, key) * (1 + 0.1 * _noise(random, shape))
    if backbone.startswith('dinov3_vit') and key.endswith('attn.qkv.bias'):
        values = _without_keys(values)
    return values.astype(np.float32)


def state_dict(case: Case, shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """A state dictionary for the keys and shapes of the reference."""
    return {key: array(case.backbone, key, tuple(shape), case.seed) for key, shape in shapes.items()}


def images(case: Case, step: int | None = None) -> np.ndarray:
    """Noise on coarse patches, which also survive a global mean, ``float32[count, height, width, 3]``.

    Two images, or the eight of a step of training.
    """
    (height, width), count = case.size, 2 if step is None else 8
    sides = (height,) if height == width else (height, width)
    random = _random('images', *sides, *([] if step is None else [step]), seed=case.seed)
    rows, columns = (np.arange(side) * 4 // side for side in (height, width))
    coarse = _noise(random, (count, 4, 4, 3))[:, rows][:, :, columns]
    return (coarse + 0.5 * _noise(random, (count, height, width, 3))).astype(np.float32)


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

    A gradient that is zero in exact arithmetic (that of a bias in front of a BatchNorm) is rounding on both sides; it
    is measured by the largest of all leaves.
    """
    largest = max(digest[0] for digest in expected.values())
    errors = {
        key: np.abs(found[key] - digest).max() / (digest[0] if digest[0] > 1e-10 * largest else largest)
        for key, digest in expected.items()
    }
    key = max(errors, key=lambda each: errors[each])
    return key, float(errors[key])
