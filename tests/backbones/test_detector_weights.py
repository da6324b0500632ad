"""Files of whole detectors: what is read of them, what is written, and what is said where they do not fit."""

import json
from pathlib import Path

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

import backbones
from backbones.errors import UserError
from backbones.model import Model
from tests.parity.detection import cases, compare

CASES = {case.kind: case for case in cases.CASES}
FCOS, RETINANET, V2 = CASES


def arrays_of(kind: str) -> dict[str, np.ndarray]:
    """The state dictionary of torchvision's detector."""
    with np.load(CASES[kind].path) as stored:
        return cases.state_dict(CASES[kind], json.loads(str(stored['shapes'])))


def written(arrays: dict[str, np.ndarray], directory: Path) -> Path:
    file = directory / 'detector.safetensors'
    save_file(arrays, file)
    return file


def model_of(kind: str, head: str = '', neck_options=None, **options) -> Model:
    """The detector of a case, with some options changed."""
    case = CASES[kind]
    arguments = {**backbones.published_models.TABLE[kind].options, **case.arguments(), **cases.NARROW}
    arguments |= {'neck_options': {**arguments['neck_options'], **(neck_options or {})}}
    if head:
        arguments |= {'head': head, 'head_options': {}}
    return backbones.create_detector('resnet18', **{**arguments, **options})


def flat(variables) -> dict[str, np.ndarray]:
    return flatten_dict(variables, sep='/')


@pytest.mark.parametrize(
    'kind', [pytest.param(kind, marks=() if kind == FCOS else pytest.mark.exhaustive) for kind in CASES]
)
def test_parts_of_a_file_without_a_model(kind: str, tmp_path: Path):
    file = written(arrays_of(kind), tmp_path)
    whole, report = backbones.load_weights('resnet18', file, model=model_of(kind))
    assert report.layout == 'torchvision'
    assert set(whole['params']) == {'backbone', 'neck', 'head'}
    # The kind of the detector is recognised, and whatever numbers of channels and classes it has are taken.
    for parts in (('backbone', 'neck', 'head'), ('backbone', 'neck'), ('head',)):
        some, report = backbones.load_weights('resnet18', file, parts=parts, **cases.NARROW)
        assert not report.problems()
        expected = {path: each for path, each in flat(whole).items() if path.split('/')[1] in parts}
        assert flat(some).keys() == expected.keys()
        assert all(np.array_equal(each, expected[path]) for path, each in flat(some).items())
    backbone, _ = backbones.load_weights('resnet18', file, **cases.NARROW)
    of_the_model, _ = backbones.load_weights('resnet18', file, model=model_of(kind), parts=('backbone',))
    expected = {path.replace('/backbone/', '/', 1): each for path, each in flat(whole).items() if '/backbone/' in path}
    for found in (flat(backbone), flat(of_the_model)):
        assert found.keys() == expected.keys()
        assert all(np.array_equal(each, expected[path]) for path, each in found.items())


@pytest.mark.parametrize('kind', CASES)
def test_what_is_written_has_the_keys_of_the_reference(kind: str, tmp_path: Path):
    arrays = arrays_of(kind)
    variables, _ = backbones.load_weights('resnet18', written(arrays, tmp_path), model=model_of(kind))
    back = tmp_path / 'back.safetensors'
    # Neck and head of a published model need no model; one that was changed does.
    backbones.save_weights(back, variables, 'torchvision', 'resnet18', **cases.NARROW)
    again = load_file(back)
    assert {key: each.shape for key, each in again.items() if not key.endswith('num_batches_tracked')} == {
        key: each.shape for key, each in arrays.items() if not key.endswith('num_batches_tracked')
    }
    # Torchvision's FrozenBatchNorm2d ignores the counter that a BatchNorm2d needs.
    assert {key for key in again if key not in arrays} == (
        set() if kind == V2 else {key for key in again if key.endswith('num_batches_tracked')}
    )
    assert all(np.array_equal(again[key], each) for key, each in arrays.items())


