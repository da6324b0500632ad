"""Faster R-CNN: what torchvision answers (tests/parity/faster_rcnn), and what no reference is asked."""

import json
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from detector_truth import SIZE, TRUTH
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

import backbones
from backbones import published_models
from backbones.boxes import roi_align as pooling
from backbones.boxes.assignment import BACKGROUND, BETWEEN
from backbones.boxes.roi_align import level_of, roi_align
from backbones.boxes.sampling import sample
from backbones.errors import UserError
from backbones.heads.two_stage import draw, smooth_l1
from backbones.layers.normalisation import BatchNorm
from backbones.layers.padded_normalisation import PaddedBatchNorm
from tests.parity.detection import cases as one_stage
from tests.parity.faster_rcnn import cases, compare

CASES = {case.kind: case for case in cases.CASES}
V1, V2, MOBILE, MOBILE_320 = CASES


@cache
def stored(kind: str) -> dict[str, np.ndarray]:
    with np.load(CASES[kind].path) as file:
        return dict(file)


@pytest.mark.parametrize(
    'kind',
    [pytest.param(kind, marks=pytest.mark.slow if kind == MOBILE_320 else pytest.mark.exhaustive) for kind in CASES],
)
def test_a_detector_equals_the_reference(kind: str):
    errors = compare.compare(CASES[kind], stored(kind))
    print(kind, {name: f'{error:.1e}' for name, error in errors.items()})
    for name, error in errors.items():
        # Boxes in pixels; numbers and classes are equal; all else is relative.
        exact = name.endswith('number') or name in ('input/classes', 'image/classes')
        pixels = name in ('proposals/boxes', 'input/boxes', 'image/boxes')
        limit = 0 if exact else 1e-3 if pixels else 1e-5
        assert error <= limit, (name, error)


def test_the_stored_answers_tell_detectors_apart():
    """Neither none nor as many boxes as an image may have."""
    for kind in CASES:
        found = [len(each) for name, each in stored(kind).items() if name.endswith('/scores')]
        assert 0 < min(found) <= max(found) < 100, kind
        assert ('num_batches_tracked' in str(stored(kind)['shapes'])) == (kind == V2)


@pytest.mark.parametrize(
    'kind', [pytest.param(kind, marks=() if kind == V2 else pytest.mark.exhaustive) for kind in CASES]
)
def test_published_models_have_the_published_number_of_parameters(kind: str):
    model, row = backbones.create_published(kind), published_models.TABLE[kind]
    variables = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32))
    sizes = {path: leaf.size for path, leaf in flatten_dict(variables['params'], sep='/').items()}
    norms = sum(size for path, size in sizes.items() if path.startswith('backbone/') and 'norm' in path)
    assert sum(sizes.values()) - norms * row.frozen_norm == row.params


def test_a_published_model_is_what_a_detector_is_by_default():
    assert backbones.create_published(V1) == backbones.create_detector('resnet50', 'faster_rcnn', 90, epsilon=0.0)


def written(kind: str, directory: Path, rename=lambda key: key) -> Path:
    file = directory / 'detector.safetensors'
    arrays = cases.state_dict(CASES[kind], json.loads(str(stored(kind)['shapes'])))
    save_file({rename(key): each for key, each in arrays.items()}, file)
    return file


def narrow(kind: str) -> dict:
    """Options of a case's backbone."""
    return {'rows': cases.NARROW_ROWS, 'for_detection': True} if CASES[kind].mobile else one_stage.NARROW


@pytest.mark.parametrize('kind', [V2, pytest.param(MOBILE, marks=pytest.mark.exhaustive)])
def test_parts_of_a_file_without_a_model(kind: str, tmp_path: Path):
    file, name = written(kind, tmp_path), compare.name_of(CASES[kind])
    whole, report = backbones.load_weights(name, file, model=compare.model_of(CASES[kind]))
    assert report.layout == 'torchvision'
    parts = ('backbone', 'neck', 'head')
    some, report = backbones.load_weights(name, file, parts=parts, **narrow(kind))
    assert not report.problems()
    some, whole = flatten_dict(some), flatten_dict(whole)
    assert some.keys() == whole.keys()
    assert all(np.array_equal(each, whole[path]) for path, each in some.items())


