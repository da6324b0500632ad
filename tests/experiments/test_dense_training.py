"""Dense tasks through the training engine: what is frozen costs a forward pass and never moves, the rest trains."""

import dataclasses
import functools
import json
import math
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from tiny_dense import dense_config, make_dense, without_objects

from backbones import UserError, cost
from backbones.boxes.nms import Detections
from experiments import tasks, train
from experiments.cli import command_line
from experiments.commands import train as work
from experiments.data import loading, pipeline
from experiments.data.dataset import Dataset
from experiments.data.truth import IGNORE, Boxes, Masks
from experiments.planning import ahead_of_time
from experiments.training import evaluation, loop, mesh
from experiments.training.session import Session, check_without_data

TASKS = ('segmentation', 'detection')
BACKBONES = ('resnet_micro', 'vit_micro')
# A ViT's segmenter in every run of CI, the others in rotation.
PAIRS = [
    pytest.param(
        task,
        backbone,
        marks=pytest.mark.slow if (task, backbone) == ('segmentation', 'vit_micro') else pytest.mark.exhaustive,
    )
    for task in TASKS
    for backbone in BACKBONES
]


@functools.cache
def dataset(task: str) -> Dataset:
    return make_dense(task)


def leaves(variables: dict) -> dict[str, np.ndarray]:
    return {path: np.asarray(leaf) for path, leaf in flatten_dict(variables, sep='/').items()}


@pytest.mark.parametrize(('task', 'backbone'), PAIRS)
def test_a_frozen_backbone_never_moves_and_neck_and_head_do(tmp_path, task, backbone):
    session = Session(dense_config(task, backbone), dataset(task), tmp_path)
    before = leaves(session.host_variables(session.initial_state()))
    trained = loop.run(session, tables=False)
    after = leaves(trained.variables)
    moved = {path for path, leaf in after.items() if not np.array_equal(leaf, before[path])}
    assert not {path for path in moved if '/backbone/' in path}
    assert {path.split('/')[1] for path in moved if path.startswith('params/')} == {'neck', 'head'}
    assert all(np.isfinite(leaf).all() for leaf in after.values())
    found = trained.evaluate('test')
    assert found.count == 8
    assert 0 <= found.score <= 1
    assert np.isfinite(found.metrics['loss'])


@pytest.mark.slow
@pytest.mark.parametrize(
    'changes',
    [
        {'accumulation': 2, 'dtype': 'bfloat16'},
        pytest.param({'neck': 'none', 'strides': ()}, marks=pytest.mark.exhaustive),
    ],
)
def test_a_detector_of_two_stages_trains(tmp_path, changes):
    """What it trains on is drawn in the step: the same again for the same seed, in micro-batches too."""
    config = dense_config('detection', head='faster_rcnn', **changes)
    if 'neck' in changes:
        config.neck_channels = 0
    session = Session(config, dataset('detection'), tmp_path)
    before = leaves(session.host_variables(session.initial_state()))
    rate, steps = np.float32(1e-3), []
    for _ in range(2):
        state = session.initial_state()
        for host in session.batches(0, 2):
            state, metrics = session.train_step(0)(state, session.device_put(host), rate)
        steps.append({name: float(value) for name, value in metrics.items()})
    assert steps[0] == steps[1]
    assert {'objectness', 'proposals', 'classes', 'boxes'} < steps[0].keys()
    assert steps[0]['finite']
    assert steps[0]['classes'] > 0
    after = leaves(session.host_variables(state))
    moved = {path.split('/')[1] for path, leaf in after.items() if not np.array_equal(leaf, before[path])}
    assert moved == {'head'} | ({'neck'} if 'neck' not in changes else set())