def test_a_detector_with_other_depth_is_written_by_its_model(tmp_path: Path):
    model = model_of(RETINANET, head_options={'depth': 5})
    arrays = arrays_of(RETINANET)
    for tower in ('classification_head', 'regression_head'):
        for each in ('weight', 'bias'):
            arrays[f'head.{tower}.conv.4.0.{each}'] = arrays[f'head.{tower}.conv.3.0.{each}'] + 1
    variables, _ = backbones.load_weights('resnet18', written(arrays, tmp_path), model=model)
    back = tmp_path / 'back.safetensors'
    with pytest.raises(UserError, match='has no place for params/head/box_tower/conv5/bias'):
        backbones.save_weights(back, variables, 'torchvision', 'resnet18', **cases.NARROW)
    backbones.save_weights(back, variables, 'torchvision', 'resnet18', model=model)
    assert arrays.keys() <= load_file(back).keys()


@pytest.mark.parametrize('kind', [FCOS, RETINANET])
def test_older_files_of_torchvision(kind: str, tmp_path: Path):
    arrays = arrays_of(kind)
    older = {}
    for key, each in arrays.items():
        if key.startswith('backbone.fpn.') and '.0.' in key:
            key = f'{key.rpartition(".0.")[0]}.{key.rpartition(".")[2]}'
        if kind == RETINANET and '_head.conv.' in key:
            before, number, _, last = *key.rsplit('.', 3)[:2], *key.rsplit('.', 2)[1:]
            key = f'{before}.{2 * int(number)}.{last}'
        older[key] = each
    assert older.keys() != arrays.keys()
    expected, _ = backbones.load_weights('resnet18', written(arrays, tmp_path), model=model_of(kind))
    found, report = backbones.load_weights('resnet18', written(older, tmp_path), model=model_of(kind))
    assert not report.problems()
    assert all(np.array_equal(each, flat(expected)[path]) for path, each in flat(found).items())


def test_our_own_files_are_checked_too(tmp_path: Path):
    model = model_of(FCOS)
    variables, _ = backbones.load_weights('resnet18', written(arrays_of(FCOS), tmp_path), model=model)
    file = tmp_path / 'ours.safetensors'
    backbones.save_weights(file, variables)
    again, report = backbones.load_weights('resnet18', file, model=model)
    assert report.layout == 'native'
    assert all(np.array_equal(each, flat(variables)[path]) for path, each in flat(again).items())
    with pytest.raises(UserError, match=r'_tower/(conv|norm)4/\w+ in the file has no place in the model'):
        backbones.load_weights('resnet18', file, model=model_of(FCOS, head_options={'depth': 3}))


@pytest.mark.parametrize(
    ('kind', 'changes', 'message'),
    [
        (
            FCOS,
            {'num_classes': 9},
            r'class_logits/kernel is \[3, 3, 64, 5\] in the file and \[3, 3, 64, 9\] in the model',
        ),
        (FCOS, {'num_classes': 9}, r'its head has 5 classes: make the model with num_classes=5'),
        (RETINANET, {'num_classes': 2}, r'its head has 5 classes: make the model with num_classes=5'),
        (FCOS, {'head': 'retinanet'}, r"bbox_ctrness.* belongs to an FCOS; make the model with head='fcos'"),
        (RETINANET, {'head': 'fcos'}, r"belongs to a RetinaNet; make the model with head='retinanet'"),
        (V2, {'head': 'retinanet'}, r"with GroupNorm \(v2\); make the model with head_options=\{'norm': 'group'\}"),
        (RETINANET, {'head_options': {'norm': 'group'}}, r"make the model with head_options=\{'norm': 'none'\}"),
        (V2, {'neck_options': {'extra_from_stage': False}}, r"neck_options=\{'extra_from_stage': True\}"),
        (FCOS, {'neck_options': {'extra_from_stage': True}}, r"neck_options=\{'extra_from_stage': False\}"),
        (FCOS, {'neck_options': {'channels': 32}}, r"its neck has 64 channels: .*neck_options=\{'channels': 64\}"),
        (FCOS, {'neck_options': {'extra': 'none'}}, r'backbone.fpn.extra_blocks.p[67].\w+ in the file has no place'),
        (FCOS, {'head_options': {'depth': 3}}, r'_head\.conv\.\d+\.\w+ in the file has no place in the model'),
    ],
)
def test_what_does_not_fit_is_named_with_the_remedy(kind: str, changes: dict, message: str, tmp_path: Path):
    with pytest.raises(UserError, match=message):
        backbones.load_weights('resnet18', written(arrays_of(kind), tmp_path), model=model_of(kind, **changes))


