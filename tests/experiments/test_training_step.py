"""The train step: what is frozen costs nothing and never moves, everything else trains."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

import backbones
from backbones import freezing
from backbones.preprocessing import Preprocessing
from experiments.tasks.classification import AUXILIARY_WEIGHT, Classification
from experiments.training.optimizers import decay_mask, make_optimizer
from experiments.training.state import TrainState, create_state
from experiments.training.step import make_train_step

# Its programs are large: fewer of them at once keep a worker below 2 GiB.
LARGE = 600.0

NAMES = ('resnet_micro', 'vit_micro')
# Where either family shows the mechanism; the one whose programs compile sooner, which also has statistics.
ONE_BY_DEFAULT = [pytest.param(name, marks=() if name == 'resnet_micro' else pytest.mark.exhaustive) for name in NAMES]
CLASSES = 10
BATCH = 4
IMAGE_SIZE = 32
RATE = np.float32(1e-3)
# Pixels from 0 to 1 and nothing else.
TO_ONE = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, size=IMAGE_SIZE)


def batch(seed: int = 0) -> dict:
    generator = np.random.default_rng(seed)
    return {
        'image': generator.integers(0, 256, (BATCH, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8),
        'target': generator.integers(0, CLASSES, BATCH, np.int32),
    }


@functools.cache
def model_and_variables(name: str, **options):
    """A classifier with dropout, and variables like those of ``init``, which would take longer to compile."""
    model = backbones.create_classifier(name, CLASSES, dropout=0.2, **options)
    images = jax.ShapeDtypeStruct((1, IMAGE_SIZE, IMAGE_SIZE, 3), jnp.float32)
    shapes = flatten_dict(jax.eval_shape(model.init, jax.random.key(0), images))
    generator = np.random.default_rng(0)
    variables = {}
    for path, leaf in shapes.items():
        if path[-1] in ('scale', 'var'):
            value = np.ones(leaf.shape)
        elif path[-1] in ('bias', 'mean') or 'head' in path:
            value = np.zeros(leaf.shape)
        else:
            value = generator.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape)
        variables[path] = value.astype(np.float32)
    return model, {'batch_stats': {}, **unflatten_dict(variables)}


class Training:
    """A compiled train step and the state it starts from.

    Adam's step size does not depend on the size of a gradient, so a leaf that has one moves visibly.
    """

    def __init__(self, name: str, rules: tuple, weight_decay: float, augmented: bool, **options):
        self.model, variables = model_and_variables(name, **options)
        # Donated buffers are overwritten, so every state gets its own.
        self.variables = jax.tree.map(lambda leaf: np.array(leaf, copy=True), variables)
        self.mask = freezing.mask(variables['params'], rules)
        # A clipped norm would bring the whole backward pass back if it were taken over frozen leaves.
        self.optimizer = make_optimizer('adamw', weight_decay, clip_norm=1.0)
        self.preprocessing = backbones.preprocess(name)
        task = Classification(
            CLASSES, self.preprocessing, flip=augmented, shift=2 if augmented else 0, label_smoothing=0.1
        )
        step = make_train_step(self.model, task, self.mask, self.optimizer)
        self.lowered = jax.jit(step, donate_argnums=0).lower(self.state(), batch(), RATE)

    @functools.cached_property
    def program(self):
        # The older of XLA's two code generators needs 0.9 GiB less for a GoogLeNet.
        return self.lowered.compile({'xla_cpu_use_fusion_emitters': False})

    def state(self, seed: int = 0) -> TrainState:
        variables = jax.tree.map(jnp.array, self.variables)
        return create_state(variables, self.mask, self.optimizer, jax.random.key(seed))

    def run(self, steps: int, seed: int = 0) -> dict:
        """Path → value of everything the state holds after some steps, but its key."""
        state = self.state(seed)
        for step in range(steps):
            state, metrics = self.program(state, batch(step), RATE)
            assert np.isfinite(float(metrics['loss']))
        assert int(state.step) == steps
        leaves = flatten_dict({**state.variables(), 'metrics': metrics}, sep='/')
        return {path: np.array(leaf, copy=True) for path, leaf in leaves.items()}


@functools.cache
def linear(name: str) -> Training:
    return Training(name, freezing.FREEZE_BACKBONE, weight_decay=0.5, augmented=False)


@functools.cache
def scratch(name: str) -> Training:
    """Without weight decay, so that only a gradient can move a leaf."""
    return Training(name, freezing.TRAIN_EVERYTHING, weight_decay=0.0, augmented=True)


@pytest.mark.parametrize('name', ONE_BY_DEFAULT)
def test_a_frozen_step_costs_a_forward_pass(name):
    """Compiled FLOPs of the linear regime against those of inference, both with the same preprocessing."""
    training = linear(name)

    @jax.jit
    def forward(variables, images):
        return training.model.apply(variables, training.preprocessing(images), train=False)

    inference = forward.lower(training.state().variables(), batch()['image']).compile().cost_analysis()['flops']
    frozen = training.program.cost_analysis()['flops']
    assert frozen <= 1.05 * inference
    # The bound can be missed: a step that trains everything is far above it.
    assert scratch(name).program.cost_analysis()['flops'] > 2 * inference


@pytest.mark.slow
def test_frozen_auxiliary_heads_cost_nothing():
    """They are not even traced: as many operations as without them, and more where they train alone."""

    def flops(rules: tuple, auxiliary_classes: int) -> float:
        training = Training('googlenet', rules, 0.5, augmented=False, auxiliary_classes=auxiliary_classes)
        state, _ = training.lowered.out_info
        assert jax.tree.structure(state) == jax.tree.structure(training.state())  # no statistics are lost
        return training.lowered.cost_analysis()['flops']

    without = flops(freezing.FREEZE_BACKBONE, 0)
    assert flops(freezing.FREEZE_BACKBONE, CLASSES) == without
    assert flops((('backbone/auxiliary.*', 'trainable'), *freezing.FREEZE_BACKBONE), CLASSES) > without


@pytest.mark.exhaustive
def test_auxiliary_heads_train():
    training = Training(
        'googlenet', freezing.TRAIN_EVERYTHING, weight_decay=0.0, augmented=False, auxiliary_classes=CLASSES
    )
    before = flatten_dict(training.variables, sep='/')
    after = training.run(steps=2)
    assert [path for path, leaf in before.items() if np.array_equal(after[path], leaf)] == []
    assert len([path for path in before if '/auxiliary' in path]) == 2 * 9


class Linear(nn.Module):
    """A classifier of the mean colour, with a second one on the side that trains on its own."""

    auxiliary_classes: int
    num_classes: int = CLASSES

    @nn.compact
    def __call__(self, images, train: bool = False):
        colour = images.mean((1, 2))
        logits = nn.Dense(self.auxiliary_classes, name='auxiliary')(colour)
        if train:
            self.sow('auxiliary_logits', 'logits', logits)
        return nn.Dense(CLASSES, name='head')(colour)


@pytest.mark.parametrize('label_smoothing', [pytest.param(0.0, marks=pytest.mark.exhaustive), 0.1])
def test_auxiliary_logits_add_their_weighted_loss(label_smoothing):
    model, optimizer = Linear(CLASSES), make_optimizer('sgd', 0.0)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 2, 2, 3)))
    mask = freezing.mask(variables['params'], freezing.TRAIN_EVERYTHING)
    step = make_train_step(model, Classification(CLASSES, TO_ONE, label_smoothing=label_smoothing), mask, optimizer)
    _, metrics = jax.jit(step)(create_state(variables, mask, optimizer, jax.random.key(0)), batch(), RATE)

    colour, losses = (batch()['image'] / 255).mean((1, 2)), {}
    targets = np.eye(CLASSES)[batch()['target']] * (1 - label_smoothing) + label_smoothing / CLASSES
    for name, layer in variables['params'].items():
        logits = colour @ np.asarray(layer['kernel'])
        losses[name] = -(targets * (logits - np.log(np.exp(logits).sum(-1, keepdims=True)))).sum(-1).mean()
    expected = losses['head'] + AUXILIARY_WEIGHT * losses['auxiliary']
    assert float(metrics['loss']) == pytest.approx(expected, rel=1e-5)


def test_auxiliary_heads_of_another_number_of_classes():
    model, optimizer = Linear(1000), make_optimizer('sgd', 0.0)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 2, 2, 3)))
    mask = freezing.mask(variables['params'], freezing.TRAIN_EVERYTHING)
    step = make_train_step(model, Classification(CLASSES, TO_ONE), mask, optimizer)
    with pytest.raises(backbones.UserError, match=r'1000 classes, but the classifier has 10; .* auxiliary_classes=10'):
        jax.eval_shape(step, create_state(variables, mask, optimizer, jax.random.key(0)), batch(), RATE)


@pytest.mark.parametrize('optimizer', ['adamw', 'sgd'])
@pytest.mark.parametrize('name', NAMES)
def test_the_optimizer_state_holds_only_trained_leaves(name, optimizer):
    _, variables = model_and_variables(name)
    mask = freezing.mask(variables['params'], freezing.FREEZE_BACKBONE)
    state = create_state(variables, mask, make_optimizer(optimizer, 0.1, clip_norm=1.0), jax.random.key(0))
    moments = {'adamw': 2, 'sgd': 1}[optimizer]
    head = [leaf.shape for leaf in jax.tree.leaves(variables['params']['head'])]
    held = [leaf.shape for leaf in jax.tree.leaves(state.optimizer_state) if jnp.ndim(leaf) > 0]
    assert sorted(held) == sorted(moments * head)
    assert set(state.trainable) == {'head'}
    assert set(state.frozen) == {'backbone'}


@pytest.mark.parametrize('name', ONE_BY_DEFAULT)
def test_what_is_frozen_is_the_same_bits_after_fifty_steps(name):
    """Parameters and statistics alike, under weight decay, dropout and clipping; the head has moved."""
    training = linear(name)
    before = flatten_dict(training.variables, sep='/')
    after = training.run(steps=50)
    frozen = [path for path in before if not path.startswith('params/head/')]
    assert len(frozen) > 20
    for path in frozen:
        assert after[path].tobytes() == before[path].tobytes(), path
    for path in ('params/head/kernel', 'params/head/bias'):
        assert not np.array_equal(after[path], before[path]), path


@pytest.mark.parametrize('name', ONE_BY_DEFAULT)
def test_training_from_scratch_moves_every_leaf(name):
    """Two steps: the head's kernel starts at zero, so the first one sends no gradient into the backbone."""
    training = scratch(name)
    before = flatten_dict(training.variables, sep='/')
    after = training.run(steps=2)
    unmoved = [path for path, leaf in before.items() if np.array_equal(after[path], leaf)]
    assert unmoved == []


