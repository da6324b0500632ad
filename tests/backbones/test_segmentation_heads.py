"""Segmentation heads against their references (tests/parity/segmentation), and on every backbone and neck."""

import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import backbones
from backbones import UserError, freezing
from backbones.assembly import SEGMENTATION_HEADS
from backbones.cnn.resnet import Bottleneck, ResNet
from backbones.cost import count_flops
from backbones.features import Features
from backbones.heads.deeplabv3 import ASPP, DeepLabV3Head
from backbones.heads.segmentation import FCNHead, LinearSegmentationHead
from backbones.heads.upernet import UPerNetHead
from backbones.losses import pixel_cross_entropy
from backbones.model import Model
from backbones.necks.levels import Level
from backbones.pretrained.keymaps import segmentation
from backbones.pretrained.keymaps.rules import KeyMap, Line, batch_norm_rules, convolution_rules, export
from tests.backbones import small_networks
from tests.backbones.test_registry import KINDS_OF_STAGES, OF_IMAGES, marked
from tests.parity import weights
from tests.parity.segmentation import cases
from tests.parity.segmentation.comparing import TOLERANCE, apply, deviation, stored, variables_of

HEADS = {
    'fcn': functools.partial(FCNHead, cases.CLASSES),
    'deeplabv3': functools.partial(DeepLabV3Head, cases.CLASSES, channels=16),
}


def narrow(head: nn.Module) -> Model:
    """The head on the narrow ResNet of the references, at an output stride of 8."""
    return Model(ResNet(Bottleneck, **cases.NARROW, output_stride=8), None, head)


def features() -> Features:
    maps = cases.maps()
    return Features(stages=maps, pooled=maps['stage4'].mean((1, 2)))


# --- Against the references. ------------------------------------------------------------------------------------------


def without_dropout(model: nn.Module, variables: dict, *args, **static) -> tuple[jax.Array, jax.Array]:
    """Logits and auxiliary logits in training mode, with statistics and dropout of inference."""
    mask = freezing.mask(variables['params'], ((r'(head/)?auxiliary/classifier/.*', 'trainable'), ('.*', 'frozen')))

    def no_dropout(call, args, kwargs, context):
        return args[0] if isinstance(context.module, nn.Dropout) else call(*args, **kwargs)

    @jax.jit
    def run(variables, *args):
        with freezing.inference_where_frozen(mask), nn.intercept_methods(no_dropout):
            return model.apply(variables, *args, **static, train=True, mutable=['auxiliary_logits'])

    with jax.default_matmul_precision('highest'):
        logits, sown = run(variables, *args)
    ((auxiliary,),) = flatten_dict(sown).values()
    return logits, auxiliary


@pytest.mark.parametrize('name', HEADS)
def test_a_segmenter_equals_torchvisions(name):
    """Odd images; the auxiliary head too, whose logits are sown in training."""
    reference = stored(name)
    model = narrow(HEADS[name]())
    variables = variables_of(reference, segmentation.torchvision(model), part='')
    logits, auxiliary = without_dropout(model, variables, cases.images())
    assert deviation(reference, {'logits': logits, 'auxiliary': auxiliary}) < TOLERANCE
    np.testing.assert_allclose(apply(model, variables, cases.images()), logits, atol=1e-5)


@pytest.mark.parametrize('name', HEADS)
def test_a_segmenter_comes_back_under_torchvisions_keys(name):
    shapes = json.loads(stored(name)['shapes'].tobytes())
    keymap = KeyMap(segmentation.torchvision(narrow(HEADS[name]())))
    arrays, homeless = export(flatten_dict(variables_of(stored(name), keymap.lines, part=''), sep='/'), keymap)
    assert not homeless
    expected = cases.state(shapes)
    assert arrays.keys() == expected.keys()
    for key, array in arrays.items():
        np.testing.assert_array_equal(array, expected[key], err_msg=key)


