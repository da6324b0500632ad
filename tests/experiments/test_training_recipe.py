"""How a step learns: accumulation, averages, weights of examples and classes, mixing, and numbers that are none."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st

import backbones
from backbones import UserError, freezing
from backbones.preprocessing import Preprocessing
from experiments.data.augmentation import mix, random_resized_crop
from experiments.tasks.classification import Classification
from experiments.training import optimizers
from experiments.training.state import TrainState, create_state
from experiments.training.step import Recipe, make_evaluation_step, make_train_step

CLASSES = 5
SIZE = 16


def batch(count: int, seed: int = 0) -> dict:
    generator = np.random.default_rng(seed)
    return {
        'image': generator.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8),
        'target': generator.integers(0, CLASSES, count, np.int32),
        'weight': np.ones(count, np.float32),
    }


class Small(nn.Module):
    """Two layers, which compile in no time."""

    num_classes: int = CLASSES

    @nn.compact
    def __call__(self, images, train: bool = False):
        x = nn.gelu(nn.Dense(16, name='backbone')(images.reshape(images.shape[0], -1)))
        return nn.Dense(self.num_classes, name='head')(x)


TASK = Classification(CLASSES, Preprocessing(mean=(0.5,) * 3, std=(1.0,) * 3, size=SIZE))


class Run:
    """A step of a model that has neither BatchNorm nor dropout, and its state."""

    def __init__(
        self, learning=None, optimizer='adamw', scales=None, rules=freezing.TRAIN_EVERYTHING, model=None, task=TASK
    ):
        self.learning, self.model = learning or Recipe(), model or Small()
        params = jax.jit(self.model.init)(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))['params']
        # A head of zeros would hide the backbone's gradient.
        params['head']['kernel'] = 0.02 * jax.random.normal(jax.random.key(1), params['head']['kernel'].shape)
        mask, transformation = freezing.mask(params, rules), optimizers.make_optimizer(optimizer, 0.01)
        step = jax.jit(make_train_step(self.model, task, mask, transformation, self.learning, scales))
        self.step = functools.partial(step, learning_rate=jnp.float32(1e-2))
        averaged = bool(self.learning.ema_decay)
        self.state = create_state({'params': params}, mask, transformation, jax.random.key(2), averaged)

    def __call__(self, *batches: dict) -> tuple[TrainState, dict]:
        state = self.state
        for each in batches:
            state, metrics = self.step(state, each)
        return state, metrics


def differences(one: TrainState, other: TrainState) -> float:
    left, right = (flatten_dict(state.trainable) for state in (one, other))
    return max(float(np.abs(left[path] - right[path]).max()) for path in left)


@pytest.mark.parametrize('backbone', ['', pytest.param('vit_micro', marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    'changes',
    [
        pytest.param({}, marks=pytest.mark.exhaustive),
        {'class_weights': (1.0, 2.0, 0.5, 1.0, 3.0), 'label_smoothing': 0.1},
    ],
)
def test_four_parts_of_32_equal_one_batch_of_128(changes, backbone):
    """Plain gradient descent, so that a gradient's error is a parameter's error."""
    examples, model = batch(128), backbones.create_classifier(backbone, CLASSES) if backbone else Small()
    task = dataclasses.replace(TASK, **changes)
    run = Run(optimizer='sgd', model=model, task=task)
    whole, metrics = run(examples)
    parts, same = Run(Recipe(accumulation=4), 'sgd', model=model, task=task)(examples)
    assert differences(whole, parts) < 1e-6
    assert differences(whole, run.state) > 1e-4
    for name in ('loss', 'accuracy', 'gradient_norm'):
        assert float(same[name]) == pytest.approx(float(metrics[name]), rel=1e-5)


def test_parts_must_be_equal():
    with pytest.raises(UserError, match='a batch of 10 cannot be split into 4 equal micro-batches'):
        Run(Recipe(accumulation=4))(batch(10))


def test_the_average_follows_the_parameters():
    run = Run(Recipe(ema_decay=0.75))
    first, _ = run(batch(8))
    second, _ = run(batch(8), batch(8, seed=1))
    for path, start in flatten_dict(run.state.trainable).items():
        one, two = (flatten_dict(state.trainable)[path] for state in (first, second))
        expected = 0.75 * (0.75 * start + 0.25 * one) + 0.25 * two
        np.testing.assert_allclose(flatten_dict(second.average)[path], expected, rtol=1e-5, atol=1e-7)
    averaged = flatten_dict(second.variables()['params'])
    assert all((averaged[path] == leaf).all() for path, leaf in flatten_dict(second.average).items())


def test_only_trained_leaves_have_an_average():
    run = Run(Recipe(ema_decay=0.9), rules=freezing.FREEZE_BACKBONE)
    assert set(run.state.average) == {'head'}
    assert set(run(batch(4))[0].variables()['params']) == {'backbone', 'head'}


def test_rows_without_weight_do_not_count():
    """A batch with two unreadable rows is the batch without them."""
    examples = batch(8)
    examples['weight'] = np.array([1, 1, 0, 1, 1, 0, 1, 1], np.float32)
    kept = {name: values[examples['weight'] > 0] for name, values in examples.items()}
    filled, metrics = Run(optimizer='sgd')(examples)
    plain, same = Run(optimizer='sgd')(kept)
    assert differences(filled, plain) < 1e-6
    assert float(metrics['accuracy']) == pytest.approx(float(same['accuracy']))
    assert float(metrics['loss']) == pytest.approx(float(same['loss']), rel=1e-5)


def test_a_batch_of_nothing_changes_nothing_but_the_decay():
    examples = batch(4)
    examples['weight'] = np.zeros(4, np.float32)
    state, metrics = Run(optimizer='sgd')(examples)
    assert float(metrics['loss']) == 0
    assert float(metrics['gradient_norm']) == 0
    assert np.isfinite(flatten_dict(state.trainable, sep='/')['head/kernel']).all()


def test_class_weights_are_those_of_the_mean():
    """Torch's rule: weights of the examples' classes, divided by their sum."""
    examples, weights = batch(16), np.array([1.0, 2.0, 0.5, 4.0, 1.0], np.float32)
    _, metrics = Run(task=dataclasses.replace(TASK, class_weights=tuple(map(float, weights))))(examples)
    run = Run()
    logits = run.model.apply(run.state.variables(), TASK.preprocessing(jnp.asarray(examples['image'])))
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, examples['target'])
    expected = np.average(losses, weights=weights[examples['target']])
    assert float(metrics['loss']) == pytest.approx(expected, rel=1e-5)


def test_scales_multiply_the_learning_rate():
    run = Run(optimizer='sgd')
    half = jax.tree.map(lambda leaf: 0.5, run.state.trainable)
    full, _ = run(batch(8))
    slow, _ = Run(optimizer='sgd', scales=half)(batch(8))
    for path, start in flatten_dict(run.state.trainable).items():
        moved, slower = (flatten_dict(state.trainable)[path] - start for state in (full, slow))
        np.testing.assert_allclose(slower, moved / 2, rtol=1e-3, atol=1e-7)


def test_a_number_that_is_none_leaves_the_state_as_it_was():
    """An update that overflows, then a batch: nothing but the step number moves."""
    run = Run(Recipe(ema_decay=0.9))
    broken = jax.tree.map(jnp.copy, run.state)
    broken.trainable['head']['kernel'] = broken.trainable['head']['kernel'].at[0, 0].set(jnp.inf)
    after, metrics = run.step(broken, batch(8))
    assert not bool(metrics['finite'])
    assert int(after.step) == 1
    for one, other in zip(
        jax.tree.leaves((broken.trainable, broken.optimizer_state, broken.average)),
        jax.tree.leaves((after.trainable, after.optimizer_state, after.average)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    assert bool(run(batch(8))[1]['finite'])


def test_the_schedule_rises_and_falls_from_where_a_phase_begins():
    schedule = optimizers.make_schedule(0.1, warmup=10, steps=100, first=40)
    assert [float(schedule(step)) for step in (40, 45, 50)] == pytest.approx([0.0, 0.05, 0.1])
    assert float(schedule(95)) == pytest.approx(0.05)
    assert float(schedule(140)) == pytest.approx(0, abs=1e-8)
    assert float(optimizers.make_schedule(0.1, warmup=80, steps=100)(50)) == pytest.approx(0.1)


@pytest.mark.parametrize('clip', [0.0, 1.0])
@pytest.mark.parametrize('optimizer', optimizers.OPTIMIZERS)
def test_what_trained_before_goes_on_and_the_rest_begins(optimizer, clip):
    """After a change of phase each leaf gets the update of an optimizer that has seen just this leaf's gradients."""
    params = {'head': {'kernel': jnp.ones((3, 2)), 'bias': jnp.ones(2)}, 'backbone': {'kernel': jnp.ones((2, 2))}}
    head = {'head': params['head']}
    # Small enough not to be clipped, and different in every step.
    gradients = [jax.tree.map(lambda leaf, scale=scale: scale * leaf, params) for scale in (0.01, 0.03, -0.02)]

    probing = optimizers.make_optimizer(optimizer, 0.1, clip)
    state = probing.init(head)
    for each in gradients[:2]:
        _, state = probing.update({'head': each['head']}, state, head)
    on, _ = probing.update({'head': gradients[2]['head']}, state, head)

    kept = frozenset({('head', 'kernel'), ('head', 'bias')})
    tuning = optimizers.make_optimizer(optimizer, 0.1, clip, kept)
    carried, count = optimizers.carry_over(state, tuning.init(params))
    assert count == len(jax.tree.leaves(state))
    updates, _ = tuning.update(gradients[2], carried, params)

    fresh = optimizers.make_optimizer(optimizer, 0.1, clip)
    new, _ = fresh.update({'backbone': gradients[2]['backbone']}, fresh.init({'backbone': params['backbone']}), {
        'backbone': params['backbone']
    })  # fmt: skip
    for path, update in flatten_dict({**on, **new}).items():
        np.testing.assert_allclose(flatten_dict(updates)[path], update, rtol=1e-6)