def test_a_file_that_lacks_something(tmp_path: Path):
    arrays = arrays_of(FCOS)
    del arrays['head.regression_head.bbox_ctrness.bias']
    file = written(arrays, tmp_path)
    with pytest.raises(UserError, match='params/head/centerness/bias is missing from the file'):
        backbones.load_weights('resnet18', file, model=model_of(FCOS))
    backbones.load_weights('resnet18', file, model=model_of(FCOS), parts=('backbone', 'neck'))
    alone = {key: each for key, each in arrays.items() if key.startswith('backbone.body.')}
    with pytest.raises(UserError, match=r"holds no neck; load what it holds with parts=\('backbone',\)"):
        backbones.load_weights('resnet18', written(alone, tmp_path), model=model_of(FCOS))


def test_a_neck_of_more_levels_is_not_taken_for_one_of_fewer(tmp_path: Path):
    arrays = arrays_of(FCOS)
    for block in ('inner_blocks', 'layer_blocks'):
        for each in ('weight', 'bias'):
            arrays[f'backbone.fpn.{block}.3.0.{each}'] = arrays[f'backbone.fpn.{block}.2.0.{each}'] + 1
    file = written(arrays, tmp_path)
    with pytest.raises(UserError, match=r'backbone.fpn.\w+_blocks.3.0.\w+ in the file has no place in the model'):
        backbones.load_weights('resnet18', file, parts=('backbone', 'neck'), **cases.NARROW)
    # It is one for a model with that level, but for its shape.
    model = model_of(FCOS, neck_options={'strides': (4, 8, 16, 32)})
    with pytest.raises(UserError, match=r'neck/lateral2/kernel is \[1, 1, 24, 64\] in the file and \[1, 1, 12, 64\]'):
        backbones.load_weights('resnet18', file, model=model)


def test_a_model_must_have_the_backbone_and_the_parts(tmp_path: Path):
    file = written(arrays_of(FCOS), tmp_path)
    with pytest.raises(UserError, match='has a backbone of the kind ResNet, but vgg16 is a VGG'):
        backbones.load_weights('vgg16', file, model=model_of(FCOS))
    with pytest.raises(UserError, match='leave out epsilon, or make the model with them'):
        backbones.load_weights('resnet18', file, model=model_of(FCOS), epsilon=0.0)
    classifier = backbones.create_classifier('resnet18', 5)
    with pytest.raises(UserError, match="unknown part of this model 'neck'; valid choices: backbone, head"):
        backbones.load_weights('resnet18', file, model=classifier, parts=('neck',))


def test_a_classifier_is_read_into_its_model(tmp_path: Path):
    file = tmp_path / 'classifier.safetensors'
    name = 'resnet_micro'
    variables, _ = backbones.load_weights(name, 'bundled:resnet_micro')
    params = {'backbone': variables['params'], 'head': {'kernel': np.ones((128, 3)), 'bias': np.ones(3)}}
    statistics = {'backbone': variables['batch_stats']}
    backbones.save_weights(file, {'params': params, 'batch_stats': statistics}, 'torchvision', name)
    found, _ = backbones.load_weights(name, file, model=backbones.create_classifier(name, 3))
    assert found['params']['head']['kernel'].shape == (128, 3)
    with pytest.raises(UserError, match=r'params/head/kernel is \[128, 3\] in the file and \[128, 4\] in the model'):
        backbones.load_weights(name, file, model=backbones.create_classifier(name, 4))


def test_the_comparison_sees_a_wrong_epsilon(tmp_path: Path):
    # The published RetinaNet (v1) runs with an epsilon of 0, which no key of the file shows.
    with np.load(CASES[RETINANET].path) as stored:
        case, answers = CASES[RETINANET], dict(stored)
    model = model_of(RETINANET, epsilon=1e-5)
    variables = compare.loaded(case, json.loads(str(answers['shapes'])), model)
    outputs = model.apply(variables, compare.prepared(case)[0].images)
    theirs = answers['raw/p3/classes']
    assert np.abs(cases.sample(np.asarray(outputs['p3']['classes'])) - theirs).max() / np.abs(theirs).max() > 1e-4