@pytest.mark.parametrize('name', ['fcn', pytest.param('deeplabv3', marks=pytest.mark.slow)])
def test_a_step_of_training_equals_torchvisions(name):
    """Loss with the auxiliary head's share, gradient of every parameter, running statistics."""
    reference = stored(f'{name}_training')
    options = {'dropout': 0.0}
    model = narrow(HEADS[name](**options))
    lines = segmentation.torchvision(model)
    variables = variables_of(stored(name), lines, part='', seed=1)
    images, labels = cases.images(cases.BATCH, seed=1), cases.labels(cases.BATCH)

    def no_dropout(call, args, kwargs, context):
        return args[0] if isinstance(context.module, nn.Dropout) else call(*args, **kwargs)

    def loss(params):
        with nn.intercept_methods(no_dropout):
            logits, state = model.apply(
                {**variables, 'params': params}, images, train=True, mutable=['batch_stats', 'auxiliary_logits']
            )
        ((auxiliary,),) = flatten_dict(state.pop('auxiliary_logits')).values()
        losses = pixel_cross_entropy(logits, labels) + model.head.auxiliary_weight * pixel_cross_entropy(
            auxiliary, labels
        )
        return losses.mean(), state

    with jax.default_matmul_precision('highest'):
        (value, state), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables['params'])
    np.testing.assert_allclose(value, reference['loss'], rtol=1e-6)
    exported, _ = export(flatten_dict({'params': gradient, **state}, sep='/'), KeyMap(lines))
    for kind in ('gradients', 'statistics'):
        expected = weights.unpacked(kind, reference)
        found = {key: weights.digest(key, np.asarray(exported[key])) for key in expected}
        key, error = weights.worst(expected, found)
        assert error < weights.TRAINING_TOLERANCE, (key, error)


def upernet_lines() -> list[Line]:
    lines: list[Line] = []

    def conv(key: str, path: str) -> None:
        lines.extend(
            [*convolution_rules(f'{key}.conv', f'{path}/conv'), *batch_norm_rules(f'{key}.batch_norm', f'{path}/norm')]
        )

    for index in range(4):
        conv(f'decode_head.psp_modules.{index}.1', f'head/pyramid_pooling/branch{index + 1}')
    conv('decode_head.bottleneck', 'head/pyramid_pooling/project')
    for index in range(3):
        conv(f'decode_head.lateral_convs.{index}', f'head/lateral{index + 2}')
        conv(f'decode_head.fpn_convs.{index}', f'head/output{index + 2}')
    conv('decode_head.fpn_bottleneck', 'head/project')
    conv('auxiliary_head.convs.0', 'head/auxiliary/conv')
    lines += convolution_rules('decode_head.classifier', 'head/classifier', bias=True)
    return lines + convolution_rules('auxiliary_head.classifier', 'head/auxiliary/classifier', bias=True)


def test_upernet_equals_that_of_transformers():
    """Also where the pyramid pooling's grids are finer than the map, of 4 by 3 positions."""
    reference = stored('upernet')
    levels = tuple(Level(number + 1, f'stage{number}') for number in range(1, 5))
    head = UPerNetHead(cases.CLASSES, levels, channels=12, auxiliary_channels=6)
    variables = variables_of(reference, upernet_lines(), part='head')
    logits, auxiliary = without_dropout(head, variables, features(), size=cases.SIZE)
    assert deviation(reference, {'logits': logits, 'auxiliary': auxiliary}) < TOLERANCE
    # A neck's maps are seen in place of the backbone's.
    maps = {level.name: features().stages[level.stage] for level in levels}
    seen = apply(head, variables, features(), maps, size=cases.SIZE)
    np.testing.assert_allclose(seen, logits, atol=1e-5)


