"""One-stage detectors: what torchvision answers (tests/parity/detection), and what no reference is asked."""

import json
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from detector_truth import SIZE, TRUTH
from flax.traverse_util import flatten_dict

import backbones
from backbones import published_models
from backbones.boxes.iou import extents_of
from backbones.boxes.nms import Detections
from backbones.errors import UserError
from backbones.heads.one_stage import best_of_level, focal_loss
from tests.parity.detection import cases, compare

KINDS = [case.kind for case in cases.CASES]


@cache
def stored(kind: str) -> dict[str, np.ndarray]:
    case = next(case for case in cases.CASES if case.kind == kind)
    with np.load(case.path) as file:
        return dict(file)


@pytest.mark.parametrize(
    'case',
    [
        pytest.param(case, id=case.kind, marks=[] if case.kind == 'fcos_resnet50_fpn' else [pytest.mark.slow])
        for case in cases.CASES
    ],
)
def test_a_detector_equals_the_reference(case: cases.Case):
    errors = compare.compare(case, stored(case.kind))
    print(case.kind, {name: f'{error:.1e}' for name, error in errors.items()})
    for name, error in errors.items():
        # Boxes in pixels; numbers and classes are equal; all else is relative.
        exact = name.endswith(('number', 'classes')) and name.startswith(('input/', 'image/', 'raw/'))
        limit = 0 if exact and 'loss' not in name else 1e-3 if name.endswith('/boxes') else 1e-5
        assert error <= limit, (name, error)


@pytest.mark.parametrize('kind', KINDS)
def test_published_models_have_the_published_number_of_parameters(kind: str):
    model, row = backbones.create_published(kind), published_models.TABLE[kind]
    variables = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32))
    sizes = {path: leaf.size for path, leaf in flatten_dict(variables['params'], sep='/').items()}
    norms = sum(size for path, size in sizes.items() if path.startswith('backbone/') and 'norm' in path)
    assert norms == 53_120
    assert sum(sizes.values()) - norms * row.frozen_norm == row.params


def test_published_models_are_what_a_detector_is_by_default():
    assert backbones.create_published('fcos_resnet50_fpn') == backbones.create_detector('resnet50', 'fcos', 91)
    assert backbones.create_published('retinanet_resnet50_fpn') == backbones.create_detector(
        'resnet50', 'retinanet', epsilon=0.0
    )
    with pytest.raises(UserError, match="unknown published model 'fcos_resnet50_fp'; did you mean 'fcos_resnet50_fpn'"):
        backbones.create_published('fcos_resnet50_fp')


@cache
def small(head: str, **options: Any):
    """A small detector on small images, and its variables."""
    model = backbones.create_detector(
        'resnet_micro',
        head,
        num_classes=3,
        neck_options={'channels': 16, 'strides': (4, 8), 'extra': 'none'},
        head_options={'depth': 1, 'channels': 24, 'max_detections': 20, **options},
    )
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *SIZE, 3)))
    return model, variables


@cache
def small_outputs(head: str) -> dict:
    """What a small detector answers to three images."""
    model, variables = small(head)
    return jax.jit(model.apply)(variables, np.random.RandomState(1).normal(size=(3, *SIZE, 3)).astype(np.float32))


HEADS = pytest.mark.parametrize(
    ('head', 'options'),
    [
        pytest.param('fcos', (), marks=pytest.mark.slow),
        ('retinanet', ()),
        pytest.param('retinanet', (('norm', 'group'), ('box_loss', 'giou')), marks=pytest.mark.exhaustive),
    ],
)
HEADS_ONCE = pytest.mark.parametrize(('head', 'options'), [('fcos', ()), ('retinanet', ())])


def test_no_distance_of_an_untrained_fcos_is_cut_off():
    """Below 0 the ReLU passes no gradient, and a distance that is there never comes back."""
    head = backbones.create_detector('resnet_micro', 'fcos', 3).head
    maps = {'p3': jax.random.normal(jax.random.key(0), (1, 4, 4, 256))}
    outputs, _ = head.init_with_output(jax.random.key(1), None, maps, (32, 32))
    assert (outputs['p3']['boxes'] > 0).all()


@HEADS
def test_gradients_are_finite_and_padding_does_not_count(head: str, options: tuple):
    model, variables = small(head, **dict(options))
    images = np.random.RandomState(0).normal(size=(3, *SIZE, 3)).astype(np.float32)

    @jax.jit
    @jax.value_and_grad
    def loss(params, truth):
        outputs = model.apply({**variables, 'params': params}, images)
        losses = model.head.losses(outputs, truth, SIZE)
        return sum(each.sum() for each in losses.values()) / jnp.maximum(truth['valid'].sum(), 1)

    value, gradient = loss(variables['params'], TRUTH)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert np.abs(gradient['head']['class_logits']['kernel']).max() > 0
    assert np.abs(gradient['head']['box_deltas']['kernel']).max() > 0
    # The object without an area is none, and neither is anything in the third row.
    without = {name: each.copy() for name, each in TRUTH.items()}
    without['classes'][0, 1] = without['classes'][2, :2] = -1
    assert float(loss(variables['params'], without)[0]) == float(value)
    # In a batch of padding alone, nothing is learned.
    nothing = {**TRUTH, 'valid': np.zeros(3, np.float32)}
    value, gradient = loss(variables['params'], nothing)
    assert float(value) == 0
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))


