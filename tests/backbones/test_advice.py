"""A file that does not fit names the option, or the backbone, that would take it."""

import re
from collections.abc import Callable

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import backbones
from backbones import UserError
from backbones.pretrained import compatibility, sources
from backbones.pretrained.save import to_layout

NARROW = {'channels': 24, 'depth': 4, 'heads': 3}

Load = Callable[..., tuple[dict, backbones.Report]]


@pytest.fixture
def load(monkeypatch) -> Load:
    """Load a file of one backbone into another; arrays of zeros that take no memory stand for it."""

    def load(owner: str, layout: str, made_for: int, name: str, options: dict, classes: int = 0, **asked):
        create = backbones.create_classifier if classes else backbones.create
        model = create(owner, **({'num_classes': classes} if classes else {}), **options)
        configuration = asked.pop('configuration', None)
        images = np.broadcast_to(np.float32(0), (1, made_for, made_for, asked.pop('image_channels', 3)))
        shapes = flatten_dict(jax.eval_shape(model.init, jax.random.key(0), images), sep='/')
        arrays = {path: np.broadcast_to(np.float32(0), leaf.shape) for path, leaf in shapes.items()}
        file = arrays if layout == 'native' else to_layout(arrays, layout, owner, options)
        monkeypatch.setattr(sources, 'read', lambda source, texts: sources.Checkpoint(str(source), file, configuration))
        return backbones.load_weights(name, 'FILE', **asked)

    return load


def told(load: Load, *arguments, **asked) -> str:
    with pytest.raises(UserError) as caught:
        load(*arguments, **asked)
    return str(caught.value)


def test_clip_without_its_projection(load):
    clip = 'clip_vit_base_patch16'
    arguments = clip, 'transformers', 32, clip, {**NARROW, 'projected_channels': None}
    message = told(load, *arguments, image_size=32, **NARROW)
    assert message.endswith('; it has no projection: pass projected_channels=None')
    _, report = load(*arguments, image_size=32, projected_channels=None, **NARROW)
    assert not report.problems()


def test_clip_with_another_projection(load):
    clip = 'clip_vit_base_patch16'
    arguments = clip, 'clip', 32, clip, {**NARROW, 'projected_channels': 640}
    assert told(load, *arguments, image_size=32, **NARROW).endswith('pass projected_channels=640')
    _, report = load(*arguments, image_size=32, projected_channels=640, **NARROW)
    assert not report.problems()


@pytest.mark.parametrize(
    'layout', ['dinov2', *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ('transformers', 'timm'))]
)
def test_dinov2_saved_at_another_grid(load, layout: str):
    arguments = 'dinov2_small', layout, 14, 'dinov2_small', {**NARROW, 'position_grid': 16}
    message = told(load, *arguments, **NARROW)
    expected = 'its positions are a grid of 16x16: pass position_grid=16, or position_grid=None and image_size=224'
    assert expected in message
    for options in ({'position_grid': 16}, {'position_grid': None, 'image_size': 224}):
        _, report = load(*arguments, **NARROW, **options)
        assert not report.problems()
        assert not report.reshaped
    _, report = load(*arguments, **NARROW, position_grid=None, image_size=70)
    assert [(file[1], ours[1]) for _, file, ours in report.reshaped] == [(257, 26)]


def test_another_patch(load):
    message = told(load, 'vit_tiny_patch32', 'timm', 384, 'vit_tiny_patch16', {}, image_size=384)
    assert message.endswith('; its patches are of 32 pixels: load it into vit_tiny_patch32')
    message = told(load, 'clip_vit_base_patch16', 'clip', 32, 'clip_vit_base_patch16', {'patch': 32})
    assert 'its patches are of 32 pixels: pass patch=32' in message


def test_registers(load):
    message = told(load, 'dinov2_small_reg', 'transformers', 14, 'dinov2_small', {})
    assert message.endswith('; it has 4 registers: load it into dinov2_small_reg')
    message = told(load, 'dinov2_small', 'transformers', 14, 'dinov2_small_reg', {})
    assert message.endswith('; it has no registers: load it into dinov2_small')