def test_older_files_of_torchvision(tmp_path: Path):
    model = compare.model_of(CASES[V1])
    expected, _ = backbones.load_weights('resnet18', written(V1, tmp_path), model=model)
    file = written(V1, tmp_path, lambda key: key.replace('rpn.head.conv.0.0.', 'rpn.head.conv.'))
    assert 'rpn.head.conv.weight' in load_file(file)
    found, report = backbones.load_weights('resnet18', file, model=model)
    assert not report.problems()
    expected = flatten_dict(expected)
    assert all(np.array_equal(each, expected[path]) for path, each in flatten_dict(found).items())


@pytest.mark.parametrize(
    ('kind', 'changes', 'message'),
    [
        (V1, {'num_classes': 9}, r'its head has 6 outputs, of which one is the background: .*num_classes=5'),
        (V1, {'head_options': {'convolutions': 4, 'layers': 1}}, 'without convolutions in its second stage'),
        (V2, {'head_options': {'depth': 2}}, r"with convolutions in its second stage \(v2\); .*'convolutions': 4"),
        (V1, {'head': 'fcos'}, r"rpn\..* belongs to a Faster R-CNN; make the model with head='faster_rcnn'"),
    ],
)
def test_what_does_not_fit_is_named_with_the_remedy(kind: str, changes: dict, message: str, tmp_path: Path):
    row = published_models.TABLE[kind]
    model = backbones.create_detector('resnet18', **{**row.options, **CASES[kind].arguments(row.options), **changes})
    with pytest.raises(UserError, match=message):
        backbones.load_weights('resnet18', written(kind, tmp_path), model=model)


def test_a_file_of_another_detector(tmp_path: Path):
    case = one_stage.CASES[0]
    with np.load(case.path) as answers:
        arrays = one_stage.state_dict(case, json.loads(str(answers['shapes'])))
    save_file(arrays, tmp_path / 'fcos.safetensors')
    with pytest.raises(UserError, match=r"belongs to a one-stage detector; make the model with head='fcos' or"):
        backbones.load_weights('resnet18', tmp_path / 'fcos.safetensors', model=compare.model_of(CASES[V1]))


def test_weights_of_a_classifier_fit_the_backbone_of_a_detector(tmp_path: Path):
    """Its last two stages are one in the classifier, whose hidden layer is left out."""
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    plain = backbones.create('mobilenet_v3_large', rows=cases.NARROW_ROWS)
    variables = jax.eval_shape(plain.init, jax.random.key(0), images)
    random = np.random.RandomState(0)
    variables = jax.tree.map(lambda leaf: random.rand(*leaf.shape).astype(np.float32), variables)
    for layout, epsilon in (('torchvision', 1e-3), ('timm', 1e-5)):
        file = tmp_path / f'{layout}.safetensors'
        backbones.save_weights(file, variables, layout, 'mobilenet_v3_large', rows=cases.NARROW_ROWS)
        options = {'rows': cases.NARROW_ROWS, 'for_detection': True, 'epsilon': epsilon}
        found, _ = backbones.load_weights('mobilenet_v3_large', file, **options)
        module = backbones.create('mobilenet_v3_large', **options)
        features = jax.eval_shape(module.apply, found, jnp.ones((1, 64, 64, 3)))
        assert [each.shape[-1] for each in features.stages.values()] == list(module.stage_channels())
        shapes = {name: each.shape[1:] for name, each in features.stages.items()}
        assert shapes['stage5'] == (2, 2, 32)
        assert shapes['stage6'] == (2, 2, 192)
        assert features.pooled.shape == (1, 192)
        kernel = variables['params']['stage5']['block2']['project_conv']['kernel']
        assert np.array_equal(found['params']['stage6']['block1']['project_conv']['kernel'], kernel)


def small_model(neck: str | None = 'fpn', **options):
    """A small detector."""
    return backbones.create_detector(
        'resnet_micro',
        'faster_rcnn',
        3,
        neck,
        {'channels': 8, 'strides': (4, 8), 'extra': 'none'} if neck else None,
        {'channels': 8, 'features': 16, 'max_detections': 20, 'anchor_size': 4.0, **options},
    )


@cache
def small(neck: str | None = 'fpn', **options):
    """A small detector on small images, and its variables."""
    model = small_model(neck, **options)
    return model, jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *SIZE, 3)))