@pytest.mark.parametrize('prefix', [0, 1])
def test_the_linear_head_sees_a_transformers_patches_after_the_final_norm(prefix):
    """BatchNorm, 1x1 convolution and interpolation, by hand."""
    rows, columns, channels = 3, 4, 6
    tokens = cases.noise('tokens', 2, prefix + rows * columns, channels)
    seen = Features({'stage4': jnp.zeros((2, rows, columns, channels))}, jnp.zeros((2, channels)), tokens)
    head = LinearSegmentationHead(cases.CLASSES)
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(cases.noise('head', *leaf.shape)) ** 2, head.init(jax.random.key(0), seen)
    )
    logits = head.apply(variables, seen)
    norm, statistics = variables['params']['norm'], variables['batch_stats']['norm']
    x = tokens[:, prefix:].reshape(2, rows, columns, channels)
    x = (x - statistics['mean']) / np.sqrt(statistics['var'] + 1e-5) * norm['scale'] + norm['bias']
    classifier = variables['params']['classifier']
    np.testing.assert_allclose(logits, x @ classifier['kernel'][0, 0] + classifier['bias'], rtol=2e-4, atol=1e-3)
    assert head.apply(variables, seen, None, (9, 9)).shape == (2, 9, 9, cases.CLASSES)


def test_the_linear_head_drops_whole_channels_of_an_image():
    head = LinearSegmentationHead(cases.CLASSES, dropout=0.5)
    seen = Features({'stage1': jnp.ones((4, 3, 3, 8))}, jnp.zeros((4, 8)))
    variables = head.init(jax.random.key(0), seen)
    logits, _ = head.apply(variables, seen, train=True, rngs={'dropout': jax.random.key(1)}, mutable=['batch_stats'])
    np.testing.assert_allclose(logits, np.broadcast_to(logits[:, :1, :1], logits.shape), atol=1e-6)
    assert np.ptp(logits[:, 0, 0], axis=0).max() > 1e-3


# --- What is assembled by default. ------------------------------------------------------------------------------------


def traced(model: nn.Module, height: int = 64, width: int = 96) -> tuple[jax.ShapeDtypeStruct, dict]:
    images = jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32)
    return jax.eval_shape(model.init_with_output, jax.random.key(0), images)


@pytest.mark.parametrize(
    ('name', 'head', 'params'),
    [
        ('resnet50', 'fcn', 35_322_218),
        ('resnet101', 'fcn', 54_314_346),
        ('resnet50', 'deeplabv3', 42_004_074),
        ('resnet101', 'deeplabv3', 60_996_202),
    ],
)
def test_parameters_are_those_of_torchvision_with_an_auxiliary_head(name, head, params):
    model = backbones.create_segmenter(name, head=head)
    assert model.backbone.stage_strides() == (4, 8, 8, 8)
    _, variables = traced(model)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables['params'])) == params


@pytest.mark.parametrize(('head', 'operations'), [('fcn', 152.717), ('deeplabv3', 178.722)])
def test_operations_are_those_that_torchvision_publishes(head, operations):
    """Its billions of multiply-adds at 520 pixels, which include the auxiliary head's, and no interpolation."""
    auxiliary = 65 * 65 * (9 * 1024 * 256 + 256 * 21)
    found = count_flops(backbones.create_segmenter('resnet50', head), 520) / 2 + auxiliary
    assert found / 1e9 == pytest.approx(operations, rel=1e-4)


@pytest.mark.parametrize(
    ('name', 'options', 'strides'),
    [
        ('resnet18', {}, (4, 8, 8, 8)),
        ('resnet18', {'output_stride': 16}, (4, 8, 16, 16)),
        ('resnet18', {'output_stride': None}, (4, 8, 16, 32)),
        ('resnet18', {'neck': 'fpn'}, (4, 8, 16, 32)),
        ('resnet18', {'head': 'upernet'}, (4, 8, 16, 32)),
        ('resnet_micro', {}, (1, 2, 4, 8)),
        ('mobilenet_v3_large', {}, (2, 4, 8, 16, 16)),
        ('mobilenet_v4_hybrid_medium', {}, (2, 4, 8, 8, 8)),
    ],
)
def test_a_head_of_one_map_has_a_dilated_backbone(name, options, strides):
    assert backbones.create_segmenter(name, **options).backbone.stage_strides() == strides