def test_a_normalisation_after_the_pooling(load):
    pooled = {'pooling': 'average', 'norm_after_pooling': True}
    arguments = 'vit_tiny_patch16', 'timm', 32, 'vit_tiny_patch16', pooled
    message = told(load, *arguments)
    assert message.endswith("it normalises what it has pooled: pass pooling='average', norm_after_pooling=True")
    _, report = load(*arguments, image_size=32, **pooled)
    assert not report.problems()


def test_distillation_token(load):
    distilled = 'deit_tiny_distilled_patch16'
    message = told(load, distilled, 'timm', 224, 'deit_tiny_patch16', {})
    assert message.endswith(f'; it has a distillation token: load it into {distilled}')
    message = told(load, 'deit_tiny_patch16', 'timm', 224, distilled, {})
    assert message.endswith('it has no distillation token: load it into vit_tiny_patch16 or deit_tiny_patch16')


def test_channels_of_the_images(load):
    arguments = 'resnet_micro', 'torchvision', 32, 'resnet_micro', {}
    assert told(load, *arguments, image_channels=1).endswith('it is for images of 1 channels: pass input_channels=1')
    _, report = load(*arguments, image_channels=1, input_channels=1)
    assert not report.problems()


def test_auxiliary_heads_of_other_classes(load):
    arguments = 'googlenet', 'torchvision', 64, 'googlenet', {'auxiliary_classes': 9}
    message = told(load, *arguments, classes=9, auxiliary_classes=7)
    assert 'pass auxiliary_classes=9, or 0 for no auxiliary heads' in message


# --- Files for images of another size, without a configuration that says so. -----------------------------------------

DEEP = {'depths': (1, 1, 1, 1)}


@pytest.mark.parametrize(
    ('name', 'layout', 'made_for', 'options', 'grid', 'ours'),
    [
        ('vit_tiny_patch16', 'timm', 384, {}, 24, 224),
        pytest.param('vit_tiny_patch16', 'big_vision', 160, {}, 10, 224, marks=pytest.mark.exhaustive),
        pytest.param('vit_small_patch32', 'torchvision', 384, {}, 12, 224, marks=pytest.mark.exhaustive),
        pytest.param('deit_tiny_distilled_patch16', 'timm', 384, {}, 24, 224, marks=pytest.mark.exhaustive),
        ('siglip_vit_base_patch16', 'transformers', 256, {}, 16, 224),
        pytest.param('clip_vit_base_patch16', 'clip', 384, {}, 24, 224, marks=pytest.mark.exhaustive),
        pytest.param('dinov2_small', 'dinov2', 224, {'position_grid': None}, 16, 518, marks=pytest.mark.exhaustive),
        ('dinov2_small_reg', 'dinov2', 224, {'position_grid': None}, 16, 518),
        ('vit_micro', 'native', 16, {}, 4, 32),
    ],
)
def test_a_bare_file_for_another_size(load, name, layout, made_for, options, grid, ours):
    options = {**NARROW, **options}
    arguments = name, layout, made_for, name, options
    expected = (
        f'its positions are a grid of {grid}x{grid}, for images of {made_for} pixels where ours are {ours} '
        f'(pass image_size={made_for}, or image_size={ours} to have them resampled)'
    )
    assert told(load, *arguments, **options).endswith(expected)
    _, report = load(*arguments, image_size=made_for, **options)
    assert not report.reshaped
    _, report = load(*arguments, image_size=ours, **options)
    assert [path for path, *_ in report.reshaped] == ['params/backbone/position_embedding']
    with pytest.warns(UserWarning, match=re.escape(expected)):
        _, report = load(*arguments, strict=False, **options)
    assert report.differences == (expected,)


@pytest.mark.parametrize('name', ['vit_tiny_patch16', 'deit_tiny_distilled_patch16', 'dinov2_small', 'swin_tiny'])
def test_a_bare_file_for_the_size_of_the_backbone(load, name):
    options = DEEP if name == 'swin_tiny' else NARROW
    _, report = load(name, 'timm', backbones.info(name).image_size, name, options, **options)
    assert not report.reshaped
    assert not report.problems()


