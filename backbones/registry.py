"""Every backbone by name: one explicit table; nothing is registered by an import.

A row says how the module is built and what is known about it without building it. To add a backbone, write its module
and add a row; ``tests/backbones/test_registry.py`` then checks its parameter count.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial

import flax.linen as nn

from backbones import preprocessing
from backbones.cnn.convnext import ConvNeXt
from backbones.cnn.cspnet import BottleneckBlock, CSPNet, DarkBlock
from backbones.cnn.efficientnet import EfficientNet
from backbones.cnn.googlenet import GoogLeNet
from backbones.cnn.mobilenet import LARGE, SMALL, MobileNetV3
from backbones.cnn.resnet import BasicBlock, Bottleneck, ResNet
from backbones.cnn.vgg import VGG
from backbones.cnn.yolo import YOLO
from backbones.errors import UserError, check_output_stride, unknown
from backbones.features import BackboneInfo, StageInfo
from backbones.heads.classification import ClassificationHead
from backbones.model import Model
from backbones.preprocessing import Preprocessing
from backbones.published import WEIGHTS
from backbones.vit.swin import SwinTransformer
from backbones.vit.vit import VisionTransformer

FAMILIES = ('cnn', 'vit')
# As people write them.
FAMILY_NAMES = {'cnn': 'CNN', 'vit': 'ViT'}

# Options of a ViT that are sides of squares, in pixels and in patches; Swin checks its window itself.
_SIDES = {'patch', 'position_grid'}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One row of the table: how to build a backbone, and what has been published about it.

    Attributes:
        constructor: returns the linen module, which itself knows its stages (``stage_channels``, ``stage_strides``,
            ``pooled_channels``).
        family: ``'cnn'`` or ``'vit'``.
        params: number of parameters without a classifier.
        preprocessing: what its usual weights expect.
        dropout: rate before the classifier while training.
        layout_preprocessing: what the weights of a layout expect, where that differs from ``preprocessing``.
    """

    constructor: Callable[..., nn.Module]
    family: str
    params: int
    preprocessing: Preprocessing
    dropout: float = 0.0
    layout_preprocessing: Mapping[str, Preprocessing] = dataclasses.field(default_factory=dict)


def _vgg(depths, params, batch_norm=False) -> Entry:
    return Entry(partial(VGG, depths, batch_norm), 'cnn', params, preprocessing.TORCHVISION, dropout=0.5)


def _resnet(block, depths, params, **widths) -> Entry:
    return Entry(
        partial(ResNet, block, depths, **widths),
        'cnn',
        params,
        preprocessing.TORCHVISION,
        layout_preprocessing={'transformers': preprocessing.TORCHVISION.replace(interpolation='bicubic')},
    )


# From B5 on, torchvision's BatchNorms have TensorFlow's constants.
_TENSORFLOW_NORM = {'epsilon': 1e-3, 'momentum': 0.99}


def _timm_efficientnet(size, crop, **constants) -> Preprocessing:
    """What timm's default weights of an EfficientNet expect."""
    return preprocessing.EFFICIENTNET.replace(size=size, crop=crop, **constants)


def _efficientnet(width, depth, params, dropout, size, resized, timm, original=None, **options) -> Entry:
    """Torchvision crops ``size`` from images of ``resized`` pixels; the authors' own weights expect ``original``."""
    usual = preprocessing.EFFICIENTNET
    whole = usual.replace(size=original or size, crop=1.0)
    return Entry(
        partial(EfficientNet, width, depth, **options),
        'cnn',
        params,
        usual.replace(size=size, crop=size / resized),
        dropout=dropout,
        # The weights published for transformers were evaluated on images resized without interpolation.
        layout_preprocessing={
            'timm': timm,
            'lukemelas': whole,
            'transformers': whole.replace(interpolation='nearest'),
        },
    )


