"""Every backbone of the registry carries a detector and a segmenter: shapes of all, gradients in rotation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import backbones
from backbones.losses import pixel_cross_entropy
from backbones.model import Model
from tests.backbones.test_registry import OF_IMAGES, marked
from tests.backbones.test_registry import QUICK as SMALLEST_OF_EACH

CLASSES = 3
LARGEST = 60_000_000
CHANNELS = {'channels': 16}
NAMES = marked(OF_IMAGES, ('resnet_micro', 'vit_micro'))


def size(name: str) -> tuple[int, int]:
    """A small size of images that the backbone takes, not square."""
    return (56, 84) if getattr(backbones.create(name), 'patch', None) == 14 else (64, 96)


def neck_of(name: str) -> str:
    return 'simple_pyramid' if name in backbones.names('vit') else 'fpn'


def detector(name: str) -> Model:
    return backbones.create_detector(name, 'fcos', CLASSES, neck_of(name), CHANNELS, {'depth': 1})


def two_stages(name: str, neck: str | None) -> Model:
    options = {'channels': 16, 'features': 16, 'candidates': (60, 60), 'proposals': (40, 40)}
    return backbones.create_detector(name, 'faster_rcnn', CLASSES, neck, neck and CHANNELS, options)


def loss_of(model: Model, name: str):
    """A loss of images with and without objects, as a function of parameters."""
    height, width = size(name)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, height, width, 3)), jnp.float32)
    truth = {
        'boxes': jnp.asarray([[[4, 6, 40, 50], [30, 10, 30, 40]], [[0, 0, 0, 0]] * 2], jnp.float32),
        'classes': jnp.asarray([[1, 2], [-1, -1]]),
        'valid': jnp.ones(2),
    }
    labels = jnp.asarray(np.random.default_rng(1).integers(0, CLASSES, (2, height, width)))

    def loss(params: dict, rest: dict, images: jax.Array = images):
        outputs, _ = model.apply(
            {'params': params, **rest},
            images,
            train=True,
            rngs={'dropout': jax.random.key(0), 'sampling': jax.random.key(1)},
            mutable=['batch_stats', 'auxiliary_logits'],
            truth=truth,
        )
        if hasattr(model.head, 'losses'):
            return sum(part.mean() for part in model.head.losses(outputs, truth, (height, width)).values())
        return pixel_cross_entropy(outputs, labels).mean()

    return loss, images


@pytest.mark.parametrize('name', NAMES)
def test_every_backbone_becomes_a_detector(name):
    model = detector(name)
    loss, images = loss_of(model, name)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    outputs = jax.eval_shape(lambda variables: model.apply(variables, images, train=False), shapes)
    assert list(outputs) == ['p3', 'p4', 'p5', 'p6', 'p7']
    for level, maps in outputs.items():
        rows, columns = maps['classes'].shape[1:3]
        nominal = 2 ** int(level[1:])
        # A patch of 14 pixels counts as a stride of 16; strided levels round up.
        assert images.shape[1] / nominal / 1.2 <= rows <= images.shape[1] / nominal * 1.2 + 1
        assert maps['classes'].shape == (2, rows, columns, 1, CLASSES)
        assert maps['boxes'].shape == (2, rows, columns, 1, 4)
    params, rest = shapes['params'], {kind: tree for kind, tree in shapes.items() if kind != 'params'}
    gradients = jax.eval_shape(jax.grad(loss), params, rest)
    assert jax.tree.structure(gradients) == jax.tree.structure(params)


# With two stages, and without a neck.
NECKS = ('own', None)


@pytest.mark.parametrize('neck', NECKS)
@pytest.mark.parametrize('name', marked(SMALLEST_OF_EACH, ('resnet_micro',)))
def test_every_backbone_becomes_a_detector_of_two_stages(name, neck):
    model = two_stages(name, neck and neck_of(name))
    loss, images = loss_of(model, name)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    outputs = jax.eval_shape(lambda variables: model.apply(variables, images, train=False), shapes)
    assert list(outputs.anchors) == (['p2', 'p3', 'p4', 'p5', 'p6'] if neck else ['p4'])
    assert outputs.anchors['p4']['boxes'].shape[3:] == (3 if neck else 15, 4)
    assert outputs.boxes.shape == (2, 40, CLASSES + 1, 4)
    params, rest = shapes['params'], {kind: tree for kind, tree in shapes.items() if kind != 'params'}
    gradients = jax.eval_shape(jax.grad(loss), params, rest)
    assert jax.tree.structure(gradients) == jax.tree.structure(params)


@pytest.mark.parametrize(
    'name',
    [
        pytest.param(
            name, marks=pytest.mark.slow if name in ('resnet18', 'yolo26n', 'vit_micro') else pytest.mark.exhaustive
        )
        for name in SMALLEST_OF_EACH
    ],
)
def test_every_family_gets_finite_gradients_from_two_stages(name):
    check_gradients(two_stages(name, neck_of(name)), name)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ('kind', 'name'),
    [(kind, name) for kind in ('detector', 'segmenter', 'without a neck') for name in SMALLEST_OF_EACH],
)
def test_every_kind_of_backbone_gets_finite_gradients(kind, name):
    model = detector(name)
    if kind == 'segmenter':
        model = backbones.create_segmenter(name, 'fcn', CLASSES, neck_of(name), CHANNELS, CHANNELS)
    elif kind == 'without a neck':
        model = two_stages(name, None)
    check_gradients(model, name)


def check_gradients(model: Model, name: str):
    """They are finite and reach every part."""
    loss, images = loss_of(model, name)

    # Gradients of all parameters of a large one would take more memory than a test should.
    of_all = backbones.info(name).params < LARGEST

    @jax.jit
    def run(key):
        variables = model.init(key, images)
        rest = {collection: tree for collection, tree in variables.items() if collection != 'params'}
        return jax.value_and_grad(loss, argnums=0 if of_all else 2)(variables['params'], rest, images)

    value, gradients = run(jax.random.key(0))
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    for part in gradients if of_all else ():
        assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients[part])), part
    assert of_all or np.abs(gradients).max() > 0