@HEADS_ONCE
def test_losses_of_a_batch_are_the_mean_over_its_valid_images(head: str, options: tuple):
    model, _ = small(head, **dict(options))
    losses = jax.jit(lambda outputs, truth: model.head.losses(outputs, truth, SIZE))
    outputs = small_outputs(head)
    whole = losses(outputs, TRUTH)
    first_two = losses(jax.tree.map(lambda each: each[:2], outputs), {name: each[:2] for name, each in TRUTH.items()})
    for name, each in whole.items():
        assert each.shape == (3,)
        assert each[2] == 0
        assert np.asarray(each[:2]) == pytest.approx(np.asarray(first_two[name]), rel=1e-6)
        # An image without objects teaches what is background, and nothing else.
        assert (float(each[1]) > 0) == (name == 'classes')


def test_a_level_of_a_detector_on_a_vision_transformer():
    model = backbones.create_detector(
        'vit_micro', num_classes=2, neck_options={'channels': 8}, head_options={'depth': 1, 'topk': 7}
    )
    shapes, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.zeros((2, 32, 32, 3)))
    assert {level: each['boxes'].shape for level, each in shapes.items()} == {
        'p3': (2, 4, 4, 1, 4),
        'p4': (2, 2, 2, 1, 4),
        'p5': (2, 1, 1, 1, 4),
        'p6': (2, 1, 1, 1, 4),
        'p7': (2, 1, 1, 1, 4),
    }
    maps = {level: jnp.ones((*each['boxes'].shape[:3], 8)) for level, each in shapes.items()}

    @jax.jit
    def detections(key):
        outputs, _ = model.head.init_with_output(key, None, maps, (32, 32))
        return model.head.detections(outputs, (32, 32))

    found = detections(jax.random.key(0))
    assert found.boxes.shape == (2, 100, 4)
    assert not found.valid.any()  # what begins with a probability of 0.01 is below every threshold


@pytest.mark.parametrize('head', ['fcos', 'retinanet'])
def test_detections_are_padded_sorted_and_inside(head: str):
    thorough = small(head)[0].head.clone(score_threshold=0.0)
    outputs = jax.tree.map(lambda each: each[:2], small_outputs(head))
    extents = jnp.array([[48.0, 50.0], [30.0, 64.0]])
    detect = jax.jit(lambda outputs, extents: thorough.detections(outputs, SIZE, extents))
    found: Detections = detect(outputs, extents)
    assert found.boxes.shape == (2, 20, 4)
    assert found.valid.all()
    assert (np.diff(found.scores) <= 0).all()
    assert (found.boxes >= 0).all()
    assert (found.boxes <= np.tile(extents[:, ::-1], 2)[:, None]).all()
    # Without extents, the boxes are clipped to the input.
    whole = jnp.broadcast_to(jnp.array(SIZE, jnp.float32), (2, 2))
    assert extents_of(2, SIZE, None).tolist() == whole.tolist()
    assert float(detect(outputs, whole).boxes[1, :, 3].max()) > 30


def test_what_a_head_refuses():
    with pytest.raises(UserError, match="unknown norm of the head 'batch'"):
        small('fcos', norm='batch')
    with pytest.raises(UserError, match="unknown box_loss of the head 'huber'"):
        small('retinanet', box_loss='huber')
    with pytest.raises(UserError, match='depth of the head must be at least 0, not -1'):
        small('fcos', depth=-1)
    head = backbones.create_detector('resnet_micro').head
    backbone = backbones.create('resnet_micro')
    with pytest.raises(UserError, match="needs a neck, which gives it levels such as 'p3'"):
        jax.eval_shape(backbones.model.Model(backbone, None, head).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    with pytest.raises(UserError, match="unknown detection head 'fcoss'; did you mean 'fcos'"):
        backbones.create_detector('resnet50', 'fcoss')


def test_the_best_pairs_of_a_level_are_those_of_a_full_sort():
    scores = np.random.RandomState(0).randint(0, 12, (40, 6)).astype(np.float32) / 12
    best, anchors, classes = best_of_level(jnp.asarray(scores), 0.3, 25)
    order = np.argsort(-scores.ravel(), kind='stable')[:25]
    assert best.tolist() == scores.ravel()[order].tolist()
    assert scores[anchors, classes].tolist() == best.tolist()
    assert len(set(zip(anchors.tolist(), classes.tolist(), strict=True))) == 25
    assert best_of_level(jnp.asarray(scores), 0.95, 1000)[0].shape == (240,)
    assert not best_of_level(jnp.asarray(scores), 0.95, 1000)[0].any()


def test_focal_loss_of_confident_predictions():
    # By hand: 0.25 * 0.1**2 * -log(0.9) for the class that is there, 0.75 * 0.2**2 * -log(0.8) for the other.
    logits = jnp.log(jnp.array([0.9 / 0.1, 0.2 / 0.8]))
    expected = 0.25 * 0.1**2 * -np.log(0.9) + 0.75 * 0.2**2 * -np.log(0.8)
    assert float(focal_loss(logits, jnp.array(0))) == pytest.approx(expected, rel=1e-5)
    assert float(focal_loss(jnp.array([200.0, -200.0]), jnp.array(0))) == 0
    assert np.isfinite(jax.grad(lambda logits: focal_loss(logits, jnp.array(-1)))(jnp.array([200.0, -200.0]))).all()


def test_shapes_are_stored_with_the_references():
    for kind in KINDS:
        shapes = json.loads(str(stored(kind)['shapes']))
        counters = any(key.endswith('num_batches_tracked') for key in shapes)
        assert counters != published_models.TABLE[kind].frozen_norm
