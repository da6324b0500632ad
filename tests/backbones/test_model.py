"""Backbone, neck and head as one model: its parameters, its files, and what of them can be loaded."""

from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import backbones
from backbones import UserError
from backbones.heads.classification import ClassificationHead
from backbones.layers.attention import Dense
from backbones.model import Model
from backbones.pretrained.save import to_layout

IMAGES = np.random.default_rng(0).standard_normal((4, 32, 32, 3), np.float32)
NARROW = {'channels': 24, 'depth': 4, 'heads': 3}


class Neck(nn.Module):
    """The deepest map, brought to a few channels and normalised."""

    @nn.compact
    def __call__(self, features: backbones.Features, train: bool = False) -> jax.Array:
        deepest = nn.Dense(5, name='lateral')(list(features.stages.values())[-1])
        return nn.BatchNorm(use_running_average=not train, name='norm')(deepest)


class MapHead(nn.Module):
    """A dense head on what the neck returns."""

    @nn.compact
    def __call__(
        self, features: backbones.Features, maps: jax.Array, size: tuple[int, int], train: bool = False
    ) -> jax.Array:
        return nn.Dense(3, name='predict')(maps) + features.pooled.mean()


def filled(model: nn.Module, seed: int = 0) -> dict:
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    return jax.tree.map(lambda leaf: random.uniform(0.5, 1, leaf.shape).astype(np.float32), shapes)


def flat(variables) -> dict[str, np.ndarray]:
    return flatten_dict(variables, sep='/')


def assert_same(left, right) -> None:
    left, right = flat(left), flat(right)
    assert left.keys() == right.keys()
    for path in left:
        np.testing.assert_array_equal(left[path], right[path], err_msg=path)


@pytest.fixture(scope='module')
def dense_model() -> Model:
    return Model(backbones.create('resnet_micro'), Neck(), MapHead())


@pytest.fixture(scope='module')
def dense_file(dense_model, tmp_path_factory) -> tuple[Path, dict]:
    path, variables = tmp_path_factory.mktemp('model') / 'model.safetensors', filled(dense_model)
    backbones.save_weights(path, variables)
    return path, variables


# --- The module. ------------------------------------------------------------------------------------------------------


def test_a_neck_comes_between_backbone_and_head(dense_model, dense_file):
    _, variables = dense_file
    assert {kind: set(tree) for kind, tree in variables.items()} == {
        'params': {'backbone', 'neck', 'head'},
        'batch_stats': {'backbone', 'neck'},
    }
    features = dense_model.backbone.apply({kind: tree['backbone'] for kind, tree in variables.items()}, IMAGES)
    maps = Neck().apply({kind: tree['neck'] for kind, tree in variables.items()}, features)
    expected = MapHead().apply({'params': variables['params']['head']}, features, maps, IMAGES.shape[1:3])
    np.testing.assert_array_equal(dense_model.apply(variables, IMAGES), expected)


def test_a_classifier_is_a_model_without_a_neck():
    model = backbones.create_classifier('vit_micro', 7, **NARROW)
    assert isinstance(model, Model)
    assert (model.num_classes, model.neck) == (7, None)
    assert set(filled(model)['params']) == {'backbone', 'head'}
    assert backbones.create_classifier('vgg16', 7).head == ClassificationHead(7, dropout=0.5)
    assert backbones.create_classifier('vgg16', 7, dropout=0.1, dtype=jnp.bfloat16).head == ClassificationHead(
        7, dropout=0.1, dtype=jnp.bfloat16
    )


class Pooled(nn.Module):
    """As little of a backbone as a head can do with; it draws random numbers, too."""

    @nn.compact
    def __call__(self, images, train: bool = False) -> backbones.Features:
        pooled = nn.Dropout(0.2, deterministic=not train)(nn.Dense(16, name='dense')(images.mean((1, 2))))
        return backbones.Features(stages={}, pooled=pooled)


class FormerClassifier(nn.Module):
    """Dropout and a linear head in the model itself, as it was before a head was a module of its own."""

    backbone: nn.Module

    @nn.compact
    def __call__(self, images, train: bool = False):
        seen = nn.Dropout(0.5, deterministic=not train)(self.backbone(images, train=train).pooled)
        return Dense(7, nn.initializers.zeros, name='head')(seen)


def test_parameters_and_dropout_are_those_of_earlier_versions():
    models = FormerClassifier(Pooled()), Model(Pooled(), None, ClassificationHead(7, dropout=0.5))
    assert_same(*(model.init(jax.random.key(3), IMAGES) for model in models))
    variables = filled(models[0])
    outputs = [model.apply(variables, IMAGES, train=True, rngs={'dropout': jax.random.key(1)}) for model in models]
    np.testing.assert_array_equal(*outputs)
    assert (outputs[0] != models[1].apply(variables, IMAGES)).all()


