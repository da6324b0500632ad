"""YOLO11 and YOLO26 as detectors: what ultralytics answers (tests/parity/yolo), and what no reference is asked."""

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
from backbones.boxes.ciou import ciou
from backbones.boxes.iou import iou
from backbones.boxes.task_aligned import assign_by_alignment
from backbones.errors import UserError
from backbones.heads.yolo_losses import distribution_loss
from backbones.heads.yolo_points import points_of
from tests.parity.yolo import cases, compare

# One of each version and the small ones after it.
CASES = {case.kind: case for case in cases.CASES}
YOLO11, YOLO26, *_ = CASES


@cache
def stored(kind: str) -> dict[str, np.ndarray]:
    with np.load(CASES[kind].path) as file:
        return dict(file)


def flat(variables) -> dict[str, np.ndarray]:
    return flatten_dict(variables, sep='/')


@pytest.mark.parametrize(
    'kind',
    [
        YOLO26,
        pytest.param(YOLO11, marks=pytest.mark.slow),
        *(pytest.param(kind, marks=pytest.mark.exhaustive) for kind in list(CASES)[2:]),
    ],
)
def test_a_detector_equals_the_reference(kind: str):
    errors = compare.compare(CASES[kind], stored(kind))
    print(kind, {name: f'{error:.1e}' for name, error in errors.items()})
    for name, error in errors.items():
        what = name.rpartition('/')[2]
        detected = name.removeprefix('given/').startswith(('best', 'several', 'suppressed'))
        exact = detected and what in ('number', 'classes')
        in_pixels = 'decoded' in name or (detected and what == 'boxes')
        assert error <= (0 if exact else 2e-3 if in_pixels else 1e-5), (name, error)


@pytest.mark.parametrize(
    'kind',
    [
        pytest.param(name, marks=() if name in (YOLO11, YOLO26) else pytest.mark.exhaustive)
        for name in published_models.TABLE
        if name.startswith('yolo')
    ],
)
def test_published_models_have_the_published_number_of_parameters(kind: str):
    model, row = backbones.create_published(kind), published_models.TABLE[kind]
    variables = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32))
    size = sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
    # The numbers of YOLO11's bins are parameters of the reference.
    assert size + (16 if kind.startswith('yolo11') else 0) == row.params
    assert row.input == backbones.preprocessing.YOLO


def test_the_head_of_yolo11_has_a_name():
    arguments = 'vit_micro', 'yolo', 3, 'yolo_pan', None, {'bins': 16, 'branches': 'one_to_many'}
    assert backbones.create_detector('vit_micro', 'yolo11', 3, 'yolo_pan') == backbones.create_detector(*arguments)


VERSIONS = {
    'end_to_end': ({}, 'one_to_one_'),
    'distribution': ({'bins': 8, 'branches': 'one_to_many'}, ''),
}


@cache
def small(backbone: str, version: str, neck: str):
    """A small detector on small images, and its variables."""
    options: dict[str, Any] = {'channels': 16, 'strides': (4, 8)}
    # Deeper blocks are those of the reference, above.
    options |= {'nested': False, 'attention': False} if neck == 'yolo_pan' else {'extra': 'none'}
    head = {'depth': 1, 'max_detections': 20, **VERSIONS[version][0]}
    model = backbones.create_detector(backbone, 'yolo', 3, neck, options, head)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *SIZE, 3)))
    return model, variables


