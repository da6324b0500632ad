"""Necks against their references (tests/parity/segmentation), and the rule that gives each level its stage."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import backbones
from backbones import UserError, assembly
from backbones.features import Features
from backbones.layers.resizing import resize
from backbones.necks import TABLE, levels
from backbones.necks.fpn import FPN
from backbones.necks.levels import Level
from backbones.necks.pan import PAN
from backbones.necks.simple_pyramid import SimplePyramid
from backbones.pretrained.keymaps.rules import (
    CONVOLUTION,
    Line,
    Rule,
    Transform,
    batch_norm_rules,
    convolution_rules,
    layer_norm_rules,
)
from tests.backbones.test_registry import KINDS_OF_STAGES, OF_IMAGES, marked
from tests.parity.segmentation import cases
from tests.parity.segmentation.comparing import TOLERANCE, apply, deviation, stored, variables_of

LEVELS = (Level(3, 'stage2'), Level(4, 'stage3'), Level(5, 'stage4'))
OF_DEEPEST = tuple(Level(exponent, 'stage4', exponent - 4) for exponent in range(2, 6))
# Of torch: inputs, outputs, rows, columns.
TRANSPOSED = Transform('', lambda array: array.transpose(2, 3, 0, 1), lambda array: array.transpose(2, 3, 0, 1))


def features() -> Features:
    maps = cases.maps()
    return Features(stages=maps, pooled=maps['stage4'].mean((1, 2)))


# --- Against the references. ------------------------------------------------------------------------------------------


def fpn_lines(norm: bool, key: str = '', path: str = 'neck') -> list[Line]:
    lines: list[Line] = []
    for index, level in enumerate(LEVELS):
        for theirs, ours in (('inner_blocks', 'lateral'), ('layer_blocks', 'output')):
            keys, place = f'{key}{theirs}.{index}', f'{path}/{ours}{level.exponent}'
            if norm:
                lines += convolution_rules(f'{keys}.0', f'{place}/conv') + batch_norm_rules(
                    f'{keys}.1', f'{place}/norm'
                )
            else:
                lines += convolution_rules(f'{keys}.0', place, bias=True)
    for number, name in enumerate(('p6', 'p7'), start=1):
        lines += convolution_rules(f'{key}extra_blocks.{name}', f'{path}/extra{number}', bias=True)
    return lines


@pytest.mark.parametrize('name', cases.PYRAMIDS)
def test_an_fpn_equals_torchvisions(name):
    extra, from_stage, norm = cases.PYRAMIDS[name]
    reference = stored(f'fpn_{name}')
    neck = FPN(LEVELS, cases.CHANNELS, extra, from_stage, norm)
    outputs = apply(neck, variables_of(reference, fpn_lines(norm)), features())
    assert deviation(reference, outputs) < TOLERANCE


def test_path_aggregation_equals_its_reference():
    reference = stored('pan')
    lines = fpn_lines(norm=True, key='fpn.', path='neck/fpn')
    for index, level in enumerate(LEVELS[1:]):
        for name in ('down', 'output'):
            key, path = f'{name}.{index}', f'neck/{name}{level.exponent}'
            lines += convolution_rules(f'{key}.0', f'{path}/conv') + batch_norm_rules(f'{key}.1', f'{path}/norm')
    outputs = apply(PAN(LEVELS, cases.CHANNELS), variables_of(reference, lines), features())
    assert deviation(reference, outputs) < TOLERANCE


def test_the_simple_pyramid_equals_its_reference():
    """The odd map of 4 by 3 pixels is halved so that the last column counts."""
    reference = stored('simple_pyramid')
    # The layers of each level by their numbers there.
    layers = {
        2: ('upsample1', 'upsample1_norm', '', 'upsample2', 'lateral_conv', 'lateral_norm', 'output_conv'),
        3: ('upsample1', 'lateral_conv', 'lateral_norm', 'output_conv'),
        4: ('lateral_conv', 'lateral_norm', 'output_conv'),
        5: ('', 'lateral_conv', 'lateral_norm', 'output_conv'),
    }
    lines: list[Line] = []
    for exponent, names in layers.items():
        for number, name in enumerate((*names, 'output_norm')):
            key, path = f'simfp_{exponent}.{number}', f'neck/level{exponent}/{name}'
            if name.endswith('norm'):
                lines += layer_norm_rules(key, path)
            elif name:
                transform = TRANSPOSED if name.startswith('upsample') else CONVOLUTION
                lines.append(Rule(f'{key}.weight', f'params/{path}/kernel', transform))
                lines.append(Rule(f'{key}.bias', f'params/{path}/bias'))
    outputs = apply(SimplePyramid(OF_DEEPEST, cases.CHANNELS, 'pool'), variables_of(reference, lines), features())
    assert deviation(reference, outputs) < TOLERANCE


@pytest.mark.parametrize(('theirs', 'ours'), [('bilinear', 'linear'), ('nearest', 'nearest')])
def test_resizing_equals_torchs(theirs, ours):
    """Larger and smaller, without antialiasing."""
    reference = {key: array for key, array in stored('resizing').items() if key.startswith(theirs)}
    outputs = {
        f'{theirs}{number}': resize(cases.noise('resized', 2, *old, 3), new, ours)
        for number, (old, new) in enumerate(cases.RESIZED)
    }
    assert deviation(reference, outputs) < 1e-6


def test_resizing_keeps_the_type_and_refuses_an_unknown_method():
    x = jnp.ones((1, 2, 2, 1), jnp.bfloat16)
    assert levels.resize(x, (4, 3)).dtype == jnp.bfloat16
    with pytest.raises(UserError, match="unknown method of resizing 'cubic'; valid choices: linear, nearest"):
        resize(x, (4, 4), 'cubic')  # ty: ignore[invalid-argument-type]


# --- The rule of the levels. ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('name', 'strides', 'expected'),
    [
        ('resnet50', (8, 16, 32), [('stage2', 0), ('stage3', 0), ('stage4', 0)]),
        ('resnet50', (4, 64), [('stage1', 0), ('stage4', 1)]),
        ('vgg16', (4, 8, 16, 32), [('stage3', 0), ('stage4', 0), ('stage5', 0), ('stage6', 0)]),
        ('vit_base_patch16', (4, 8, 16, 32), [('stage4', -2), ('stage4', -1), ('stage4', 0), ('stage4', 1)]),
        ('dinov2_small', (8, 16, 32), [('stage4', -1), ('stage4', 0), ('stage4', 1)]),
        ('hiera_tiny', (4, 8, 16, 32), [('stage1', 0), ('stage2', 0), ('stage3', 0), ('stage4', 0)]),
        ('swin_tiny', (4, 8, 16, 32), [('stage1', 0), ('stage2', 0), ('stage3', 0), ('stage4', 0)]),
        ('mobilenet_v4_conv_small', (8, 16, 32), [('stage3', 0), ('stage4', 0), ('stage5', 0)]),
        ('resnet_micro', (4, 8, 16), [('stage3', 0), ('stage4', 0), ('stage4', 1)]),
        ('vit_micro', (4, 8, 16), [('stage4', 0), ('stage4', 1), ('stage4', 2)]),
    ],
)
def test_each_level_has_the_deepest_stage_of_the_nearest_stride(name, strides, expected):
    chosen = levels.choose(backbones.create(name), strides)
    assert [(level.stage, level.halvings) for level in chosen] == expected
    assert [2**level.exponent for level in chosen] == list(strides)


def test_a_dilated_backbone_gives_levels_by_its_real_strides():
    chosen = levels.choose(backbones.create('resnet50', output_stride=8), (4, 8, 16, 32))
    assert [(level.stage, level.halvings) for level in chosen] == [
        ('stage1', 0),
        ('stage4', 0),
        ('stage4', 1),
        ('stage4', 2),
    ]


@pytest.mark.parametrize('strides', [(), (8, 8), (16, 8), (8, 12), (0, 1), (4.0, 8.0), (-8, 8)])
def test_strides_that_are_no_growing_powers_of_two_are_refused(strides):
    with pytest.raises(UserError, match=r'growing powers of two such as \(8, 16, 32\), not'):
        levels.choose(backbones.create('resnet18'), strides)


def tiny(name: str) -> tuple[int, int]:
    """A small size of images that every backbone of this name takes, not square."""
    side = getattr(backbones.create(name), 'patch', None)
    return (56, 112) if side == 14 else (64, 96)


def trace_features(name: str) -> Features:
    images = jax.ShapeDtypeStruct((2, *tiny(name), 3), jnp.float32)
    module = backbones.create(name)
    return jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x)[0], images)


@pytest.mark.parametrize('name', marked(OF_IMAGES, KINDS_OF_STAGES))
def test_every_backbone_gives_every_level_about_its_pixels(name):
    """Within the pixel that a backbone may round; a patch of 14 pixels counts as 16, so its maps are larger."""
    found = trace_features(name)
    stretch = 16 / 14 if getattr(backbones.create(name), 'patch', None) == 14 else 1
    for strides in ((4, 8, 16, 32), (8, 16), (2, 64)):
        for deepest in (False, True):
            chosen = levels.choose(backbones.create(name), strides, deepest)
            maps = jax.eval_shape(lambda features, chosen=chosen: levels.gather(chosen, features), found)
            assert list(maps) == [f'p{stride.bit_length() - 1}' for stride in strides]
            for stride, x in zip(strides, maps.values(), strict=True):
                for side, pixels in zip(x.shape[1:3], tiny(name), strict=True):
                    assert abs(side - pixels * stretch / stride) <= 1, (stride, x.shape)
    for neck in EXTENDED:
        module = assembly._neck(neck, backbones.create(name), {'channels': 8, 'extra': 'p6p7'}, (8, 16, 32))
        maps, _ = jax.eval_shape(module.init_with_output, jax.random.key(0), found)
        assert {level: x.shape[-1] for level, x in maps.items()} == dict.fromkeys(('p3', 'p4', 'p5', 'p6', 'p7'), 8)


# Necks that can have coarser levels, and have the same channels on all. That of YOLO: test_yolo_detectors.py.
EXTENDED = [neck for neck, module in TABLE.items() if hasattr(module, 'extra')]

# --- Necks on backbones. ----------------------------------------------------------------------------------------------

TINY = {'resnet_micro': {}, 'vit_micro': {'depth': 4, 'channels': 24}}
# Each neck is on one of the two by default; on the other in every run of CI or, without an entry, in rotation.
SLOW_NECKS = {'simple_pyramid': pytest.mark.slow}


def assembled(neck: str, name: str, **options) -> tuple[nn.Module, nn.Module]:
    backbone = backbones.create(name, **TINY[name])
    return backbone, assembly._neck(neck, backbone, {'channels': 8, **options}, (4, 8, 16))


@pytest.mark.parametrize(
    ('neck', 'name'),
    [
        pytest.param(neck, name, marks=() if (number + other) % 2 else SLOW_NECKS.get(neck, pytest.mark.exhaustive))
        for number, neck in enumerate(EXTENDED)
        for other, name in enumerate(TINY)
    ],
)
def test_a_neck_has_finite_gradients_on_a_cnn_and_on_a_vit(neck, name):
    backbone, module = assembled(neck, name, extra='p6p7')
    images = jax.ShapeDtypeStruct((2, 32, 48, 3), jnp.float32)
    shapes = jax.eval_shape(lambda x: backbone.init_with_output(jax.random.key(0), x)[0], images)
    found = jax.tree.map(lambda leaf: cases.noise('features', *leaf.shape), shapes)
    targets = {f'p{exponent}': (2, -(-32 // 2**exponent), -(-48 // 2**exponent), 8) for exponent in range(2, 7)}
    targets = {level: cases.noise(level, *shape) for level, shape in targets.items()}

    @jax.jit
    def gradients(key):
        variables = module.init(key, found)

        def loss(params):
            outputs, _ = module.apply({**variables, 'params': params}, found, train=True, mutable=['batch_stats'])
            assert list(outputs) == list(targets)
            return sum(jnp.square(x - targets[level]).mean() for level, x in outputs.items())

        return jax.grad(loss)(variables['params'])

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients(jax.random.key(1))):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path


@pytest.mark.parametrize('neck', EXTENDED)
def test_the_extra_levels_of_every_neck(neck):
    backbone, _ = assembled(neck, 'resnet_micro')

    def made(**options) -> tuple[dict[str, tuple[int, ...]], dict]:
        _, module = assembled(neck, 'resnet_micro', **options)
        found = jax.eval_shape(
            lambda x: module.init_with_output(jax.random.key(0), backbone.init_with_output(jax.random.key(0), x)[0]),
            jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32),
        )
        return {name: x.shape[1:] for name, x in found[0].items()}, found[1]['params']

    plain, without = made()
    assert plain == {'p2': (16, 16, 8), 'p3': (8, 8, 8), 'p4': (4, 4, 8)}
    pooled, pooling = made(extra='pool')
    assert pooled == {**plain, 'p5': (2, 2, 8)}
    assert jax.tree.map(jnp.shape, pooling) == jax.tree.map(jnp.shape, without)
    strided, with_two = made(extra='p6p7')
    assert strided == {**plain, 'p5': (2, 2, 8), 'p6': (1, 1, 8)}
    assert with_two['extra1']['kernel'].shape == with_two['extra2']['kernel'].shape == (3, 3, 8, 8)
    _, of_stage = made(extra='p6p7', extra_from_stage=True)
    assert of_stage['extra1']['kernel'].shape == (3, 3, 128, 8)
    with pytest.raises(UserError, match="unknown way to add levels to a neck 'p5'; valid choices: none, p6p7, pool"):
        made(extra='p5')


def test_a_simple_pyramid_is_made_of_the_deepest_map_alone():
    neck = backbones.create_segmenter('resnet50', neck='simple_pyramid', head='linear').neck
    assert [(level.stage, level.halvings) for level in neck.levels] == [
        ('stage4', -3),
        ('stage4', -2),
        ('stage4', -1),
        ('stage4', 0),
    ]
    assert [level.stage for level in backbones.create_segmenter('resnet50', neck='fpn').neck.levels] == [
        'stage1',
        'stage2',
        'stage3',
        'stage4',
    ]


def test_a_neck_refuses_options_it_does_not_have():
    with pytest.raises(UserError, match="unknown option of the neck pan 'chanels'; did you mean 'channels'"):
        assembled('pan', 'resnet_micro', chanels=3)
    with pytest.raises(UserError, match="unknown neck 'fpm'; did you mean 'fpn'"):
        backbones.create_segmenter('resnet_micro', neck='fpm')