def test_a_head_stands_alone():
    features = backbones.Features(stages={}, pooled=jnp.ones((2, 6)))
    head = ClassificationHead(3, dropout=0.5)
    variables = head.init(jax.random.key(0), features)
    assert jax.tree.map(jnp.shape, variables['params']) == {'kernel': (6, 3), 'bias': (3,)}
    dropped = head.apply(
        {'params': {'kernel': jnp.ones((6, 3)), 'bias': jnp.zeros(3)}},
        features,
        train=True,
        rngs={'dropout': jax.random.key(0)},
    )
    assert set(np.unique(dropped)) <= {0, 2, 4, 6, 8, 10, 12}
    assert (np.asarray(dropped) != 6).any()


# --- Its parts in files. ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'parts', [('backbone', 'neck', 'head'), ('head', 'backbone'), ('neck',), ('neck', 'head'), ('backbone', 'neck')]
)
def test_any_parts_of_a_file_of_ours(dense_file, parts):
    path, variables = dense_file
    loaded, report = backbones.load_weights('resnet_micro', path, parts=parts)
    expected = {kind: {part: tree[part] for part in parts if part in tree} for kind, tree in variables.items()}
    assert_same(loaded, {kind: tree for kind, tree in expected.items() if tree})
    assert report.layout == 'native'
    assert not report.problems()
    assert {each.split('/')[1] for each in report.unused} == {'backbone', 'neck', 'head'} - set(parts)


def test_the_backbone_alone_has_no_prefix(dense_file):
    path, variables = dense_file
    loaded, report = backbones.load_weights('resnet_micro', path)
    assert_same(loaded, {kind: tree['backbone'] for kind, tree in variables.items()})
    assert {each.split('/')[1] for each in report.unused} == {'neck', 'head'}


def test_a_part_is_saved_and_read_alone(dense_file, tmp_path: Path):
    whole, _ = dense_file
    loaded, _ = backbones.load_weights('resnet_micro', whole, parts=('neck', 'head'))
    path = tmp_path / 'part.safetensors'
    backbones.save_weights(path, loaded)
    assert_same(backbones.load_weights('resnet_micro', path, parts=('neck', 'head'))[0], loaded)
    with pytest.raises(UserError, match=r"holds no backbone; load what it holds with parts=\('neck', 'head'\)"):
        backbones.load_weights('resnet_micro', path)


def test_classifier_means_backbone_and_head(tmp_path: Path):
    path = tmp_path / 'classifier.safetensors'
    variables = filled(backbones.create_classifier('resnet_micro', 7))
    backbones.save_weights(path, variables)
    for options in (
        {'classifier': True},
        {'parts': ('backbone', 'head')},
        {'classifier': True, 'parts': ['head', 'backbone']},
    ):
        assert_same(backbones.load_weights('resnet_micro', path, **options)[0], variables)
    head, report = backbones.load_weights('resnet_micro', path, parts=('head',))
    assert_same(head, {'params': {'head': variables['params']['head']}})
    assert len(report.matched) == 2
    with pytest.raises(UserError, match=r"holds no neck; load what it holds with parts=\('backbone', 'head'\)"):
        backbones.load_weights('resnet_micro', path, parts=('backbone', 'neck'))


def test_the_head_of_a_published_file(tmp_path: Path):
    path = tmp_path / 'timm.safetensors'
    variables = filled(backbones.create_classifier('vit_micro', 7))
    backbones.save_weights(path, variables, 'timm')
    head, report = backbones.load_weights('vit_micro', path, parts=('head',))
    assert report.layout == 'timm'
    assert_same(head, {'params': {'head': variables['params']['head']}})


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'parts': ('backbones',)}, "unknown part of a model 'backbones'; did you mean 'backbone'"),
        ({'parts': ('backbone', 'heads')}, "unknown part of a model 'heads'; did you mean 'head'"),
        ({'parts': 'head'}, r"parts must name some of backbone, neck, head, .*, not 'head'"),
        ({'parts': ()}, r'parts must name some of .*, not \(\)'),
        ({'parts': ('head',), 'classifier': True}, r"not parts=\('head',\); leave one out"),
    ],
)
def test_parts_that_there_are_not(options: dict, message: str):
    with pytest.raises(UserError, match=message):
        backbones.load_weights('resnet_micro', 'bundled:resnet_micro', **options)


def test_an_incomplete_linear_head_is_named(tmp_path: Path):
    path = tmp_path / 'weights.safetensors'
    variables = filled(backbones.create_classifier('resnet_micro', 7))
    del variables['params']['head']['bias']
    backbones.save_weights(path, variables)
    with pytest.raises(UserError, match='params/head/bias is missing from the file'):
        backbones.load_weights('resnet_micro', path, parts=('head',))


def test_no_published_layout_has_a_place_for_a_neck(dense_file):
    _, variables = dense_file
    with pytest.raises(UserError, match='the torchvision layout has no place for batch_stats/neck/norm/mean'):
        to_layout(
            {path: leaf for path, leaf in flat(variables).items() if '/head/' not in path},
            'torchvision',
            'resnet_micro',
        )