IMAGES = np.random.RandomState(0).normal(size=(3, *SIZE, 3)).astype(np.float32)


@cache
def trained():
    """Loss and gradients of a detector with every part, as a program of parameters, images, truth and key."""
    model, variables = small(convolutions=1, layers=1, sampled_anchors=(32, 0.5), sampled_proposals=(24, 0.25))

    @jax.jit
    def run(params, images, truth, seed):
        def loss(params):
            outputs, _ = model.apply(
                {**variables, 'params': params},
                images,
                train=True,
                truth=truth,
                rngs={'sampling': jax.random.key(seed)},
                mutable=['batch_stats'],
            )
            losses = model.head.losses(outputs, truth, SIZE)
            total = sum(each.sum() for each in losses.values()) / jnp.maximum(truth['valid'].sum(), 1)
            return total, (losses, outputs)

        return jax.value_and_grad(loss, has_aux=True)(params)

    return lambda truth=TRUTH, seed=0, images=IMAGES: run(variables['params'], images, truth, seed)


@pytest.mark.slow
def test_gradients_are_finite_and_reach_every_part():
    (value, (losses, _)), gradient = trained()()
    assert np.isfinite(value)
    assert list(losses) == ['boxes', 'classes', 'objectness', 'proposals']
    leaves = flatten_dict(gradient, sep='/')
    assert all(np.isfinite(leaf).all() for leaf in leaves.values())
    assert not [path for path, leaf in leaves.items() if path.startswith(('neck/', 'head/')) and not np.any(leaf)]


@pytest.mark.slow
def test_padding_does_not_count():
    run = trained()
    (value, (losses, _)), gradient = run()
    assert all(each[2] == 0 for each in losses.values())
    # The object without an area is none, and neither is anything in the third row.
    without = {name: each.copy() for name, each in TRUTH.items()}
    without['classes'][0, 1] = without['classes'][2, :2] = -1
    assert float(run(without)[0][0]) == float(value)
    # An image without objects teaches what is background, and nothing else.
    assert [name for name, each in losses.items() if each[1] > 0] == ['classes', 'objectness']
    # In a batch of padding alone, nothing is learned.
    (value, _), gradient = run({**TRUTH, 'valid': np.zeros(3, np.float32)})
    assert float(value) == 0
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.slow
def test_what_is_drawn():
    run = trained()
    (value, (_, outputs)), _ = run()
    anchors, proposals = map(np.asarray, outputs.assigned)
    # 32 anchors, at most half with an object; 24 proposals, at most a quarter.
    assert ((anchors != BETWEEN).sum(1) == 32).all()
    assert 0 < (anchors[0] >= 0).sum() <= 16
    assert proposals.shape == (3, 24)
    assert 0 < (proposals[0] >= 0).sum() <= 6
    assert (proposals[1] < 0).all()
    assert np.array_equal(np.asarray(outputs.there), proposals != BETWEEN)
    # The boxes of the objects may be drawn, those without an area and those of no example may not.
    assert set(proposals[0]) <= {0, 2, BACKGROUND}
    (again, (_, same)), _ = run()
    assert float(again) == float(value)
    assert np.array_equal(same.assigned[0], anchors)
    other = run(seed=1)[0][1][1]
    assert not np.array_equal(other.assigned[0], anchors)
    # Images draw with keys of their own.
    assert not np.array_equal(other.assigned[0][1], other.assigned[0][2])


def test_an_object_trains_though_nothing_near_it_is_proposed():
    """Its own box is among the proposals."""
    nothing, anchors = jnp.zeros((3, 2, 4)), [jnp.array([[0.0, 0, 16, 16]])]
    draw_some = jax.jit(lambda key, boxes, there: draw(key, boxes, there, anchors, TRUTH, (8, 0.5), (8, 1.0)))
    drawn, there, (_, assigned) = draw_some(jax.random.key(0), nothing, jnp.zeros((3, 2), bool))
    assert drawn.shape == (3, 6, 4)
    assert there.sum(1).tolist() == [2, 0, 0]
    for index in (0, 2):
        assert TRUTH['boxes'][0, index].tolist() in np.asarray(drawn[0])[np.asarray(assigned[0]) == index].tolist()
    assert set(np.asarray(assigned[0]).tolist()) == {0, 2, BETWEEN}


