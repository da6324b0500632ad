"""FLOPs counted in the traced program; the table of them is compared in tests/experiments/test_models.py."""

import jax
import jax.numpy as jnp
import pytest

import backbones
from backbones import UserError
from backbones.cost import GFLOPS, count_flops, forward_flops


def shape(*sides: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sides, jnp.float32)


def test_a_multiply_add_is_two_and_the_batch_counts():
    assert forward_flops(lambda kernel, x: jax.nn.gelu(x @ kernel), shape(5, 7), shape(3, 5)) == 2 * 3 * 5 * 7
    assert forward_flops(jax.jit(jnp.dot), shape(6, 5), shape(5, 7)) == 2 * 6 * 5 * 7


def test_every_step_of_a_scan_counts():
    def chained(kernel, x):
        return jax.lax.scan(lambda carry, _: (carry @ kernel, None), x, length=4)[0]

    assert forward_flops(chained, shape(5, 5), shape(3, 5)) == 4 * 2 * 3 * 5 * 5


def test_height_and_width():
    model = backbones.create('resnet_micro')
    assert count_flops(model, 32) == count_flops(model, (32, 32))
    # All maps are half as high, and no layer comes after the pooling.
    assert 2 * count_flops(model, (16, 32)) == count_flops(model, 32)
    with pytest.raises(UserError, match=r'not \(32, 0\)'):
        count_flops(model, (32, 0))


def test_the_pair_for_small_images():
    """The CNN of the pair costs 29 % more, counted as everything is counted."""
    flops = [count_flops(backbones.create(name), 32) / 1e9 for name in ('resnet_micro', 'vit_micro')]
    assert flops == pytest.approx([0.0832, 0.0646], rel=1e-3)
    assert flops == pytest.approx([GFLOPS[name] for name in ('resnet_micro', 'vit_micro')], rel=1e-3)