@pytest.mark.parametrize(('task', 'backbone'), PAIRS)
def test_a_frozen_backbone_costs_one_forward_pass(task, backbone, tmp_path):
    """Neck and head cost a forward and a backward pass, of about twice as much, and the backbone a forward pass."""
    config = dense_config(task, backbone)
    session = Session(config, dataset(task), tmp_path)
    programs = session.programs
    compiled = programs.lowered(0).compile().cost_analysis()['flops'] / config.batch_size
    size = programs.task.preprocessing.size
    of_backbone = cost.count_flops(programs.model.backbone, size)
    whole = cost.count_flops(programs.model, size)
    tuned = Session(dense_config(task, backbone, 'finetune'), dataset(task), tmp_path).programs
    all_of_it = tuned.lowered(0).compile().cost_analysis()['flops'] / config.batch_size
    print(f'per image: backbone {of_backbone:.3g}, all {whole:.3g}, frozen step {compiled:.3g}, tuned {all_of_it:.3g}')
    rest = whole - of_backbone
    # Losses, assignment and elementwise work are counted by the compiler, too.
    assert compiled < of_backbone * 1.2 + 6 * rest
    assert all_of_it > compiled + 1.5 * of_backbone


@pytest.mark.slow
def test_an_image_without_objects_and_rows_without_examples_are_no_trouble(tmp_path):
    config = dense_config('detection')
    empty = without_objects(dataset('detection'), range(8))
    session = Session(config, empty, tmp_path)
    state, rate = session.initial_state(), np.float32(1e-3)
    (host,) = session.batches(0, 1)
    for weight in (np.ones(8), np.repeat([1, 0], 4), np.zeros(8)):
        arrays = {
            **host.arrays,
            'weight': weight.astype(np.float32),
            'classes': np.full_like(host.arrays['classes'], -1),
        }
        changed = session.device_put(dataclasses.replace(host, arrays=arrays))
        state, metrics = session.train_step(0)(state, changed, rate)
        assert all(np.isfinite(float(value)) for value in metrics.values()), weight
        assert float(metrics['finite'])


def test_only_objects_that_count_are_learned_from():
    """Crowds are not; their boxes stay in the truth that the metric sees."""
    data = dataset('detection')
    assert isinstance(data.truth, Boxes)
    crowd = np.zeros_like(data.truth.crowd)
    crowd[:, 0] = True
    changed = dataclasses.replace(data, truth=dataclasses.replace(data.truth, crowd=crowd))
    arrays = changed.arrays_of(np.arange(4))
    assert (arrays['classes'][:, 0] == -1).all()
    np.testing.assert_array_equal(arrays['classes'][:, 1:], data.truth.classes[:4, 1:])
    assert changed.targets_of(np.arange(4)).crowd[:, 0].all()


def test_pixels_without_a_class_change_nothing():
    """Neither the loss nor the confusion matrix, whatever is predicted there."""
    task = tasks.find('segmentation').create(
        dense_config('segmentation'),
        7,
        tasks.input_preprocessing('segmentation', 'vit_micro', '', dense_config('segmentation')),
    )
    data = dataset('segmentation')
    images = data.images[:4].copy()
    images[:, :, :16, 3] = IGNORE
    batch = task.prepare(None, {'image': images, 'weight': np.ones(4, np.float32)}, train=False)
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(4, 32, 32, 7)).astype(np.float32)
    other = logits.copy()
    other[:, :, :16] = generator.normal(size=(4, 32, 16, 7))
    for one, two in zip(
        jax.tree.leaves(task.loss(logits, batch, {})), jax.tree.leaves(task.loss(other, batch, {})), strict=True
    ):
        np.testing.assert_allclose(one, two, rtol=1e-6)
    matrices = [np.asarray(task.predict(each, batch)['confusion']) for each in (logits, other)]
    np.testing.assert_array_equal(*matrices)
    assert matrices[0].sum() == (images[..., 3] != IGNORE).sum()


