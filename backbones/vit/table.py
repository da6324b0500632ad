"""The transformers for images of the registry, one row each."""

from functools import partial

from backbones import preprocessing
from backbones.entry import Entry
from backbones.vit.hiera import Hiera
from backbones.vit.swin import SwinTransformer
from backbones.vit.vit import VisionTransformer

# Channels, depth and heads.
_VIT_SIZES = {
    'tiny': (192, 12, 3),
    'small': (384, 12, 6),
    'base': (768, 12, 12),
    'large': (1024, 24, 16),
    # Timm's own, between these.
    'wee': (256, 14, 4),
    'little': (320, 14, 5),
    'medium': (512, 12, 8),
    'mediumd': (512, 20, 8),
    'betwixt': (640, 12, 10),
}


def _vit(size, patch, params, weights_expect, layouts_expect=None, **options) -> Entry:
    module = partial(VisionTransformer, patch, *_VIT_SIZES[size], **options)
    return Entry(module, 'vit', params, weights_expect, layout_preprocessing=layouts_expect or {})


def _augreg(size, patch, params, torchvision_crop=0.875) -> Entry:
    layouts = {
        'torchvision': preprocessing.TORCHVISION.replace(crop=torchvision_crop),
        'transformers': preprocessing.AUGREG_VIT.replace(crop=1.0, interpolation='bilinear', fit='squash'),
    }
    return _vit(size, patch, params, preprocessing.AUGREG_VIT, layouts)


def _registers_and_average(size, registers, params, mlp_ratio=4.0) -> Entry:
    return _vit(
        size,
        16,
        params,
        preprocessing.AUGREG_VIT.replace(size=256, crop=0.95),
        prefix=(),
        registers=registers,
        layer_scale=1e-5,
        mlp_ratio=mlp_ratio,
        pooling='average',
        norm_after_pooling=True,
    )


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


def _dinov3(size, params, **options) -> Entry:
    authors = preprocessing.DINOV3.replace(interpolation='bilinear', fit='squash')
    return _vit(
        size,
        16,
        params,
        preprocessing.DINOV3,
        {'dinov3': authors, 'transformers': authors.replace(size=224)},
        registers=4,
        masked_pretraining=True,
        layer_scale=1e-5,
        epsilon=1e-5,
        position_table=False,
        rotary='dinov3',
        attention_biases='queries_and_values',
        **options,
    )


_dinov2_registers = partial(_dinov2, position_method='dinov2_registers', registers=4)


def _eva02(size, pixels, params, **options) -> Entry:
    return _vit(
        size,
        14,
        params,
        preprocessing.EVA02.replace(size=pixels),
        mlp_ratio=8 / 3,
        activation='silu',
        gated=True,
        attention_biases='queries_and_values',
        rotary='eva02',
        pooling='average',
        norm_after_pooling=True,
        **options,
    )


def _siglip(size, params, weights_expect) -> Entry:
    return _vit(size, 16, params, weights_expect, prefix=(), activation='gelu_tanh', pooling='attention')


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


def _hiera(depths, params) -> Entry:
    original = preprocessing.HIERA
    return Entry(
        partial(Hiera, 96, depths),
        'vit',
        params,
        original.replace(crop=0.9),
        layout_preprocessing={'facebook': original, 'transformers': original},
    )


TABLE: dict[str, Entry] = {
    # Vision transformers.
    'vit_tiny_patch16': _augreg('tiny', 16, 5_524_416),
    'vit_small_patch16': _augreg('small', 16, 21_665_664),
    'vit_base_patch16': _augreg('base', 16, 85_798_656),
    'vit_large_patch16': _augreg('large', 16, 303_301_632, torchvision_crop=224 / 242),
    'vit_tiny_patch32': _augreg('tiny', 32, 5_938_560),
    'vit_small_patch32': _augreg('small', 32, 22_493_952),
    'vit_base_patch32': _augreg('base', 32, 87_455_232),
    'vit_large_patch32': _augreg('large', 32, 305_510_400),
    'vit_wee_patch16_reg1_gap': _registers_and_average('wee', 1, 13_165_568, mlp_ratio=5.0),
    'vit_little_patch16_reg1_gap': _registers_and_average('little', 1, 22_194_048, mlp_ratio=5.6),
    'vit_little_patch16_reg4_gap': _registers_and_average('little', 4, 22_195_008, mlp_ratio=5.6),
    'vit_medium_patch16_reg1_gap': _registers_and_average('medium', 1, 38_367_232),
    'vit_medium_patch16_reg4_gap': _registers_and_average('medium', 4, 38_368_768),
    'vit_mediumd_patch16_reg4_gap': _registers_and_average('mediumd', 4, 63_596_032),
    'vit_betwixt_patch16_reg1_gap': _registers_and_average('betwixt', 1, 59_755_520),
    'vit_betwixt_patch16_reg4_gap': _registers_and_average('betwixt', 4, 59_757_440),
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
    'dinov3_vit_small': _dinov3('small', 21_596_544),
    'dinov3_vit_small_plus': _dinov3('small', 28_692_864, gated=True, activation='silu'),
    'dinov3_vit_base': _dinov3('base', 85_660_416),
    'dinov3_vit_large': _dinov3('large', 303_129_600),
    'eva02_tiny_patch14': _eva02('tiny', 336, 5_563_584),
    'eva02_small_patch14': _eva02('small', 336, 21_744_000),
    'eva02_base_patch14': _eva02('base', 448, 86_348_544, hidden_norm=True),
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
    'siglip_vit_base_patch16': _siglip('base', 92_884_224, preprocessing.SIGLIP),
    'siglip2_vit_base_patch16': _siglip('base', 92_884_224, preprocessing.SIGLIP2),
    # Swin.
    'swin_tiny': _swin(96, (2, 2, 6, 2), (3, 6, 12, 24), 0.2, 232, 27_519_354),
    'swin_small': _swin(96, (2, 2, 18, 2), (3, 6, 12, 24), 0.3, 246, 48_837_258),
    'swin_base': _swin(128, (2, 2, 18, 2), (4, 8, 16, 32), 0.5, 238, 86_743_224),
    # Hiera.
    'hiera_tiny': _hiera((1, 2, 7, 2), 27_141_216),
    'hiera_small': _hiera((1, 2, 11, 2), 34_239_072),
    'hiera_base': _hiera((2, 3, 16, 3), 50_755_968),
    # For images of 32 pixels; its CNN is ``resnet_micro``.
    'vit_micro': Entry(
        partial(VisionTransformer, 4, 96, 4, 3),
        'vit',
        458_592,
        preprocessing.SMALL_IMAGES,
    ),
}
