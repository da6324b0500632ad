"""Torchvision's files of whole segmenters: read strictly, written back, and what a user sees where they do not fit."""

import json
from pathlib import Path

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from PIL import Image
from safetensors.numpy import load_file, save_file

import backbones
from backbones import UserError, published_models
from backbones.heads.deeplabv3 import DeepLabV3Head
from backbones.heads.segmentation import FCNHead
from backbones.model import Model
from backbones.preprocessing import TORCHVISION_SEGMENTER
from tests.backbones.test_segmentation_heads import HEADS, narrow
from tests.parity.segmentation import cases
from tests.parity.segmentation.comparing import stored


def file_of(name: str) -> dict[str, np.ndarray]:
    """Torchvision's narrow segmenter."""
    return cases.state(json.loads(stored(name)['shapes'].tobytes()))


@pytest.fixture(scope='module', params=HEADS)
def case(request, tmp_path_factory) -> tuple[str, Path, Model]:
    """The name of a head, a file, and the model that takes it."""
    path = tmp_path_factory.mktemp('segmenter') / 'weights.safetensors'
    save_file(file_of(request.param), path)
    return request.param, path, narrow(HEADS[request.param]())


def assert_same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert left.keys() == right.keys()
    for key in left:
        np.testing.assert_array_equal(left[key], right[key], err_msg=key)


def test_a_segmenters_file_is_read_whole_and_comes_back(case, tmp_path):
    name, path, model = case
    variables, report = backbones.load_weights('resnet50', path, model=model)
    assert (report.layout, report.problems(), report.unused) == ('torchvision', [], ())
    assert report.preprocessing == TORCHVISION_SEGMENTER
    assert set(variables['params']) == {'backbone', 'head'}
    backbones.save_weights(tmp_path / 'back.safetensors', variables, 'torchvision', 'resnet50', model=model)
    assert_same(load_file(tmp_path / 'back.safetensors'), file_of(name))
    native = tmp_path / 'native.safetensors'
    backbones.save_weights(native, variables)
    again, report = backbones.load_weights('resnet50', native, model=model)
    assert report.layout == 'native'
    assert_same(flatten_dict(again, sep='/'), flatten_dict(variables, sep='/'))


def test_wrappers_and_one_network_of_several_are_found(case, tmp_path):
    name, path, model = case
    expected, _ = backbones.load_weights('resnet50', path, model=model)
    wrapped = {f'module.{key}': array for key, array in file_of(name).items()}
    save_file(wrapped, tmp_path / 'wrapped.safetensors')
    variables, _ = backbones.load_weights('resnet50', tmp_path / 'wrapped.safetensors', model=model)
    assert_same(flatten_dict(variables, sep='/'), flatten_dict(expected, sep='/'))
    two = {f'{each}.{key}': array for key, array in file_of(name).items() for each in ('model', 'ema')}
    save_file(two, tmp_path / 'two.safetensors')
    variables, _ = backbones.load_weights('resnet50', tmp_path / 'two.safetensors', model=model, prefix='ema')
    assert_same(flatten_dict(variables, sep='/'), flatten_dict(expected, sep='/'))


def test_the_backbone_of_a_segmenter_is_read_alone(case):
    _, path, model = case
    whole, _ = backbones.load_weights('resnet50', path, model=model)
    alone, report = backbones.load_weights('resnet50', path, **cases.NARROW)
    assert_same(
        flatten_dict(alone, sep='/'),
        flatten_dict({kind: tree['backbone'] for kind, tree in whole.items()}, sep='/'),
    )
    assert not report.problems()
    assert {key.partition('.')[0] for key in report.dropped} >= {'classifier', 'aux_classifier'}
    head, _ = backbones.load_weights('resnet50', path, model=model, parts=('head',))
    assert set(head['params']) == {'head'}


def test_a_file_without_an_auxiliary_head(case, tmp_path):
    """It fits a model without one; a file with one does, too."""
    name, path, model = case
    without = {key: array for key, array in file_of(name).items() if not key.startswith('aux_')}
    file = tmp_path / 'without.safetensors'
    save_file(without, file)
    with pytest.raises(
        UserError, match=r'head/auxiliary/.* is missing .*; it has no auxiliary head: make the model with'
    ):
        backbones.load_weights('resnet50', file, model=model)
    plain = narrow(HEADS[name](auxiliary=False))
    expected, _ = backbones.load_weights('resnet50', file, model=plain)
    variables, report = backbones.load_weights('resnet50', path, model=plain)
    assert {key for key in report.dropped if not key.endswith('num_batches_tracked')} == {
        key for key in file_of(name) if key.startswith('aux_') and not key.endswith('num_batches_tracked')
    }
    assert_same(flatten_dict(variables, sep='/'), flatten_dict(expected, sep='/'))
    backbones.save_weights(tmp_path / 'back.safetensors', variables, 'torchvision', 'resnet50', model=plain)
    assert_same(load_file(tmp_path / 'back.safetensors'), without)