# --- Mixing. ----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), mixup=st.sampled_from([0.0, 0.2, 1.0]), cutmix=st.sampled_from([0.0, 1.0]))
def test_mixed_targets_say_what_is_in_the_image(seed, mixup, cutmix):
    """Images of one value per example: the mean of a mixed image is the mean by its target."""
    values = jnp.asarray(np.random.default_rng(seed).permutation(8).astype(np.float32))
    images = jnp.broadcast_to(values[:, None, None, None], (8, 6, 10, 3))
    targets = jax.nn.one_hot(jnp.arange(8), 8)
    mixed, shares = mix(jax.random.key(seed), images, targets, mixup, cutmix)
    np.testing.assert_allclose(shares.sum(-1), 1, rtol=1e-6)
    np.testing.assert_allclose(mixed.mean((1, 2, 3)), shares @ values, atol=1e-4)
    partners = np.arange(8) ^ 1
    others = np.asarray(shares).copy()
    others[np.arange(8), np.arange(8)] = others[np.arange(8), partners] = 0
    assert (others == 0).all()
    if mixup or cutmix:
        assert (np.asarray(shares) != np.asarray(targets)).any()
    else:
        np.testing.assert_array_equal(mixed, images)


def test_cutmix_pastes_a_rectangle():
    images = jnp.stack([jnp.zeros((8, 8, 1)), jnp.ones((8, 8, 1))])
    cut = jax.jit(lambda key: mix(key, images, jnp.eye(2), 0.0, 1.0))
    for seed in range(10):
        mixed, _ = cut(jax.random.key(seed))
        pasted = np.asarray(mixed[0, :, :, 0]) == 1
        rows, columns = pasted.any(1), pasted.any(0)
        np.testing.assert_array_equal(pasted, rows[:, None] & columns[None])
        np.testing.assert_array_equal(np.asarray(mixed[1, :, :, 0]), 1 - pasted)