def test_the_sample_needs_a_key():
    model = small_model()
    variables = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    with pytest.raises(UserError, match=r"draws a sample; pass rngs=\{'sampling'"):
        jax.eval_shape(lambda variables: model.apply(variables, IMAGES, truth=TRUTH), variables)


@pytest.mark.slow
@pytest.mark.parametrize('neck', ['fpn', pytest.param(None, marks=pytest.mark.exhaustive)])
def test_detections_are_padded_sorted_and_inside(neck: str | None):
    model, variables = small(neck, score_threshold=0.0, candidates=(50, 50), proposals=(60, 40))
    extents = jnp.array([[48.0, 50.0], [30.0, 64.0], [48.0, 64.0]])

    @jax.jit
    def run(extents):
        outputs = model.apply(variables, IMAGES, extents=extents)
        return outputs, model.head.detections(outputs, SIZE, extents)

    outputs, found = run(extents)
    assert list(outputs.anchors) == (['p2', 'p3'] if neck else ['p4'])
    limits = np.tile(extents[:, ::-1], 2)[:, None]
    for boxes in (outputs.proposals, found.boxes):
        assert (boxes >= 0).all()
        assert (boxes <= limits).all()
    assert outputs.proposals.shape == (3, 40, 4)
    assert found.boxes.shape == (3, 20, 4)
    assert (found.valid.sum(1) > 5).all()
    assert (np.diff(found.scores) <= 0).all()
    assert set(found.classes[found.valid].tolist()) <= {0, 1, 2}
    assert (found.classes[~found.valid] == -1).all()
    # The same without a sample: a loss of everything, deterministic and finite.
    losses = model.head.losses(outputs, TRUTH, SIZE)
    assert all(np.isfinite(each).all() and each[2] == 0 for each in losses.values())


def test_what_a_head_refuses():
    with pytest.raises(UserError, match='must be at least 0, not -1, 0 and 2'):
        small(depth=-1)
    with pytest.raises(UserError, match="unknown level that boxes are pooled from 'p9'"):
        small(pooled=('p9',))
    head = backbones.create_detector('resnet_micro', 'faster_rcnn').head
    model = backbones.model.Model(backbones.create('resnet_micro'), None, head)
    with pytest.raises(UserError, match="needs a neck, or the levels of the backbone's map"):
        jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    with pytest.raises(UserError, match="unknown stage of the backbone 'stage7'; did you mean"):
        backbones.create_detector('resnet50', 'faster_rcnn', neck_options={'stages': ('stage7',)})


