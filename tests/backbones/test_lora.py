"""LoRA: adapters start as nothing, ``applied`` and ``merge`` agree, and a frozen kernel has no gradient."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

import backbones
from backbones import UserError, depth, freezing, lora, rematerialisation
from backbones.layers.convolution import Conv
from tests.backbones import small_networks

SIDE = 32
SHAPE = (2, SIDE, SIDE, 3)
FAMILIES = (
    ('vit_micro', {}),
    ('resnet_micro', {}),
    ('efficientnet_lite0', {}),
    ('mobilenet_v3_small', {}),
    ('mobilenet_v4_hybrid_medium', small_networks.MOBILENET_V4),
    ('googlenet', {'auxiliary_classes': 10}),
    ('yolo11n', {}),
    ('vgg16', {'hidden_channels': 8}),
    ('hiera_tiny', {'channels': 12, 'depths': (1, 2, 1, 1)}),
    ('swin_tiny', {'channels': 12, 'depths': (1, 2, 1, 1)}),
    # Its usual factor of 1e-6 would hide what a block does.
    ('convnext_tiny', {'channels': (8, 16, 24, 32), 'depths': (1, 1, 1, 1), 'layer_scale': 1.0}),
    ('convnextv2_atto', {'channels': (8, 16, 24, 32), 'depths': (1, 1, 1, 1)}),
    ('cspresnet50', {'depths': (1, 1, 1, 1), 'channels': (16, 32, 48, 64)}),
    ('siglip_vit_base_patch16', {'channels': 24, 'depth': 4, 'heads': 3}),
    # In float32 their factors of 1e-5 would hide what a block does.
    ('eva02_base_patch14', {'channels': 24, 'depth': 4, 'heads': 3, 'patch': 16}),
    ('dinov3_vit_small_plus', {'channels': 24, 'depth': 4, 'heads': 3, 'layer_scale': 1.0}),
    ('vit_wee_patch16_reg1_gap', {'channels': 24, 'depth': 5, 'heads': 3, 'layer_scale': 1.0}),
)
IDS = [name for name, _ in FAMILIES]
QUICK = FAMILIES[:2]


# Compiled quickly.
jit = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})


def images():
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


@functools.cache
def built(name, options=()):
    """A classifier with a head that is not zero, so that its logits show what changes before it."""
    model = backbones.create_classifier(name, 10, **dict(options), dropout=0.0)
    variables = jit(model.init)(jax.random.key(0), images())
    head = variables['params']['head']
    head['kernel'] = jax.random.normal(jax.random.key(1), head['kernel'].shape)
    return model, variables, lora.targets(model, variables, SHAPE)


def with_adapters(name, options, rank=4):
    """Adapters as they would be after some training."""
    model, variables, targets = built(name, tuple(options.items()))
    leaves = flatten_dict(lora.add(variables['params'], targets, rank, jax.random.key(2)))
    for index, path in enumerate(sorted(leaves)):
        if path[-1] == 'lora_b':
            leaves[path] = 0.05 * jax.random.normal(jax.random.fold_in(jax.random.key(3), index), leaves[path].shape)
    return model, variables, unflatten_dict(leaves)


@functools.cache
def compiled(model, scale):
    def apply(variables, x):
        with contextlib.nullcontext() if scale is None else lora.applied(scale):
            return model.apply(variables, x)

    return jit(apply)


def logits(model, variables, params, scale=None):
    return np.asarray(compiled(model, scale)({**variables, 'params': params}, images()))


@pytest.mark.parametrize(
    ('name', 'options'),
    [FAMILIES[0], *(pytest.param(*each, marks=pytest.mark.exhaustive) for each in FAMILIES[1:])],
    ids=IDS,
)
def test_merged_equals_applied(name, options):
    model, variables, params = with_adapters(name, options)
    before = logits(model, variables, variables['params'])
    applied = logits(model, variables, params, 0.5)
    merged = lora.merge(params, 0.5)
    assert jax.tree.structure(merged) == jax.tree.structure(variables['params'])
    largest = np.abs(applied).max()
    np.testing.assert_allclose(logits(model, variables, merged) / largest, applied / largest, rtol=0, atol=1e-5)
    assert np.abs(applied - before).max() / largest > 1e-3
    # Without the context the adapters are not seen.
    np.testing.assert_array_equal(logits(model, variables, params), before)


@pytest.mark.parametrize(
    ('name', 'options'),
    [pytest.param(*case, marks=pytest.mark.slow if case[0] == 'resnet_micro' else ()) for case in QUICK],
    ids=IDS[:2],
)
def test_new_adapters_change_nothing(name, options):
    model, variables, targets = built(name)
    params = lora.add(variables['params'], targets, 4, jax.random.key(0))
    np.testing.assert_array_equal(logits(model, variables, params, 0.5), logits(model, variables, variables['params']))
    leaves = flatten_dict(params, sep='/')
    for path in targets:
        inputs, outputs = leaves[f'{path}/kernel'].shape[-2:]
        a, b = leaves[f'{path}/lora_a'], leaves[f'{path}/lora_b']
        assert (a.shape, b.shape) == ((inputs, 4), (4, outputs))
        assert 0.9 / inputs**0.5 < np.abs(a).max() <= 1 / inputs**0.5
        assert not b.any()


@pytest.mark.slow
def test_only_adapters_have_a_gradient_whatever_else_is_in_force():
    name = 'vit_micro'
    model, _, params = with_adapters(name, {})
    rules = (('.*/lora_[ab]|head/.*', 'trainable'), ('.*', 'frozen'))
    mask = freezing.mask(params, rules)
    trainable, frozen = freezing.split(params, mask)
    x = images()

    def loss(trainable, *contexts):
        if contexts:
            with contexts[0]():
                return loss(trainable, *contexts[1:])
        tree = freezing.join(trainable, frozen)
        return (model.apply({'params': tree}, x, train=True, rngs={'dropout': jax.random.key(0)}) ** 2).mean()

    adapted, again = lora.applied, rematerialisation.checkpointed
    frozen_context = functools.partial(freezing.inference_where_frozen, mask)
    plain = jit(jax.grad(lambda tree: loss(tree, adapted)))(trainable)
    assert set(flatten_dict(plain)) == {path for path, trains in flatten_dict(mask).items() if trains}
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(plain))
    for order in ((adapted, frozen_context, again), (again, frozen_context, adapted)):
        combined = jit(jax.grad(lambda tree, order=order: loss(tree, *order)))(trainable)
        for left, right in zip(jax.tree.leaves(plain), jax.tree.leaves(combined), strict=True):
            assert np.linalg.norm(left - right) <= 1e-5 * np.linalg.norm(left)


def test_an_adapted_strided_convolution_in_bfloat16():
    module = Conv(3, 1, stride=2, dtype=jnp.bfloat16)
    x = np.random.default_rng(0).normal(size=(1, 5, 5, 4)).astype(np.float32)
    params = {**module.init(jax.random.key(0), x)['params']}
    a, b = (
        np.random.default_rng(seed).normal(size=shape).astype(np.float32) for seed, shape in ((1, (4, 2)), (2, (2, 3)))
    )
    with lora.applied(2.0):
        y = module.apply({'params': {**params, 'lora_a': a, 'lora_b': b}}, x)
    assert y.dtype == jnp.bfloat16
    expected = x[:, ::2, ::2] @ (np.asarray(params['kernel'])[0, 0] + 2 * a @ b)
    np.testing.assert_allclose(np.asarray(y, np.float32), expected, rtol=0.05, atol=0.1)


def test_the_scale_is_one_unless_alpha_is_given():
    assert lora.scale(8) == lora.scale(4) == 1.0
    assert lora.scale(8, 16) == 2.0


def test_the_order_is_the_same_with_adapters():
    model, variables, params = with_adapters('vit_micro', {})
    plain = depth.execution_order(model, variables, SHAPE)
    adapted = depth.execution_order(model, {**variables, 'params': params}, SHAPE)
    assert list(plain.items()) == list(adapted.items())
    assert plain['backbone'] < plain['backbone/patch_embedding'] < plain['backbone/stage1/block1'] < plain['head']


def test_narrow_kernels_are_left_out():
    params = {'backbone': {'wide': {'kernel': jnp.zeros((8, 6))}, 'narrow': {'kernel': jnp.zeros((1, 1, 3, 8))}}}
    targets = ('backbone/wide', 'backbone/narrow')
    added = lora.add(params, targets, 4, jax.random.key(0))['backbone']
    assert (set(added['wide']), set(added['narrow'])) == ({'kernel', 'lora_a', 'lora_b'}, {'kernel'})
    with pytest.raises(UserError, match='rank 7 fits no kernel of this backbone; the largest rank that does is 6'):
        lora.add(params, targets, 7, jax.random.key(0))
    with pytest.raises(UserError, match='at least 1, not 0'):
        lora.add(params, targets, 0, jax.random.key(0))
    with pytest.raises(UserError, match='this backbone has none'):
        lora.add(params, (), 4, jax.random.key(0))