def test_predictions_are_in_pixels_of_the_original_image():
    """Perfect raw outputs give back the annotated boxes, through both letterboxes."""
    config = dense_config('detection', image_size=48, image_height=32)
    preprocessing = tasks.input_preprocessing('detection', 'vit_micro', '', config)
    data = dataset('detection')
    truth = data.truth
    assert isinstance(truth, Boxes)
    # As if they had been larger, and of another shape, before they were stored.
    factors = np.array([3.0, 2.0, 3.0, 2.0], np.float32)
    larger = dataclasses.replace(truth, boxes=truth.boxes * factors, sizes=truth.sizes * np.array([2, 3]))
    data = dataclasses.replace(data, truth=larger, stored_size=(32, 32))
    task = tasks.find('detection').create(config, 6, preprocessing, data, data.splits['train'])
    batch = {'image': data.images[:4], 'weight': np.ones(4, np.float32), **data.arrays_of(np.arange(4))}
    prepared = task.prepare(None, batch, train=False)
    placement = np.asarray(prepared['placement'])[:, None]
    back = (np.asarray(prepared['boxes']) - np.tile(placement[..., 2:], 2)) / np.tile(placement[..., :2], 2)
    present = larger.classes[:4] >= 0
    np.testing.assert_allclose(back[present], larger.boxes[:4][present], atol=1e-3)
    height, width = prepared['image'].shape[1:3]
    inside = np.asarray(prepared['boxes'])[present]
    assert (inside >= -1e-3).all() and (inside <= np.array([width, height, width, height]) + 1e-3).all()