def _efficientnet_lite(width, depth, size, timm_crop, params, dropout) -> Entry:
    lite = {'activation': 'relu6', 'squeeze_excitation': False, 'fixed_ends': True, 'padding': 'same'}
    return Entry(
        partial(EfficientNet, width, depth, **lite, epsilon=1e-3, momentum=0.99),
        'cnn',
        params,
        preprocessing.EFFICIENTNET_LITE.replace(size=size),
        dropout,
        {'timm': _timm_efficientnet(size, timm_crop, **preprocessing.INCEPTION)},
    )


def _cspnet(block, depths, channels, params, **options) -> Entry:
    return Entry(partial(CSPNet, block, depths, channels, **options), 'cnn', params, preprocessing.CSPNET)


# Depth, width and channel limit per size, and whether every C3k2 is nested: the same for YOLO11 and YOLO26.
_YOLO_SIZES = {
    'n': (0.5, 0.25, 1024, False),
    's': (0.5, 0.5, 1024, False),
    'm': (0.5, 1.0, 512, True),
    'l': (1.0, 1.0, 512, True),
    'x': (1.0, 1.5, 512, True),
}


def _yolo11(size, params) -> Entry:
    module = partial(YOLO, *_YOLO_SIZES[size], sppf_activation='silu', sppf_shortcut=False)
    return Entry(module, 'cnn', params, preprocessing.YOLO)


def _yolo26(size, params) -> Entry:
    module = partial(YOLO, *_YOLO_SIZES[size], sppf_activation='none', sppf_shortcut=True)
    return Entry(module, 'cnn', params, preprocessing.YOLO)


def _mobilenet(rows, hidden, params) -> Entry:
    layouts = {'timm': preprocessing.TORCHVISION.replace(interpolation='bicubic')}
    module = partial(MobileNetV3, rows, hidden)
    return Entry(module, 'cnn', params, preprocessing.TORCHVISION, dropout=0.2, layout_preprocessing=layouts)


def _convnext(channels, depths, stochastic_depth, size, params) -> Entry:
    original = preprocessing.CONVNEXT
    return Entry(
        partial(ConvNeXt, channels, depths, stochastic_depth),
        'cnn',
        params,
        preprocessing.TORCHVISION.replace(crop=224 / size),
        layout_preprocessing={'timm': original, 'transformers': original, 'facebook': original},
    )


# Channels, depth and heads.
_VIT_SIZES = {'tiny': (192, 12, 3), 'small': (384, 12, 6), 'base': (768, 12, 12), 'large': (1024, 24, 16)}


def _vit(size, patch, params, weights_expect, layouts_expect=None, **options) -> Entry:
    module = partial(VisionTransformer, patch, *_VIT_SIZES[size], **options)
    return Entry(module, 'vit', params, weights_expect, layout_preprocessing=layouts_expect or {})


def _augreg(size, patch, params, torchvision_crop=0.875) -> Entry:
    layouts = {
        'torchvision': preprocessing.TORCHVISION.replace(crop=torchvision_crop),
        'transformers': preprocessing.AUGREG_VIT.replace(crop=1.0, interpolation='bilinear', fit='squash'),
    }
    return _vit(size, patch, params, preprocessing.AUGREG_VIT, layouts)


def _deit(size, params, **options) -> Entry:
    layouts = {'transformers': preprocessing.DEIT.replace(crop=0.875, fit='squash')}
    return _vit(size, 16, params, preprocessing.DEIT, layouts, **options)


def _deit_distilled(size, params) -> Entry:
    return _deit(size, params, prefix=('class_token', 'distillation_token'), pooling='distillation')


def _dinov2(size, params, position_method='dinov2', registers=0) -> Entry:
    evaluation = preprocessing.DINOV2.replace(size=224, crop=0.875)
    return _vit(
        size,
        14,
        params,
        preprocessing.DINOV2,
        {'dinov2': evaluation, 'transformers': evaluation},
        registers=registers,
        masked_pretraining=True,
        layer_scale=1e-5,
        position_method=position_method,
        position_grid=37,
    )


_dinov2_registers = partial(_dinov2, position_method='dinov2_registers', registers=4)


