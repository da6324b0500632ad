"""Derivatives that are written out are those of differentiation, forwards and backwards."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from backbones.layers import attention, normalisation, pooling
from backbones.layers.activations import gelu
from backbones.layers.convolution import convolve


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def with_gradients(function: Callable, gradient: np.ndarray, *arguments: np.ndarray) -> tuple[jax.Array, ...]:
    """The value and its gradients, in one program."""

    @jax.jit
    def both(*arguments):
        value, pull = jax.vjp(function, *arguments)
        return value, *pull(gradient)

    return both(*arguments)


def over_batch(x, scale, bias):
    axes = tuple(range(x.ndim - 1))
    mean, variance = x.mean(axes), x.var(axes)
    return (x - mean) / jnp.sqrt(variance + 1e-3) * scale + bias, mean, variance


def over_channels(x, scale, bias):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / jnp.sqrt(variance + 1e-3) * scale + bias


PAIRS: dict[str, tuple[Callable, Callable, tuple[np.ndarray, ...]]] = {
    'GELU': (gelu, lambda x: jax.nn.gelu(x, approximate=False), (3 * normal(0, 4, 50),)),
    'batch normalisation': (
        lambda *arguments: normalisation._over_batch(*arguments, 1e-3),
        over_batch,
        (2 * normal(0, 5, 4, 3, 6) + 1, normal(1, 6), normal(2, 6)),
    ),
    'layer normalisation': (
        lambda *arguments: normalisation.layer_norm(*arguments, 1e-3),
        over_channels,
        (2 * normal(0, 5, 7, 6) + 1, normal(1, 6), normal(2, 6)),
    ),
}


@pytest.mark.parametrize('name', PAIRS)
def test_derivatives(name: str):
    function, plain, arguments = PAIRS[name]
    tangents = tuple(normal(9 - index, *each.shape) for index, each in enumerate(arguments))
    with jax.enable_x64(True):
        wide = [jnp.asarray(each, jnp.float64) for each in arguments]
        moves = tuple(jnp.asarray(each, jnp.float64) for each in tangents)
        values, expected = jax.jvp(plain, tuple(wide), moves)
        transposed = jax.vjp(plain, *wide)[1](jax.tree.map(jnp.cos, values))
    found_values, found = jax.jvp(function, tuple(map(jnp.asarray, arguments)), tuple(map(jnp.asarray, tangents)))
    found_transposed = jax.vjp(function, *arguments)[1](jax.tree.map(jnp.cos, found_values))
    for one, other in ((found_values, values), (found, expected), (found_transposed, transposed)):
        for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            scale = np.abs(theirs).max()
            np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=0, atol=3e-6 * scale)


def test_derivative_of_gelu_in_bfloat16():
    x = jnp.asarray(3 * normal(0, 200), jnp.bfloat16)
    slope = jax.grad(lambda x: gelu(x).astype(jnp.float32).sum())(x)
    expected = jax.grad(lambda x: jax.nn.gelu(x, approximate=False).sum())(x.astype(jnp.float32))
    assert slope.dtype == jnp.bfloat16
    np.testing.assert_allclose(slope.astype(jnp.float32), expected, rtol=2**-8, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    window=st.integers(1, 4),
    stride=st.integers(1, 3),
    ceil=st.booleans(),
    seed=st.integers(0, 99),
)
def test_gradient_of_a_maximum(size: tuple[int, int], window: int, stride: int, ceil: bool, seed: int):
    """Of equal values, of which there are many here, the first one of a window has all of it."""
    padding = window // 2
    x = np.random.default_rng(seed).integers(-1, 2, (2, *size, 3)).astype(np.float32)

    def sides(extent: int) -> tuple[int, int]:
        return padding, max(pooling._ceil_padding(extent, window, stride, padding), 0) if ceil else padding

    pads = (sides(size[0]), sides(size[1]))
    if any(extent + before + after < window for extent, (before, after) in zip(size, pads, strict=True)):
        return
    gradient = normal(seed, *jax.eval_shape(lambda x: pooling._max_pool(x, window, stride, pads), x).shape)
    found = with_gradients(lambda x: pooling.max_pool(x, window, stride, padding, ceil), gradient, x)
    expected = with_gradients(lambda x: pooling._max_pool(x, window, stride, pads), gradient, x)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ('batch', 'height', 'kernel', 'stride', 'dilation'),
    [(8, 7, 3, 1, 1), (3, 14, 5, 1, 1), (5, 30, 3, 2, 1), (1, 59, 3, 1, 2), (2, 1, 3, 3, 1), (2, 57, 5, 2, 1)],
)
def test_gradients_of_a_depthwise_convolution(batch: int, height: int, kernel: int, stride: int, dilation: int):
    """Any number of images and rows, whole parts of which are summed at once."""
    side = (kernel - 1) * dilation // 2
    padding = ((side, side), (side, side))
    x, weights = normal(0, batch, height, 4, 2), normal(1, kernel, kernel, 1, 2)

    def general(x, weights):
        return lax.conv_general_dilated(
            x, weights, (stride, stride), padding, rhs_dilation=(dilation, dilation),
            dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=2,
        )  # fmt: skip

    gradient = normal(2, *jax.eval_shape(general, x, weights).shape)
    found = with_gradients(lambda x, weights: convolve(x, weights, stride, padding, 2, dilation), gradient, x, weights)
    for ours, theirs in zip(found, with_gradients(general, gradient, x, weights), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * max(np.abs(theirs).max(), 1))


@pytest.mark.parametrize(('queries', 'parts'), [(256, 1), (257, 2), (384, 2), (385, 1)])
def test_attention_in_parts(queries: int, parts: int):
    given = [normal(seed, 1, 2, length, 8) for seed, length in enumerate((queries, 9, 9))]

    def expected(*given):
        heads_last = jax.nn.dot_product_attention(*(jnp.swapaxes(each, 1, 2) for each in given))
        return jnp.swapaxes(heads_last, 1, 2)

    gradient = normal(3, *given[0].shape)
    found = with_gradients(attention.dot_product_attention, gradient, *given)
    for ours, theirs in zip(found, with_gradients(expected, gradient, *given), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())
    program = jax.jit(attention.dot_product_attention).trace(*given)
    assert program.lower(lowering_platforms=('cpu',)).as_text().count('stablehlo.dot_general') == 2 * parts
    assert program.lower(lowering_platforms=('tpu',)).as_text().count('stablehlo.dot_general') == 2


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_attention_of_both_lowerings(dtype: jnp.dtype):
    """Also with scores that a mask makes as small as can be."""
    scores = 5 * normal(0, 2, 3, 4, 6)
    scores[:, :, 1, 2:] = np.finfo(np.float32).min
    value = jnp.asarray(normal(1, 2, 3, 6, 5), dtype)
    outputs, pull = jax.vjp(attention._divided_last, scores, value)
    expected, expected_pull = jax.vjp(attention._divided_first, scores, value)
    assert outputs.dtype == expected.dtype == dtype
    gradient = jnp.asarray(normal(2, *outputs.shape), dtype)
    tolerance = 1e-5 if dtype == jnp.float32 else 2**-6
    for ours, theirs in zip((outputs, *pull(gradient)), (expected, *expected_pull(gradient)), strict=True):
        ours, theirs = np.asarray(ours, np.float32), np.asarray(theirs, np.float32)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


@pytest.mark.parametrize('name', PAIRS)
def test_what_a_gradient_keeps(name: str):
    """One array as large as the input; differentiation keeps more."""
    function, plain, arguments = PAIRS[name]

    def kept(function: Callable) -> int:
        pull = jax.eval_shape(lambda *given: jax.vjp(function, *given)[1], *arguments)
        return sum(leaf.size >= arguments[0].size for leaf in jax.tree.leaves(pull))

    assert kept(function) == 1 < kept(plain)