@pytest.mark.parametrize(
    ('name', 'head', 'message'),
    [
        (
            'fcn',
            FCNHead(7),
            r'\[5\] in the file and \[7\] in the .*; it has 5 classes: make the model with num_classes=5',
        ),
        ('fcn', DeepLabV3Head(5, channels=16), "classifier.0.weight belongs to an FCN; make the model with head='fcn'"),
        ('deeplabv3', FCNHead(5), "belongs to a DeepLabv3; make the model with head='deeplabv3'"),
    ],
)
def test_a_file_of_another_head_is_refused(name, head, message, tmp_path):
    save_file(file_of(name), tmp_path / 'weights.safetensors')
    with pytest.raises(UserError, match=message):
        backbones.load_weights('resnet50', tmp_path / 'weights.safetensors', model=narrow(head))


def test_a_classifiers_file_is_no_segmenters(tmp_path):
    backbone = {
        key.removeprefix('backbone.'): array for key, array in file_of('fcn').items() if 'classifier' not in key
    }
    save_file(backbone, tmp_path / 'backbone.safetensors')
    with pytest.raises(UserError):
        backbones.load_weights('resnet50', tmp_path / 'backbone.safetensors', model=narrow(FCNHead(5)))
    # What begins a training: the backbone alone, whatever its output stride.
    variables, report = backbones.load_weights(
        'resnet50', tmp_path / 'backbone.safetensors', **cases.NARROW, output_stride=8
    )
    assert not report.problems()
    assert set(variables['params']) == {'stem_conv', 'stem_norm', 'stage1', 'stage2', 'stage3', 'stage4'}


def test_a_segmenters_file_needs_no_model_where_it_is_taken_as_it_is(case, tmp_path):
    name, path, model = case
    expected, _ = backbones.load_weights('resnet50', path, model=model)
    variables, _ = backbones.load_weights('resnet50', path, parts=('backbone', 'head'), **cases.NARROW)
    assert_same(flatten_dict(variables, sep='/'), flatten_dict(expected, sep='/'))
    backbones.save_weights(tmp_path / 'back.safetensors', variables, 'torchvision', 'resnet50', **cases.NARROW)
    assert_same(load_file(tmp_path / 'back.safetensors'), file_of(name))


def test_published_segmenters_are_the_default_ones():
    for name in ('fcn_resnet50', 'fcn_resnet101', 'deeplabv3_resnet50', 'deeplabv3_resnet101'):
        head, _, backbone = name.partition('_')
        assert backbones.create_published(name) == backbones.create_segmenter(backbone, head)
        assert published_models.preprocessing_of(backbones.create_published(name)) == TORCHVISION_SEGMENTER


@pytest.mark.parametrize(('size', 'expected'), [((33, 50), (520, 787)), ((50, 33), (787, 520)), ((40, 40), (520, 520))])
def test_published_segmenters_see_the_whole_image_with_a_shorter_side_of_520(size, expected):
    """Pillow's antialiased bilinear interpolation, as torchvision's transform of a file calls it."""
    pixels = np.random.RandomState(0).randint(0, 256, (*size, 3), np.uint8)
    seen = TORCHVISION_SEGMENTER(pixels[None])
    assert seen.shape == (1, *expected, 3)
    resized = np.asarray(Image.fromarray(pixels).resize(expected[::-1], Image.Resampling.BILINEAR), np.float32)
    normalised = (resized / 255 - TORCHVISION_SEGMENTER.mean) / TORCHVISION_SEGMENTER.std
    np.testing.assert_allclose(seen[0], normalised, atol=1.01 / 255 / 0.224)
    # One level off is a tie: rare, where a wrong rounding is everywhere.
    assert np.mean(np.abs(seen[0] - normalised) > 1e-5) < 0.01


def test_files_of_several_proportions_make_no_batch():
    images = [Image.new('RGB', size) for size in ((60, 40), (40, 40))]
    with pytest.raises(UserError, match='several proportions, so their inputs are of 520x520 and 780x520 pixels'):
        TORCHVISION_SEGMENTER.files(images)
    assert TORCHVISION_SEGMENTER.files(images[:1]).shape == (1, 520, 780, 3)