def _swin(channels, depths, heads, stochastic_depth, size, params) -> Entry:
    original = preprocessing.SWIN
    return Entry(
        partial(SwinTransformer, channels, depths, heads, stochastic_depth),
        'vit',
        params,
        original.replace(crop=224 / size),
        layout_preprocessing={
            'timm': original,
            'microsoft': original,
            'transformers': original.replace(crop=1.0, fit='squash'),
        },
    )


TABLE: dict[str, Entry] = {
    # VGG.
    'vgg16': _vgg((2, 2, 3, 3, 3), 134_260_544),
    'vgg16_bn': _vgg((2, 2, 3, 3, 3), 134_268_992, batch_norm=True),
    'vgg19': _vgg((2, 2, 4, 4, 4), 139_570_240),
    'vgg19_bn': _vgg((2, 2, 4, 4, 4), 139_581_248, batch_norm=True),
    # GoogLeNet.
    'googlenet': Entry(GoogLeNet, 'cnn', 5_599_904, preprocessing.GOOGLENET, dropout=0.2),
    # ResNet, ResNeXt, Wide ResNet.
    'resnet18': _resnet(BasicBlock, (2, 2, 2, 2), 11_176_512),
    'resnet34': _resnet(BasicBlock, (3, 4, 6, 3), 21_284_672),
    'resnet50': _resnet(Bottleneck, (3, 4, 6, 3), 23_508_032),
    'resnet101': _resnet(Bottleneck, (3, 4, 23, 3), 42_500_160),
    'resnet152': _resnet(Bottleneck, (3, 8, 36, 3), 58_143_808),
    'resnext50_32x4d': _resnet(Bottleneck, (3, 4, 6, 3), 22_979_904, groups=32, base_width=4),
    'wide_resnet50_2': _resnet(Bottleneck, (3, 4, 6, 3), 66_834_240, base_width=128),
    # EfficientNet.
    'efficientnet_b0': _efficientnet(1.0, 1.0, 4_007_548, 0.2, 224, 256, _timm_efficientnet(224, 0.875)),
    'efficientnet_b1': _efficientnet(
        1.0, 1.1, 6_513_184, 0.2, 240, 256, _timm_efficientnet(240, 0.9, **preprocessing.INCEPTION)
    ),
    'efficientnet_b2': _efficientnet(1.1, 1.2, 7_700_994, 0.3, 288, 288, _timm_efficientnet(256, 0.875), original=260),
    'efficientnet_b3': _efficientnet(1.2, 1.4, 10_696_232, 0.3, 300, 320, _timm_efficientnet(288, 0.875)),
    'efficientnet_b4': _efficientnet(1.4, 1.8, 17_548_616, 0.4, 380, 384, _timm_efficientnet(320, 0.875)),
    'efficientnet_b5': _efficientnet(
        1.6, 2.2, 28_340_784, 0.4, 456, 456, _timm_efficientnet(448, 1.0), **_TENSORFLOW_NORM
    ),
    'efficientnet_b6': _efficientnet(
        1.8, 2.6, 40_735_704, 0.5, 528, 528, _timm_efficientnet(528, 0.942), **_TENSORFLOW_NORM
    ),
    'efficientnet_b7': _efficientnet(
        2.0, 3.1, 63_786_960, 0.5, 600, 600, _timm_efficientnet(600, 0.949), **_TENSORFLOW_NORM
    ),
    'efficientnet_lite0': _efficientnet_lite(1.0, 1.0, 224, 0.875, 3_371_008, 0.2),
    'efficientnet_lite1': _efficientnet_lite(1.0, 1.1, 240, 0.882, 4_135_680, 0.2),
    'efficientnet_lite2': _efficientnet_lite(1.1, 1.2, 260, 0.89, 4_811_072, 0.3),
    # MobileNetV3.
    'mobilenet_v3_small': _mobilenet(SMALL, 1024, 1_517_856),
    'mobilenet_v3_large': _mobilenet(LARGE, 1280, 4_202_032),
    # ConvNeXt.
    'convnext_tiny': _convnext((96, 192, 384, 768), (3, 3, 9, 3), 0.1, 236, 27_820_128),
    'convnext_small': _convnext((96, 192, 384, 768), (3, 3, 27, 3), 0.4, 230, 49_454_688),
    'convnext_base': _convnext((128, 256, 512, 1024), (3, 3, 27, 3), 0.5, 232, 87_566_464),
    # CSPNet.
    'cspresnet50': _cspnet(
        BottleneckBlock,
        (3, 3, 5, 2),
        (128, 256, 512, 1024),
        20_591_168,
        expansions=(2, 2, 2, 2),
        bottlenecks=(0.5, 0.5, 0.5, 0.5),
        stem=(64, 7, 2),
        stem_pool=True,
        downsample_grows=False,
        expand_activation='none',
    ),
    'cspdarknet53': _cspnet(
        DarkBlock,
        (1, 2, 8, 8, 4),
        (64, 128, 256, 512, 1024),
        26_617_184,
        expansions=(2, 1, 1, 1, 1),
        bottlenecks=(0.5, 1, 1, 1, 1),
        stem=(32, 3, 1),
        stem_pool=False,
        downsample_grows=True,
    ),
    # YOLO.
    'yolo11n': _yolo11('n', 1_365_472),
    'yolo11s': _yolo11('s', 5_441_984),
    'yolo11m': _yolo11('m', 10_352_192),
    'yolo11l': _yolo11('l', 12_833_600),
    'yolo11x': _yolo11('x', 28_847_328),
    'yolo26n': _yolo26('n', 1_365_472),
    'yolo26s': _yolo26('s', 5_441_984),
    'yolo26m': _yolo26('m', 10_352_192),
    'yolo26l': _yolo26('l', 12_833_600),
    'yolo26x': _yolo26('x', 28_847_328),
    # Vision transformers.
    'vit_tiny_patch16': _augreg('tiny', 16, 5_524_416),
    'vit_small_patch16': _augreg('small', 16, 21_665_664),
    'vit_base_patch16': _augreg('base', 16, 85_798_656),
    'vit_large_patch16': _augreg('large', 16, 303_301_632, torchvision_crop=224 / 242),
    'vit_tiny_patch32': _augreg('tiny', 32, 5_938_560),
    'vit_small_patch32': _augreg('small', 32, 22_493_952),
    'vit_base_patch32': _augreg('base', 32, 87_455_232),
    'vit_large_patch32': _augreg('large', 32, 305_510_400),
    'deit_tiny_patch16': _deit('tiny', 5_524_416),
    'deit_small_patch16': _deit('small', 21_665_664),
    'deit_base_patch16': _deit('base', 85_798_656),
    'deit_tiny_distilled_patch16': _deit_distilled('tiny', 5_524_800),
    'deit_small_distilled_patch16': _deit_distilled('small', 21_666_432),
    'deit_base_distilled_patch16': _deit_distilled('base', 85_800_192),
    'dinov2_small': _dinov2('small', 22_056_576),
    'dinov2_base': _dinov2('base', 86_580_480),
    'dinov2_large': _dinov2('large', 304_368_640),
    'dinov2_small_reg': _dinov2_registers('small', 22_058_112),
    'dinov2_base_reg': _dinov2_registers('base', 86_583_552),
    'dinov2_large_reg': _dinov2_registers('large', 304_372_736),
    'clip_vit_base_patch16': _vit(
        'base',
        16,
        86_192_640,
        preprocessing.CLIP,
        patch_bias=False,
        pre_norm=True,
        activation='quick_gelu',
        epsilon=1e-5,
        projected_channels=512,
    ),
    'siglip_vit_base_patch16': _vit(
        'base', 16, 92_884_224, preprocessing.SIGLIP, prefix=(), activation='gelu_tanh', pooling='attention'
    ),
    # Swin.
    'swin_tiny': _swin(96, (2, 2, 6, 2), (3, 6, 12, 24), 0.2, 232, 27_519_354),
    'swin_small': _swin(96, (2, 2, 18, 2), (3, 6, 12, 24), 0.3, 246, 48_837_258),
    'swin_base': _swin(128, (2, 2, 18, 2), (4, 8, 16, 32), 0.5, 238, 86_743_224),
    # A pair for images of 32 pixels: parameters within 1 %; 0.083 and 0.065 GFLOPs, so the CNN costs 29 % more.
    'resnet_micro': Entry(
        partial(ResNet, BasicBlock, (1, 1, 1, 1), (32, 48, 96, 128), stem_channels=32, small_images=True),
        'cnn',
        456_576,
        preprocessing.SMALL_IMAGES,
    ),
    'vit_micro': Entry(
        partial(VisionTransformer, 4, 96, 4, 3),
        'vit',
        458_592,
        preprocessing.SMALL_IMAGES,
    ),
}