def test_what_is_found_in_the_border_of_a_letterbox_is_not_kept(monkeypatch):
    """It would be a false positive, with no area in the image that it is counted in."""
    config = dense_config('detection')
    task = tasks.find('detection').create(config, 6, tasks.input_preprocessing('detection', 'vit_micro', '', config))
    boxes = jnp.array([[[0, 8, 16, 24], [4, 0, 12, 7], [4, 0, 12, 12], [0, 0, 0, 0]]], jnp.float32)
    valid = jnp.array([[True, True, True, False]])
    found = Detections(boxes, jnp.full((1, 4), 0.5), jnp.zeros((1, 4), int), valid)
    head = SimpleNamespace(detections=lambda outputs, size: found)
    monkeypatch.setattr(type(task), '_head', lambda self: head)
    # An image of 64x32 in the middle of an input of 32x32.
    batch = {
        'image': np.zeros((1, 32, 32, 3)),
        'placement': np.array([[0.5, 0.5, 0, 8]], np.float32),
        'size': np.array([[32, 64]]),
    }
    predicted = task.predict({}, batch)
    assert predicted['found'].tolist() == [[True, False, True, False]]
    np.testing.assert_array_equal(predicted['boxes'][0, [0, 2]], [[0, 0, 32, 32], [8, 0, 24, 8]])


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            {'regime': 'linear'},
            "the regime 'linear' is not for detection; what trains everything but the backbone is 'frozen'",
        ),
        ({'mixup': 0.2}, "config key 'mixup' is 0.2, but it is only for classification"),
        ({'dice': 1.0}, "config key 'dice' is 1.0, but it is only for segmentation"),
        ({'head': 'fcn'}, "unknown detection head 'fcn'"),
        ({'neck': 'none'}, "unknown neck of a detector 'none'"),
        ({'neck': 'fnp'}, "unknown neck 'fnp'"),
        (
            {'head': 'faster_rcnn', 'neck': 'none'},
            "config key 'strides' is (4, 8), but the neck is 'none'; leave it at ()",
        ),
        (
            {'head': 'faster_rcnn', 'strides': (), 'image_size': 4},
            "config key 'strides' is (), which means (4, 8, 16, 32), but the input has 4x4",
        ),
        ({'strides': (3, 8)}, 'powers of two'),
        ({'smallest_scale': 1.5}, 'config key smallest_scale is 1.5, more than largest_scale, 1.0'),
        ({'task': 'segmentation', 'neck': 'no'}, "unknown neck 'no'; did you mean 'none'?"),
        ({'weights': 'random', 'regime': 'finetune'}, "random weights stay frozen in the regime 'frozen'"),
        (
            {'dataset': 'mnist5k'},
            "'mnist5k' has a class for each image, but the task needs boxes; choose another config key task",
        ),
        ({'image_height': 32, 'image_size': 0}, 'image_height is 32, but image_size, the width, is 0'),
        ({'strides': (1, 2)}, 'FCOS needs strides of 2 and more'),
        ({'strides': (32, 64)}, "config key 'strides' is (32, 64), but the input has 32x32 pixels"),
        ({'smallest_scale': 2.0, 'largest_scale': 1.5}, 'smallest_scale is 2.0, more than largest_scale, 1.5'),
        (
            {'largest_scale': 1000.0},
            "config key 'largest_scale' must lie in [0.1, 10], not 1000.0: beyond that",
        ),
        (
            {'smallest_scale': 1e-3},
            "config key 'smallest_scale' must lie in [0.1, 10], not 0.001: beyond that",
        ),
        ({'max_detections': 10**6}, "config key 'max_detections' must lie in [1, 1000], not 1000000"),
        ({'max_detections': 0}, "config key 'max_detections' must lie in [1, 1000], not 0"),
        ({'head_depth': 1000}, "config key 'head_depth' must be at most 16, not 1000: published detectors have"),
        ({'neck_channels': 10**6}, "config key 'neck_channels' must be at most 4096, not 1000000"),
        ({'head_channels': 10**6}, "config key 'head_channels' must be at most 4096, not 1000000"),
        ({'image_size': 10**5}, "config key 'image_size' must be at most 8192, not 100000"),
        (
            {'strides': (), 'image_size': 8},
            "config key 'strides' is (), which means (8, 16, 32), but the input has 8x8",
        ),
        ({'strides': (4, 64)}, "'strides' is (4, 64), but the input has only 32x32 pixels; leave out 64, or"),
        ({'ignore_label': 11}, "config key 'ignore_label' is 11, but it is only for segmentation"),
        ({'image_size': 33}, 'do not divide into patches of 4; the nearest sizes that do are 32x32 and 36x36, and pad'),
        ({'epochs': math.inf}, "config key 'epochs' must be positive and finite, not inf"),
        ({'learning_rate': math.nan}, "config key 'learning_rate' must be positive and finite, not nan"),
        ({'weight_decay': math.inf}, "config key 'weight_decay' must be finite, but is inf"),
    ],
)
def test_what_does_not_fit_is_said_before_the_data_are_read(changes, message):
    with pytest.raises(UserError) as refused:
        check_without_data(dense_config(**{'task': 'detection', **changes}))
    assert message in str(refused.value)


@pytest.mark.parametrize(
    'arguments',
    [
        'detection.py:backbone=resnet_micro,dataset=shapes,head=retinanet,neck=pan',
        'detection.py:backbone=vit_micro,dataset=shapes,regime=lora:2,neck=simple_pyramid',
        'detection.py:backbone=yolo26n,dataset=shapes,regime=scratch,head=yolo,neck=yolo_pan',
        'detection.py:backbone=vit_micro,dataset=shapes,regime=frozen,head=faster_rcnn,neck=none',
        'segmentation.py:backbone=resnet_micro,dataset=shapes,regime=scratch,head=upernet,neck=none',
        'segmentation.py:backbone=vit_micro,dataset=shapes,regime=frozen,weights=random,head=linear',
    ],
)
def test_the_configs_of_dense_tasks_can_begin(arguments):
    check_without_data(command_line.load_config(str(Path(__file__).parents[2] / 'configs' / arguments)))