@pytest.mark.slow
@pytest.mark.parametrize(
    ('backbone', 'version', 'neck'),
    [
        ('resnet_micro', 'end_to_end', 'yolo_pan'),
        pytest.param('vit_micro', 'distribution', 'fpn', marks=pytest.mark.exhaustive),
        pytest.param('vit_micro', 'end_to_end', 'yolo_pan', marks=pytest.mark.exhaustive),
        pytest.param('efficientnet_lite0', 'end_to_end', 'pan', marks=pytest.mark.exhaustive),
        pytest.param('efficientnet_lite0', 'end_to_end', 'yolo_pan', marks=pytest.mark.exhaustive),
    ],
)
def test_gradients_are_finite_and_padding_does_not_count(backbone: str, version: str, neck: str):
    model, variables = small(backbone, version, neck)
    images = np.random.RandomState(0).normal(size=(3, *SIZE, 3)).astype(np.float32)

    @jax.jit
    @jax.value_and_grad
    def loss(params, truth):
        outputs, _ = model.apply(
            {**variables, 'params': params}, images, True, rngs={'dropout': jax.random.key(0)}, mutable=['batch_stats']
        )
        losses = model.head.losses(outputs, truth, SIZE)
        return sum(each.sum() for each in losses.values()) / jnp.maximum(truth['valid'].sum(), 1)

    value, gradient = loss(variables['params'], TRUTH)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    for part in ('backbone', 'neck', 'head'):
        assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient[part])), part
    # The object without an area is none, and neither is anything in the third row.
    without = {name: each.copy() for name, each in TRUTH.items()}
    without['classes'][0, 1] = without['classes'][2, :2] = -1
    assert float(loss(variables['params'], without)[0]) == float(value)
    # In a batch of padding alone, nothing is learned.
    value, gradient = loss(variables['params'], {**TRUTH, 'valid': np.zeros(3, np.float32)})
    assert float(value) == 0
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.slow
def test_one_to_one_teaches_only_itself():
    model, variables = small('resnet_micro', 'end_to_end', 'yolo_pan')
    images = np.random.RandomState(0).normal(size=(1, *SIZE, 3)).astype(np.float32)

    @jax.jit
    @jax.grad
    def gradient(params):
        outputs = model.apply({**variables, 'params': params}, images)
        return sum(each['one_to_one_boxes'].sum() + each['one_to_one_classes'].sum() for each in outputs.values())

    found = flat(gradient(variables['params']))
    trained = {path.split('/')[1][:-1] for path, leaf in found.items() if path.startswith('head/') and leaf.any()}
    assert trained == {'one_to_one'}
    assert not any(leaf.any() for path, leaf in found.items() if not path.startswith('head/'))


@pytest.mark.parametrize(
    'version', [pytest.param(name, marks=() if name == 'end_to_end' else pytest.mark.slow) for name in VERSIONS]
)
def test_detections_are_padded_sorted_and_inside(version: str):
    made = ('resnet_micro', version, 'yolo_pan') if version == 'end_to_end' else ('vit_micro', version, 'fpn')
    model, variables = small(*made)
    head = model.head.clone(score_threshold=0.0, max_detections=300)
    images = np.random.RandomState(2).normal(size=(2, *SIZE, 3)).astype(np.float32)
    outputs = jax.jit(model.apply)(variables, images)
    extents = jnp.array([[48.0, 50.0], [30.0, 64.0]])
    found = jax.jit(lambda outputs, extents: head.detections(outputs, SIZE, extents))(outputs, extents)
    assert found.boxes.shape == (2, 300, 4)
    # No more than there are points.
    assert 0 < int(found.valid.sum(1).max()) <= 12 * 16 + 6 * 8
    assert (np.diff(found.scores) <= 0).all()
    assert (found.boxes >= 0).all()
    assert (found.boxes <= np.tile(extents[:, ::-1], 2)[:, None]).all()
    assert (np.asarray(found.classes) >= 0).tolist() == found.valid.tolist()
    # What begins with the probability of five objects per image is below the usual threshold.
    assert not jax.jit(lambda outputs: model.head.detections(outputs, SIZE))(outputs).valid.any()


def test_losses_of_a_batch_are_the_mean_over_its_valid_images():
    model, variables = small('resnet_micro', 'end_to_end', 'yolo_pan')
    images = np.random.RandomState(1).normal(size=(3, *SIZE, 3)).astype(np.float32)
    losses = jax.jit(lambda outputs, truth: model.head.losses(outputs, truth, SIZE))
    outputs = jax.jit(model.apply)(variables, images)
    whole = losses(outputs, TRUTH)
    assert set(whole) == {'classes', 'boxes', 'distances'}
    first_two = losses(jax.tree.map(lambda each: each[:2], outputs), {name: each[:2] for name, each in TRUTH.items()})
    for name, each in whole.items():
        assert each.shape == (3,)
        assert each[2] == 0
        assert np.asarray(each[:2]) == pytest.approx(np.asarray(first_two[name]), rel=1e-6)
        # An image without objects teaches what is background, and nothing else.
        assert (float(each[1]) > 0) == (name == 'classes')


def test_points_of_a_patch_that_is_no_power_of_two_cover_the_image():
    points = points_of((4, 6), (56, 84))
    assert points.stride.tolist() == [14, 14]
    assert points.centres[[0, -1]].tolist() == [[7, 7], [77, 49]]
    assert points_of((2, 3), (64, 96)).centres.tolist()[:2] == [[16, 16], [48, 16]]