def test_paths_of_parameters_are_in_words():
    _, variables = traced(backbones.create_segmenter('resnet_micro', head='deeplabv3', num_classes=3))
    paths = set(flatten_dict(variables['params'], sep='/'))
    assert {
        'head/aspp/branch1/conv/kernel',
        'head/aspp/branch4/norm/scale',
        'head/aspp/pooling/conv/kernel',
        'head/aspp/project/conv/kernel',
        'head/conv/conv/kernel',
        'head/classifier/kernel',
        'head/auxiliary/conv/conv/kernel',
        'head/auxiliary/classifier/bias',
    } <= paths
    _, plain = traced(backbones.create_segmenter('resnet_micro', head='deeplabv3', head_options={'auxiliary': False}))
    assert 'auxiliary' not in plain['params']['head']


def test_what_cannot_be_assembled_is_refused():
    with pytest.raises(UserError, match="unknown segmentation head 'deeplab'; did you mean 'deeplabv3'"):
        backbones.create_segmenter('resnet18', head='deeplab')
    with pytest.raises(UserError, match="unknown option of the head fcn 'rates'"):
        backbones.create_segmenter('resnet18', head='fcn', head_options={'rates': (1,)})
    with pytest.raises(UserError, match='num_classes must be at least 1, not 0'):
        backbones.create_segmenter('resnet18', num_classes=0)
    for create in (backbones.create_segmenter, backbones.create_detector):
        with pytest.raises(UserError, match='text_micro reads texts, and segmenters and detectors need maps of images'):
            create('text_micro')
    with pytest.raises(UserError, match='there is no neck for the options'):
        backbones.create_segmenter('resnet18', neck_options={'channels': 8})
    with pytest.raises(UserError, match=r'rates of an ASPP are .*, not \(0, 6\)'):
        traced(backbones.create_segmenter('resnet_micro', 'deeplabv3', head_options={'rates': (0, 6)}))
    with pytest.raises(UserError, match='UPerNet needs levels'):
        UPerNetHead(3).init(jax.random.key(0), features())


@pytest.mark.parametrize('module', [ASPP(4), UPerNetHead(3, (Level(5, 'stage4'),), 4)])
def test_a_norm_of_one_value_refuses_to_train_on_one_image(module):
    """In inference, when frozen and while parameters are made, one image is enough."""
    seen = features() if isinstance(module, UPerNetHead) else features().stages['stage4']
    one = jax.tree.map(lambda x: x[:1], seen)
    variables = jax.eval_shape(module.init, jax.random.key(0), one)
    jax.eval_shape(module.apply, variables, one)

    def train(x):
        return module.apply(
            variables, x, train=True, rngs={'dropout': jax.random.key(0)}, mutable=['batch_stats', 'auxiliary_logits']
        )

    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), variables)
    jax.eval_shape(train, seen)
    with pytest.raises(UserError, match='cannot be trained on a batch of 1 image; take at least 2 images per micro-'):
        jax.eval_shape(train, one)
    with freezing.inference_where_frozen(freezing.mask(variables['params'], (('.*', 'frozen'),))):
        jax.eval_shape(train, one)


# --- Every backbone and neck. -----------------------------------------------------------------------------------------


def tiny(name: str) -> tuple[int, int]:
    """A small size of images that the backbone takes, not square."""
    return (56, 112) if getattr(backbones.create(name), 'patch', None) == 14 else (64, 96)


@pytest.mark.parametrize('name', marked(OF_IMAGES, KINDS_OF_STAGES))
def test_every_backbone_becomes_a_segmenter(name):
    height, width = tiny(name)
    logits, variables = traced(backbones.create_segmenter(name, 'fcn', 7, head_options={'channels': 8}), height, width)
    assert (logits.shape, logits.dtype) == ((2, height, width, 7), jnp.float32)
    assert set(variables['params']) == {'backbone', 'head'}


