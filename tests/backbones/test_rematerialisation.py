"""Gradient checkpointing: the same numbers from less memory."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import backbones
from backbones import UserError, freezing
from backbones.rematerialisation import COMPILER_OPTIONS, checkpointed
from tests.backbones import small_networks

FAMILIES = (
    ('vit_micro', {'stochastic_depth': 0.5}),
    ('resnet_micro', {}),
    ('hiera_tiny', {'channels': 12, 'depths': (1, 2, 1, 1), 'stochastic_depth': 0.5}),
    ('swin_tiny', {'channels': 12, 'depths': (1, 2, 2, 1)}),
    ('convnext_tiny', {'channels': (8, 16, 24, 32), 'depths': (1, 1, 2, 1), 'stochastic_depth': 0.5}),
    ('mobilenet_v4_hybrid_medium', {**small_networks.MOBILENET_V4, 'stochastic_depth': 0.5}),
    ('googlenet', {'auxiliary_classes': 10}),
    ('eva02_base_patch14', {'channels': 24, 'depth': 4, 'heads': 3, 'patch': 16, 'stochastic_depth': 0.5}),
    ('convnextv2_atto', {'channels': (8, 16, 24, 32), 'depths': (1, 1, 2, 1), 'stochastic_depth': 0.5}),
    ('dinov3_vit_small_plus', {'channels': 24, 'depth': 4, 'heads': 3, 'stochastic_depth': 0.5}),
)
IDS = [name for name, _ in FAMILIES]
BATCH = 8


def images(batch=BATCH):
    return np.random.default_rng(0).normal(size=(batch, 32, 32, 3)).astype(np.float32)


@functools.cache
def built(name, options):
    model = backbones.create_classifier(name, 10, **dict(options), dropout=0.5)
    variables = jax.jit(model.init)(jax.random.key(0), images())
    head = variables['params']['head']
    head['kernel'] = 0.1 * jax.random.normal(jax.random.key(1), head['kernel'].shape)
    return model, variables


# Compiled quickly.
jit = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})


def loss_of(model, variables, contexts):
    """``params → (loss, updates of all collections)`` of one training pass."""

    def loss(params):
        with contextlib.ExitStack() as stack:
            for context in contexts:
                stack.enter_context(context())
            logits, updates = model.apply(
                {**variables, 'params': params},
                images(),
                train=True,
                mutable=['batch_stats', 'batch_moments', 'auxiliary_logits'],
                rngs={'dropout': jax.random.key(2)},
            )
        return (logits**2).mean(), updates

    return loss


def close(left, right, tolerance) -> None:
    """Equal within a share of each array's norm."""
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for x, y in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert np.linalg.norm(x - y) <= tolerance * np.linalg.norm(x) + 1e-7


@pytest.mark.parametrize(
    ('name', 'options'),
    [FAMILIES[0], *(pytest.param(*each, marks=pytest.mark.exhaustive) for each in FAMILIES[1:])],
    ids=IDS,
)
def test_loss_gradients_and_statistics_are_the_same(name, options):
    model, variables = built(name, tuple(options.items()))
    results = [
        jit(jax.value_and_grad(loss_of(model, variables, contexts), has_aux=True))(variables['params'])
        for contexts in ((), (checkpointed,))
    ]
    ((loss, updates), gradients), ((again, updates_again), gradients_again) = results
    close(loss, again, 1e-6)
    close(updates, updates_again, 1e-5)
    close(gradients, gradients_again, 1e-4)


@pytest.mark.parametrize(
    ('name', 'options'),
    [pytest.param(*case, marks=pytest.mark.slow if case[0] == 'resnet_micro' else ()) for case in FAMILIES[:2]],
    ids=IDS[:2],
)
def test_only_the_inputs_of_blocks_are_kept(name, options):
    model, variables = built(name, tuple(options.items()))

    def kept(*contexts) -> int:
        """Bytes that the forward pass leaves to the backward pass, without the parameters."""
        loss = loss_of(model, variables, contexts)
        backward = jax.eval_shape(lambda params: jax.vjp(loss, params, has_aux=True)[1], variables['params'])
        leaves = jax.tree.leaves(backward)
        parameters = sum(leaf.nbytes for leaf in jax.tree.leaves(variables['params']))
        return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) - parameters

    plain, saved = kept(), kept(checkpointed)
    assert saved < plain / 2
    # With a frozen backbone's blocks in inference mode, which need their running statistics, in either order.
    mask = freezing.mask(variables['params'], freezing.FREEZE_BACKBONE)
    frozen = functools.partial(freezing.inference_where_frozen, mask)
    statistics = sum(leaf.nbytes for leaf in jax.tree.leaves(variables.get('batch_stats', {})))
    assert kept(frozen, checkpointed) == kept(checkpointed, frozen) <= saved + statistics


@pytest.mark.slow
def test_the_compiled_program_needs_less_memory():
    model, variables = built('vit_micro', ())

    def compiled(*contexts) -> int:
        function = jax.jit(
            jax.value_and_grad(loss_of(model, variables, contexts), has_aux=True), compiler_options=COMPILER_OPTIONS
        )
        return function.lower(variables['params']).compile().memory_analysis().temp_size_in_bytes

    assert compiled(checkpointed) < 0.7 * compiled()


def test_frozen_statistics_stay_when_blocks_run_again():
    model, variables = built('resnet_micro', ())
    mask = freezing.mask(variables['params'], (('backbone/stage[12]/.*', 'frozen'), ('.*', 'trainable')))
    frozen = functools.partial(freezing.inference_where_frozen, mask)
    before = variables['batch_stats']['backbone']
    for contexts in ((frozen, checkpointed), (checkpointed, frozen)):
        _, updates = jit(loss_of(model, variables, contexts))(variables['params'])
        after = updates['batch_stats']['backbone']
        for stage, stays in (('stage1', True), ('stage2', True), ('stage3', False), ('stage4', False)):
            same = jax.tree.map(lambda x, y: bool((x == y).all()), before[stage], after[stage])
            assert all(each == stays for each in jax.tree.leaves(same))


def test_what_matches_runs_under_remat_and_nothing_else():
    model, variables = built('vit_micro', tuple(FAMILIES[0][1].items()))

    def remats(*contexts) -> int:
        jaxpr = jax.make_jaxpr(loss_of(model, variables, contexts))(variables['params'])
        return sum(equation.primitive.name == 'remat2' for equation in jaxpr.eqns)

    assert remats() == 0
    assert remats(checkpointed) == 4
    assert remats(lambda: checkpointed('backbone/stage[34]')) == 2
    assert remats(lambda: checkpointed('backbone/patch')) == 0


def test_a_pattern_that_is_no_regular_expression():
    with pytest.raises(UserError, match=r"pattern '\(' is not a valid regular expression"):
        checkpointed('(')


def test_initialising_is_as_without():
    model, variables = built('vit_micro', ())
    with checkpointed():
        again = jax.eval_shape(model.init, jax.random.key(0), jnp.asarray(images()))
    assert jax.tree.map(jnp.shape, again) == jax.tree.map(jnp.shape, variables)