@pytest.mark.parametrize('task', TASKS)
def test_a_batch_is_what_the_plan_says_without_the_data(task):
    config, data = dense_config(task), dataset(task)
    one = mesh.make(devices=jax.devices()[:1])
    expected = ahead_of_time.planned(config, len(data.classes), data.images.shape[1:], 8, one).abstract_batch()
    (host,) = pipeline.evaluation_batches(data, np.arange(8), 8)
    assert expected.keys() == host.arrays.keys()
    for name, array in host.arrays.items():
        assert expected[name].dtype == array.dtype, name
        # How many objects an image has at most is known with the data only.
        known = expected[name].shape[2:] if name in ('boxes', 'classes') else expected[name].shape[1:]
        assert array.shape[array.ndim - len(known) :] == known, name


@pytest.mark.parametrize(
    ('task', 'examples', 'size'), [('detection', 100, 2), ('detection', 1, 1), ('classification', 1000, 256)]
)
def test_an_evaluation_takes_no_more_images_than_fit_beside_each_other(task, examples, size):
    """Accumulation is for memory, which an evaluation must not exceed."""
    made = SimpleNamespace(
        task=tasks.find(task), batch_size=8, options={'accumulation': 4}, device_mesh=SimpleNamespace(devices=1)
    )
    assert evaluation.batch_size(examples, made) == size


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            {'head': 'linear', 'auxiliary_head': True},
            "config key 'auxiliary_head' is True, but the head 'linear' has none; leave it at False",
        ),
        ({'neck': 'none'}, "config key 'strides' is (4, 8), but the neck is 'none'"),
        ({'backbone': 'vit_micro', 'output_stride': 8}, "config key 'output_stride' is 8, but the backbone vit_micro"),
    ],
)
def test_what_a_segmenter_does_not_have(changes, message):
    with pytest.raises(UserError) as refused:
        check_without_data(dense_config('segmentation', **changes))
    assert message in str(refused.value)


@pytest.mark.parametrize('task', ['segmentation', pytest.param('detection', marks=pytest.mark.slow)])
def test_every_head_fits_one_config(task):
    for head in tasks.find(task).heads:
        check_without_data(dense_config(task, head=head, head_channels=16))


def test_a_mosaic_needs_whole_groups_of_four(tmp_path):
    data = dataset('detection')
    with pytest.raises(UserError, match='a batch_size divisible by 4, not 6; use 8'):
        Session(dense_config('detection', mosaic=0.5, batch_size=6), data, tmp_path)
    count = len(data.splits['train'])
    chosen = dense_config('detection', mosaic=0.5, batch_size=8, fraction=7 / count)
    assert Session(chosen, data, tmp_path).batch_size == 4
    chosen.fraction = 3 / count
    with pytest.raises(UserError, match='3 training examples are too few for batches of 4: four images in one'):
        Session(chosen, data, tmp_path)


def test_a_share_of_the_labels_without_objects_is_refused(tmp_path):
    data, config = dataset('detection'), dense_config('detection', fraction=0.5)
    chosen = data.fraction(0.5, config.seed)
    Session(config, without_objects(data, np.setdiff1d(data.splits['train'], chosen)), tmp_path)
    with pytest.raises(UserError, match=rf"no object in the {len(chosen)} training images of 'shapes' that config key"):
        Session(config, without_objects(data, chosen), tmp_path)


@pytest.mark.parametrize('split', ['train', 'test'])
def test_a_split_of_nothing_but_ignored_pixels_is_refused(tmp_path, split):
    data = dataset('segmentation')
    pixels = data.truth.pixels.copy()
    pixels[data.splits[split], :-1] = 0
    with pytest.raises(UserError, match=f"no pixel counts in the {split} images of 'shapes'"):
        Session(dense_config('segmentation'), dataclasses.replace(data, truth=Masks(pixels)), tmp_path)


def test_a_dry_run_whose_step_is_not_finite_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(work, 'dry_run', lambda session: {'finite': 0.0, 'loss': 2.5, 'gradient_norm': math.nan})
    monkeypatch.setattr(loading, 'load', lambda *_, **__: dataset('detection'))
    config = ['--config', 'configs/detection.py:backbone=vit_micro,dataset=shapes,regime=scratch']
    with pytest.raises(UserError, match=r'not finite .*loss 2\.5, gradient_norm nan'):
        train.main([*config, '--config.image_size=32', '--workdir', str(tmp_path), '--dry_run'])