# One small model per family and kind of map.
FAMILIES = {
    'resnet_micro': {},
    'vit_micro': {'depth': 4, 'channels': 24},
    'swin_tiny': {'channels': 12, 'depths': (1, 1, 1, 1), 'heads': (1, 1, 1, 1), 'window': 2},
    'convnext_tiny': {'channels': (8, 8, 16, 16), 'depths': (1, 1, 1, 1)},
    'dinov3_convnext_tiny': {'channels': (8, 8, 16, 16), 'depths': (1, 1, 1, 1)},
    'convnextv2_atto': {'channels': (8, 8, 16, 16), 'depths': (1, 1, 1, 1)},
    'vgg16': {'depths': (1, 1, 1, 1, 1), 'hidden_channels': 8},
    'googlenet': {},
    'efficientnet_lite0': {},
    'mobilenet_v3_small': {},
    'mobilenet_v4_hybrid_medium': small_networks.MOBILENET_V4,
    'cspdarknet53': {'depths': (1, 1, 1, 1, 1)},
    'yolo11n': {},
}


@functools.cache
def gradients(name: str, head: str, neck: str | None = None) -> tuple[jax.Array, dict]:
    """The logits of one image size and the gradients of a step, both of one program."""
    options = {'auxiliary': True} if head != 'linear' else {}
    options |= {'channels': 8} if head != 'linear' else {}
    model = backbones.create_segmenter(
        name, head, 3, neck, {'channels': 8} if neck else None, options, **FAMILIES[name]
    )
    images = cases.noise('images', 2, 32, 48, 3)
    labels = jnp.asarray(np.random.RandomState(0).randint(0, 3, (2, 32, 48)))

    @jax.jit
    def run(key):
        variables = model.init(key, images)

        def loss(params):
            logits, state = model.apply(
                {**variables, 'params': params},
                images,
                train=True,
                rngs={'dropout': key},
                mutable=['batch_stats', 'auxiliary_logits'],
            )
            sown = jax.tree.leaves(state.get('auxiliary_logits', {}))
            assert len(sown) == (head != 'linear')
            return sum(pixel_cross_entropy(each, labels).mean() for each in (logits, *sown)), logits

        (_, logits), gradient = jax.value_and_grad(loss, has_aux=True)(variables['params'])
        return logits, gradient

    return run(jax.random.key(0))


@pytest.mark.parametrize(
    ('name', 'head', 'neck'),
    [
        ('resnet_micro', 'fcn', None),
        pytest.param('vit_micro', 'linear', None, marks=pytest.mark.slow),
        pytest.param('vit_micro', 'fcn', 'simple_pyramid', marks=pytest.mark.exhaustive),
        pytest.param('resnet_micro', 'deeplabv3', 'fpn', marks=pytest.mark.slow),
        pytest.param('vit_micro', 'upernet', None, marks=pytest.mark.slow),
        pytest.param('swin_tiny', 'fcn', None, marks=pytest.mark.exhaustive),
        pytest.param('convnext_tiny', 'upernet', None, marks=pytest.mark.exhaustive),
        pytest.param('dinov3_convnext_tiny', 'linear', None, marks=pytest.mark.exhaustive),
        pytest.param('swin_tiny', 'linear', 'pan', marks=pytest.mark.exhaustive),
        *(pytest.param(name, 'fcn', None, marks=pytest.mark.exhaustive) for name in list(FAMILIES)[3:]),
    ],
)
def test_a_segmenter_of_each_family_trains(name, head, neck):
    logits, gradient = gradients(name, head, neck)
    assert logits.shape == (2, 32, 48, 3)
    assert np.isfinite(logits).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    for part, leaves in gradient['head'].items():
        assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(leaves)), part


@pytest.mark.parametrize('head', SEGMENTATION_HEADS)
def test_a_head_on_a_neck_sees_its_finest_level(head):
    """The classifier's input has the neck's channels, and the auxiliary head that of the backbone's own stage."""
    model = backbones.create_segmenter('resnet_micro', head, 3, 'fpn', {'channels': 20})
    _, variables = traced(model)
    kernels = {path: leaf.shape for path, leaf in flatten_dict(variables['params']['head'], sep='/').items()}
    first = {'linear': 'classifier', 'fcn': 'conv/conv', 'deeplabv3': 'aspp/branch1/conv', 'upernet': 'lateral2/conv'}
    assert kernels[f'{first[head]}/kernel'][2] == 20
    if head != 'linear':
        assert kernels['auxiliary/conv/conv/kernel'][2] == 96