def test_only_statistics_of_trained_stages_move():
    """Neither whole backbone: the first stages frozen, the last one trained."""
    rules = (('backbone/stage4/.*', 'trainable'), *freezing.FREEZE_BACKBONE)
    training = Training('resnet_micro', rules, weight_decay=0.1, augmented=False)
    before, after = flatten_dict(training.variables, sep='/'), training.run(steps=2)
    moved = {path for path, leaf in before.items() if not np.array_equal(after[path], leaf)}
    expected = {
        path
        for path in before
        if path.startswith(('params/head', 'params/backbone/stage4', 'batch_stats/backbone/stage4'))
    }
    assert moved == expected


@pytest.mark.parametrize('build', [linear, scratch])
@pytest.mark.parametrize('name', ONE_BY_DEFAULT)
def test_the_same_key_gives_the_same_bits(name, build):
    training = build(name)
    first, second, other = training.run(3, seed=0), training.run(3, seed=0), training.run(3, seed=1)
    assert first.keys() == second.keys()
    assert all(first[path].tobytes() == second[path].tobytes() for path in first)
    assert first['params/head/kernel'].tobytes() != other['params/head/kernel'].tobytes()


def test_every_step_draws_its_own_randomness():
    """Nothing but the step differs, and dropout is the only randomness of this step."""
    training = linear('resnet_micro')
    kernels = []
    for step in (0, 1):
        state, _ = training.program(training.state().replace(step=jnp.array(step, jnp.int32)), batch(), RATE)
        kernels.append(np.array(state.trainable['head']['kernel']))
    assert not np.array_equal(*kernels)