def names(family: str | None = None) -> list[str]:
    """Registered names, all or those of one family (``'cnn'`` or ``'vit'``), sorted."""
    if family is not None and family not in FAMILIES:
        raise unknown('family', family, FAMILIES)
    return sorted(name for name, entry in TABLE.items() if family in (None, entry.family))


def entry(name: str) -> Entry:
    """The row of a name.

    Raises:
        UserError: no such backbone; the nearest names are offered.
    """
    if name not in TABLE:
        raise unknown('backbone', name, TABLE)
    return TABLE[name]


def info(name: str) -> BackboneInfo:
    """Static facts about a backbone; no parameters are created."""
    row = entry(name)
    module = row.constructor()
    stages = tuple(
        StageInfo(f'stage{index}', channels, stride)
        for index, (channels, stride) in enumerate(
            zip(module.stage_channels(), module.stage_strides(), strict=True), start=1
        )
    )
    pooled = module.pooled_channels()
    return BackboneInfo(
        name,
        row.family,
        row.params,
        stages,
        pooled,
        row.preprocessing.size[0],
        row.preprocessing,
        WEIGHTS.get(name, ()),
    )


def preprocessing_of(name: str, layout: str) -> Preprocessing:
    """The preprocessing that the weights of a layout expect where no configuration comes with them."""
    row = entry(name)
    return row.layout_preprocessing.get(layout, row.preprocessing)