def test_a_size_that_the_configuration_says_is_told_once(load):
    configuration = {
        'architecture': 'vit_tiny_patch16_384',
        'pretrained_cfg': {'input_size': [3, 384, 384], 'mean': [0.5] * 3, 'std': [0.5] * 3, 'crop_pct': 1.0},
    }
    arguments = 'vit_tiny_patch16', 'timm', 384, 'vit_tiny_patch16', {}
    message = told(load, *arguments, configuration=configuration)
    assert message.count('image_size=384') == 1
    assert 'its configuration is for images of 384 pixels where ours are 224' in message
    # A configuration that says the size of the backbone does not make the positions fit.
    configuration['pretrained_cfg']['input_size'] = [3, 224, 224]
    assert 'its positions are a grid of 24x24' in told(load, *arguments, configuration=configuration)


def test_a_bare_file_for_another_window(load):
    arguments = 'swin_tiny', 'timm', 96, 'swin_tiny', {'window': 12, **DEEP}
    message = told(load, *arguments, **DEEP)
    assert message.endswith(
        'its relative positions are those of windows of 12x12 patches where ours are 7x7 '
        '(pass window=12, or window=7 to have them resampled)'
    )
    _, report = load(*arguments, window=12, **DEEP)
    assert not report.reshaped
    for asked in ({'window': 7}, {'image_size': 96}):
        _, report = load(*arguments, **asked, **DEEP)
        assert len(report.reshaped) == 4


@pytest.mark.parametrize(
    ('window', 'windows', 'made_for'),
    [(7, (7, 7, 7, 5), 160), (7, (7, 7, 4, 2), 64), (12, (12, 12, 12, 7), None), (7, (12, 12, 12, 7), None)],
)
def test_windows_that_shrank_with_the_images(window, windows, made_for):
    """As timm builds a Swin for small images: its windows are never larger than the map."""
    module = backbones.create('swin_tiny', window=window)
    reshaped = [
        (
            f'params/backbone/stage{stage}/block1/attention/relative_position_bias_table',
            ((2 * side - 1) ** 2, 3),
            ((2 * window - 1) ** 2, 3),
        )
        for stage, side in enumerate(windows, start=1)
        if side != window
    ]
    lines = compatibility.resampled(module, reshaped, (224, 224), ())
    if made_for:
        assert lines == [
            f'its relative positions are those of a map of {windows[3]}x{windows[3]} in stage 4, for images of '
            f'{made_for} pixels where ours are 224 (pass image_size={made_for}, or image_size=224 to have them '
            'resampled)'
        ]
        assert not compatibility.resampled(module, reshaped, (224, 224), ('image_size',))
    elif window == 12:
        assert not lines  # the last map of images of 224 pixels is 7x7
        (line,) = compatibility.resampled(module, reshaped, (384, 384), ())
        assert 'a map of 7x7 in stage 4, for images of 224 pixels where ours are 384' in line
    else:
        assert lines == [
            'its relative positions are those of windows of 12x12 patches where ours are 7x7 '
            '(pass window=12, or window=7 to have them resampled)'
        ]
        assert not compatibility.resampled(module, reshaped, (224, 224), ('window',))


# --- Oblong images. ---------------------------------------------------------------------------------------------------


def test_positions_for_oblong_images(load):
    arguments = 'vit_micro', 'timm', 32, 'vit_micro', {}
    variables, report = load(*arguments, image_size=(24, 40))
    assert [(file[1], ours[1]) for _, file, ours in report.reshaped] == [(65, 61)]
    features = jax.eval_shape(backbones.create('vit_micro').apply, variables, np.zeros((1, 24, 40, 3), np.float32))
    assert features.stages['stage4'].shape == (1, 6, 10, 96)


def test_an_oblong_grid_of_a_square_number_keeps_the_square_one(load):
    """A table of 4x16 positions could not be told from one of 8x8, which the call would resample."""
    arguments = 'vit_micro', 'timm', 48, 'vit_micro', {}
    assert 'pass position_grid=12, which keeps them' in told(load, *arguments, image_size=(16, 64))
    variables, report = load(*arguments, image_size=(16, 64), position_grid=12)
    assert not report.reshaped
    assert variables['params']['position_embedding'].shape == (1, 145, 96)