def test_metrics():
    """The head starts at zero: all logits are equal, the first class wins, and the loss is that of guessing."""
    _, metrics = linear('resnet_micro').program(linear('resnet_micro').state(), batch(), RATE)
    assert float(metrics['loss']) == pytest.approx(np.log(CLASSES), rel=1e-5)
    assert float(metrics['accuracy']) == np.mean(batch()['target'] == 0)
    assert float(metrics['gradient_norm']) > 0


@pytest.mark.parametrize('optimizer', ['adamw', 'sgd'])
@pytest.mark.parametrize('name', NAMES)
def test_weight_decay_acts_on_kernels_only(name, optimizer):
    """With zero gradients only the decay is left: - rate · decay · kernel, and nothing for any other leaf."""
    # The paths decide, not the shapes: with one shape the update compiles once.
    params = jax.tree.map(lambda leaf: jnp.array([1.0, -2.0]), model_and_variables(name)[1]['params'])
    rate, decay = 1.0, 0.5
    transformation = make_optimizer(optimizer, decay)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = transformation.update(zeros, transformation.init(params), params)
    # Nesterov's momentum adds 0.9 of the first gradient to itself.
    factor = {'adamw': 1.0, 'sgd': 1.9}[optimizer]
    updates, params = flatten_dict(updates), flatten_dict(params)
    assert {path[-1] for path in params} >= {'kernel', 'bias', 'scale'}
    for path, update in updates.items():
        expected = -rate * decay * factor * params[path] if path[-1] == 'kernel' else jnp.zeros_like(params[path])
        np.testing.assert_allclose(update, expected, rtol=1e-5, atol=0, err_msg='/'.join(path))