def test_an_odd_batch_has_no_pairs():
    with pytest.raises(UserError, match='need an even batch_size, not 3'):
        mix(jax.random.key(0), jnp.zeros((3, 4, 4, 1)), jnp.eye(3), 0.2, 0.0)


# --- Random resized crops. --------------------------------------------------------------------------------------------


def test_a_crop_of_everything_is_a_resize():
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3), np.uint8))
    cropped = random_resized_crop(jax.random.key(0), images, 8, 0.9999999, (1.0, 1.0000001))
    expected = jax.image.resize(images.astype(jnp.float32), (2, 8, 8, 3), 'bilinear')
    assert np.abs(np.asarray(cropped, np.float32) - np.asarray(expected)).max() <= 0.51


def test_crops_are_parts_of_the_image():
    """Along a ramp, a crop is a ramp of lower slope that lies inside."""
    ramp = jnp.broadcast_to(jnp.arange(64, dtype=jnp.uint8)[None, None, :, None] * 4, (32, 64, 64, 1))
    cropped = np.asarray(random_resized_crop(jax.random.key(3), ramp, 32, 0.1), np.float32)
    assert cropped.min() >= 0
    assert cropped.max() <= 252
    slopes = (cropped[:, 16, -4, 0] - cropped[:, 16, 4, 0]) / (32 - 8)
    widths = slopes / 4 * 32
    assert (widths > 64 * np.sqrt(0.1 * 3 / 4) - 2).all()
    assert (widths <= 64.5).all()
    assert widths.std() > 5


# --- Evaluation. ------------------------------------------------------------------------------------------------------


def test_sums_over_padded_batches_are_exact():
    run = Run()
    step = jax.jit(make_evaluation_step(run.model, TASK))
    examples = batch(10)
    whole = step(run.state.variables(), examples)
    padded = {name: np.concatenate([values, values[:6]]) for name, values in examples.items()}
    padded['weight'][10:] = 0
    sums = step(run.state.variables(), padded)
    assert int(sums['count']) == int(whole['count']) == 10
    assert sums['valid'].tolist() == [True] * 10 + [False] * 6
    np.testing.assert_allclose(sums['predictions']['logits'][:10], whole['predictions']['logits'], atol=1e-6)
    assert float(sums['loss']) == pytest.approx(float(whole['loss']), rel=1e-5)