def test_complete_overlap_by_hand():
    square, wide = jnp.array([0.0, 0, 4, 4]), jnp.array([0.0, 1, 8, 3])
    # Centres are 2 apart, the diagonal around both is that of 8 by 4, and the angles are those of 1:1 and 4:1.
    shape = 4 / np.pi**2 * (np.arctan(4) - np.arctan(1)) ** 2
    overlap = 8 / 24
    assert float(iou(square, wide)) == pytest.approx(overlap)
    expected = overlap - 4 / 80 - shape**2 / (1 - overlap + shape)
    assert float(ciou(square, wide)) == pytest.approx(expected, rel=1e-5)
    assert float(ciou(wide, wide)) == pytest.approx(1)
    # A raw prediction may have sides that are negative, or zero.
    for box in ([3.0, 3, 1, 1], [2.0, 2, 2, 2]):
        value, gradient = jax.value_and_grad(ciou)(jnp.array(box), square)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


@pytest.mark.slow
def test_small_objects_count_as_larger_and_conflicts_go_to_the_larger_overlap():
    x, y = np.meshgrid(np.arange(4, 64, 8.0), np.arange(4, 64, 8.0))
    points = jnp.asarray(np.stack([x.ravel(), y.ravel()], -1), jnp.float32)
    predicted = jnp.concatenate([points - 10, points + 10], 1)
    boxes = jnp.array([[21.0, 21, 24, 24], [0, 0, 64, 64], [30, 30, 50, 50], [0, 0, 64, 64]])
    assigned = assign_by_alignment(
        jnp.full((64, 2), 0.5),
        predicted,
        points,
        boxes,
        jnp.array([0, 1, 1, 0]),
        jnp.array([True, True, True, False]),
        jnp.array([16.0, 16.0]),
        most=4,
    )
    of = {index: set(np.flatnonzero(assigned.there & (assigned.objects == index))) for index in range(4)}
    # No point is inside the first object, but four are within 8 pixels of its middle.
    assert {18} <= of[0] <= {18, 19, 26, 27}
    assert len(of[2]) == 4
    assert not of[3]
    # The best point of an object is to reach the overlap itself.
    best = max(of[2], key=lambda point: assigned.scores[point])
    assert float(assigned.scores[best]) == pytest.approx(float(ciou(boxes[2], predicted[best])), rel=1e-4)
    one = assign_by_alignment(
        jnp.full((64, 2), 0.5), predicted, points, boxes[2:3], jnp.array([1]), jnp.array([True]), jnp.array([16.0] * 2),
        most=4, kept=1,
    )  # fmt: skip
    (alone,) = np.flatnonzero(one.there)
    assert float(one.scores[alone]) == pytest.approx(float(assigned.scores[best]), rel=1e-6)


def test_the_loss_of_a_distribution_by_hand():
    raw = jnp.log(jnp.tile(jnp.array([0.2, 0.5, 0.3]), 4))
    # Between the bins: 1.25 is three quarters 1 and one quarter 2. What is beyond the last counts as 1.99.
    near = -(0.75 * np.log(0.5) + 0.25 * np.log(0.3))
    beyond = -(0.01 * np.log(0.5) + 0.99 * np.log(0.3))
    found = float(distribution_loss(raw, jnp.array([1.25, 1.25, 1.25, 7.0])))
    assert found == pytest.approx((3 * near + beyond) / 4, rel=1e-5)


def test_what_neck_and_head_refuse():
    def made(neck: str = 'yolo_pan', neck_options: dict | None = None, **head):
        model = backbones.create_detector('resnet_micro', 'yolo', 3, neck, neck_options, head)
        return jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32))

    with pytest.raises(UserError, match="unknown branches of the head 'one'"):
        made(branches='one')
    with pytest.raises(UserError, match='needs bins >= 1 and depth >= 0, not bins=0 and depth=2'):
        made(bins=0)
    with pytest.raises(UserError, match='not channels=2 and max_channels=8'):
        made(neck_options={'channels': 2})
    head = backbones.create_detector('resnet_micro', 'yolo', 3, 'yolo_pan', None, {'branches': 'one_to_one'}).head
    with pytest.raises(UserError, match="with branches='one_to_one' is for inference"):
        head.losses({}, TRUTH, SIZE)
    backbone = backbones.create('resnet_micro')
    with pytest.raises(UserError, match=r"needs a neck, .*pass neck='yolo_pan'"):
        jax.eval_shape(backbones.model.Model(backbone, None, head).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    model = backbones.create_detector('resnet_micro', 'fcos', 3, 'yolo_pan', {'channels': 16})
    with pytest.raises(UserError, match=r"these have \[16, 32, 64\] channels; .*'max_channels': 16.* the head 'yolo'"):
        jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32))
    # One level is enough, and any number of channels divides among the attention heads.
    assert list(made(neck_options={'strides': (8,), 'channels': 70})['params']['neck']) == ['output3']
    assert 'output5' in made(neck_options={'channels': 100})['params']['neck']