def test_the_decay_mask_leaves_positions_and_tokens_alone():
    mask = flatten_dict(decay_mask(model_and_variables('vit_micro')[1]['params']), sep='/')
    assert not mask['backbone/position_embedding']
    assert not mask['backbone/class_token']
    assert mask['backbone/patch_embedding/kernel']
    assert {path.rsplit('/')[-1] for path, decays in mask.items() if decays} == {'kernel'}


@pytest.mark.parametrize('optimizer', ['adamw', 'sgd'])
def test_clipping_bounds_the_norm_of_the_gradient(optimizer):
    """A long gradient is cut to the given norm; a short one is kept."""
    params = {'head': {'kernel': jnp.zeros(4), 'bias': jnp.zeros(4)}}
    direction = jax.tree.map(lambda leaf: jnp.arange(1.0, leaf.size + 1), params)
    unit = jax.tree.map(lambda leaf: leaf / optax.tree.norm(direction), direction)

    def updates(length: float, clip_norm: float):
        transformation = make_optimizer(optimizer, 0.0, clip_norm)
        gradients = jax.tree.map(lambda leaf: length * leaf, unit)
        return flatten_dict(transformation.update(gradients, transformation.init(params), params)[0], sep='/')

    def close(left, right):
        # Adam's own epsilon of 1e-8 is all that may remain of the length.
        return all(np.allclose(left[path], right[path], rtol=1e-5, atol=0) for path in left)

    assert close(updates(length=50.0, clip_norm=2.0), updates(length=2.0, clip_norm=0.0))
    assert close(updates(length=1.0, clip_norm=2.0), updates(length=1.0, clip_norm=0.0))
    if optimizer == 'sgd':  # Adam's step has one size anyway
        assert not close(updates(length=50.0, clip_norm=0.0), updates(length=2.0, clip_norm=0.0))


def test_an_unknown_optimizer_offers_the_nearest():
    with pytest.raises(backbones.UserError, match="unknown optimizer 'adam'; did you mean 'adamw'"):
        make_optimizer('adam', 0.0)