def create(name: str, **overrides) -> nn.Module:
    """The backbone as a linen module without a classifier; ``apply(variables, images, train=False)`` → ``Features``.

    Args:
        name: a registered name.
        **overrides: attributes of the module to change, such as ``dtype=jnp.bfloat16``.

    Raises:
        UserError: no such backbone, no such attribute, a side (``patch``, ``position_grid``) that is not a positive
            whole number, or an ``output_stride`` that the backbone cannot have.
    """
    constructor = entry(name).constructor
    module = constructor()
    fields = {field.name for field in dataclasses.fields(module)} - {'parent', 'name'}  # ty: ignore[invalid-argument-type]
    for override in overrides:
        if override not in fields:
            raise unknown(f'option of the backbone {name}', override, fields)
    for side in _SIDES & overrides.keys():
        value = overrides[side]
        if (value, side) != (None, 'position_grid') and (type(value) is not int or value < 1):
            raise UserError(f'{side} of the backbone {name} must be a positive whole number, not {value!r}')
    module = module.clone(**overrides)
    if 'output_stride' in overrides:
        check_output_stride(module.output_stride, module.output_strides())
    return module


def create_classifier(name: str, num_classes: int, **overrides) -> Model:
    """The backbone with a linear head: parameters ``{'backbone': …, 'head': …}``, output ``float32[batch, classes]``.

    Args:
        name: a registered name.
        num_classes: number of logits.
        **overrides: as ``create`` takes them, and ``dropout``, the rate before the head while training.

    Raises:
        UserError: no such backbone or option, or fewer than one class.
    """
    if num_classes < 1:
        raise UserError(f'num_classes must be at least 1, not {num_classes}')
    dropout = overrides.pop('dropout', entry(name).dropout)
    backbone = create(name, **overrides)
    distilled = getattr(backbone, 'pooling', None) == 'distillation'
    return Model(backbone, None, ClassificationHead(num_classes, dropout, backbone.dtype, distilled))