def pooled_slowly(x: np.ndarray, box, scale, resolution: int = 7) -> np.ndarray:
    """RoIAlign in loops, as torchvision's kernel does it."""
    rows, columns = x.shape[:2]
    left, top, right, bottom = (side * scale[1 - index % 2] for index, side in enumerate(box))
    height, width = max(bottom - top, 1) / resolution, max(right - left, 1) / resolution
    result = np.zeros((resolution, resolution, x.shape[2]))
    for row in range(resolution):
        for column in range(resolution):
            for point in range(4):
                down = top + (row + (point // 2 + 0.5) / 2) * height
                across = left + (column + (point % 2 + 0.5) / 2) * width
                if down < -1 or down > rows or across < -1 or across > columns:
                    continue
                down, across = min(max(down, 0), rows - 1), min(max(across, 0), columns - 1)
                first, second = int(down), int(across)
                third, fourth = min(first + 1, rows - 1), min(second + 1, columns - 1)
                a, b = down - first, across - second
                value = (1 - a) * ((1 - b) * x[first, second] + b * x[first, fourth])
                result[row, column] += (value + a * ((1 - b) * x[third, second] + b * x[third, fourth])) / 4
    return result


class TestRoIAlign:
    MAPS = tuple(np.random.RandomState(index).normal(size=(*size, 3)) for index, size in enumerate([(12, 16), (6, 8)]))
    # Inside, tiny, on the border, beyond it, all of it.
    BOXES = np.array(
        [[5, 6, 30, 40], [7, 7, 7.5, 7.5], [0, 0, 64, 48], [60, 40, 64, 48], [-20, -9, 10, 12], [50, 30, 90, 70]],
        np.float32,
    )
    LEVEL = np.array([0, 0, 1, 0, 1, 0])

    @pytest.mark.parametrize('small', [0, 10**6])
    def test_as_in_loops(self, small: int, monkeypatch):
        monkeypatch.setattr(pooling, '_SMALL', small)
        maps = [jnp.asarray(each, jnp.float32) for each in self.MAPS]
        found = jax.jit(lambda maps: roi_align(maps, self.BOXES, self.LEVEL, (48, 64)))(maps)
        for index, (box, level) in enumerate(zip(self.BOXES, self.LEVEL, strict=True)):
            expected = pooled_slowly(self.MAPS[level], box, (0.25 / (level + 1),) * 2)
            assert np.asarray(found[index]) == pytest.approx(expected, abs=1e-5)

    def test_both_ways_have_the_same_gradients(self, monkeypatch):
        def gradients(small: int):
            monkeypatch.setattr(pooling, '_SMALL', small)

            def loss(maps):
                return (jax.vmap(lambda maps: roi_align(maps, self.BOXES, self.LEVEL, (48, 64)))(maps) ** 2).sum()

            return jax.jit(jax.grad(loss))([jnp.stack([each, -each]).astype(jnp.float32) for each in self.MAPS])

        for one, two in zip(gradients(0), gradients(10**6), strict=True):
            assert np.abs(one).max() > 0
            np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4)

    def test_levels(self):
        sides = np.array([1, 111, 112, 223, 224, 447, 448, 5000], np.float32)
        boxes = np.stack([sides * 0, sides * 0, sides, sides], 1)
        assert level_of(boxes, (2, 3, 4, 5)).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
        assert level_of(boxes, (4,)).tolist() == [0] * 8
        assert level_of(boxes, (2, 4, 5)).tolist() == [0, 0, 0, 0, 1, 1, 2, 2]


class TestSampling:
    ASSIGNED = jnp.array([3, 0, BACKGROUND, BETWEEN, BACKGROUND, 1, BACKGROUND, BACKGROUND, 2, BETWEEN])

    @pytest.mark.parametrize(
        ('most', 'share', 'objects', 'background'), [(4, 0.5, 2, 2), (6, 0.25, 1, 4), (8, 0.75, 4, 4), (100, 0.5, 4, 4)]
    )
    def test_how_many(self, most: int, share: float, objects: int, background: int):
        drawn = np.asarray(sample(jax.random.key(0), self.ASSIGNED, most, share))
        assert (drawn >= 0).sum() == objects
        assert (drawn == BACKGROUND).sum() == background
        assert (drawn[drawn != BETWEEN] == np.asarray(self.ASSIGNED)[drawn != BETWEEN]).all()

    def test_each_is_equally_likely(self):
        keys = jax.random.split(jax.random.key(1), 2000)
        drawn = jax.vmap(lambda key: sample(key, self.ASSIGNED, 4, 0.5))(keys) != BETWEEN
        shares = np.asarray(drawn.mean(0))
        assert shares[np.asarray(self.ASSIGNED) == BETWEEN].max() == 0
        assert shares[np.asarray(self.ASSIGNED) != BETWEEN] == pytest.approx(np.full(8, 0.5), abs=0.05)


def test_statistics_of_a_padded_batch_are_those_without_the_padding():
    x = np.random.RandomState(0).normal(2, 3, (5, 2, 3, 4)).astype(np.float32)
    there = np.array([True, False, True, True, False])
    norm = PaddedBatchNorm()
    variables = norm.init(jax.random.key(0), x)
    expected, want = BatchNorm().apply(variables, x[there], train=True, mutable=['batch_stats'])
    found, got = norm.apply(variables, x, True, there, mutable=['batch_stats'])
    np.testing.assert_allclose(found[there], expected, rtol=1e-5, atol=1e-5)
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-5), got, want)
    nothing, _ = norm.apply(variables, x, True, np.zeros(5, bool), mutable=['batch_stats'])
    assert np.isfinite(nothing).all()


def test_smooth_l1_by_hand():
    assert np.asarray(smooth_l1(jnp.array([0.0, 0.05, -0.05, 2.0]))) == pytest.approx(
        [0, 0.5 * 0.0025 * 9, 0.5 * 0.0025 * 9, 2 - 0.5 / 9]
    )