@pytest.mark.slow
def test_a_split_without_objects_is_refused(tmp_path):
    data = without_objects(dataset('detection'), dataset('detection').splits['validation'])
    with pytest.raises(UserError, match="there is no object in the validation images of 'shapes'"):
        Session(dense_config('detection'), data, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('task', ['segmentation', pytest.param('detection', marks=pytest.mark.exhaustive)])
def test_random_weights_stay_frozen_with_statistics_of_the_data(tmp_path, task):
    session = Session(dense_config(task, 'resnet_micro', weights='random'), dataset(task), tmp_path)
    state = session.initial_state()
    statistics = leaves(state.batch_stats['backbone'])
    assert all(np.abs(leaf).max() > 0 for path, leaf in statistics.items() if path.endswith('mean'))
    trained = loop.run(session, tables=False)
    kept = leaves(trained.variables['batch_stats']['backbone'])
    assert all(np.array_equal(kept[path], leaf) for path, leaf in statistics.items())


def test_the_description_says_what_neck_and_head_are(tmp_path):
    session = Session(dense_config('detection'), dataset('detection'), tmp_path)
    from experiments.training.run_description import describe

    told = describe(session.config, session.dataset, session.programs.model, session.programs.task)
    told = json.loads(json.dumps(told.as_json()))
    assert told['task'] == 'detection'
    assert told['head'] | {'neck': 'fpn', 'strides': [4, 8], 'neck_channels': 16, 'head_depth': 1} == told['head']
    assert told['classes'] == list(dataset('detection').classes)


def test_difficult_objects_bring_vocs_metric():
    """Only VOC leaves them out: a detector that misses exactly those is perfect by its measure."""
    truth = dataset('detection').truth
    assert isinstance(truth, Boxes)
    truth = truth.of(np.arange(16))
    difficult = np.zeros_like(truth.difficult)
    difficult[:, 0] = truth.classes[:, 0] >= 0
    easy = (truth.classes >= 0) & ~difficult
    found = {'boxes': truth.boxes, 'scores': np.ones(easy.shape, np.float32), 'labels': truth.classes, 'found': easy}
    classes = dataset('detection').classes
    task = tasks.find('detection')
    assert 'VOC_AP' not in task.score(found, truth, classes)
    metrics = task.score(found, dataclasses.replace(truth, difficult=difficult), classes)
    assert metrics['VOC_AP'] == 1
    assert metrics['AP50'] < 1


@pytest.mark.slow
@pytest.mark.parametrize('task', ['segmentation', 'detection'])
def test_training_and_evaluation_see_the_same_image(task):
    """Without augmentation, whatever the interpolation that the weights want."""
    config = dense_config(task, 'vit_tiny_patch16', 'scratch', image_size=64, image_height=48, flip=False)
    preprocessing = tasks.input_preprocessing(task, 'vit_tiny_patch16', '', config)
    data = dataset(task)
    made = tasks.find(task).create(config, len(data.classes), preprocessing, data, data.splits['train'])
    batch = {'image': data.images[:4], 'weight': np.ones(4, np.float32), **data.arrays_of(np.arange(4))}
    trained, evaluated = (made.prepare(jax.random.key(0), batch, train) for train in (True, False))
    # Pixels are rounded to whole numbers once in training and not at all otherwise.
    np.testing.assert_allclose(trained['image'], evaluated['image'], atol=1.01 / 255 / min(preprocessing.std))
    if task == 'segmentation':
        np.testing.assert_array_equal(trained['mask'], evaluated['mask'])
    else:
        np.testing.assert_array_equal(trained['classes'], evaluated['classes'])
        present = np.asarray(evaluated['classes']) >= 0
        np.testing.assert_allclose(trained['boxes'][present], evaluated['boxes'][present], atol=1e-3)
