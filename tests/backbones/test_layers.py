"""Each layer against a plain reference in numpy, scipy or jax.lax."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from backbones.layers.convolution import Conv, patch_embedding, same_padding
from backbones.layers.normalisation import BatchNorm, GlobalResponseNorm, LayerNorm
from backbones.layers.pooling import adaptive_average_pool, global_average_pool, max_pool


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def assert_close(actual, expected, tolerance: float = 1e-5) -> None:
    """Equal to ``tolerance`` of the largest expected value, and of the same shape."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def shapes(layer, x) -> dict:
    """Shapes and types of a layer's variables; nothing is computed."""
    return jax.eval_shape(layer.init, jax.random.key(0), x)


def randomised(tree: dict, seed: int = 0) -> dict:
    """Random values of the given shapes, so that zeros and ones of the initialisation hide nothing."""
    leaves, structure = jax.tree.flatten(tree)
    return structure.unflatten([jnp.asarray(normal(seed + index, *leaf.shape)) for index, leaf in enumerate(leaves)])


def dtypes(tree) -> set:
    return {leaf.dtype for leaf in jax.tree.leaves(tree)}


FLOAT32 = {jnp.dtype('float32')}


def channel_batches(steps: int) -> list[np.ndarray]:
    """Batches whose channels have different means and deviations."""
    mean, deviation = np.array([0.0, 3.0, -20.0, 0.5]), np.array([1.0, 0.1, 5.0, 2.0])
    return [(normal(step, 3, 5, 2, 4) * deviation + mean + step).astype(np.float32) for step in range(steps)]


@pytest.mark.parametrize(('epsilon', 'momentum'), [(1e-5, 0.9), (1e-3, 0.97)])
def test_batch_norm_tracks_statistics_by_torchs_rule(epsilon, momentum):
    """running ← (1 - m) · running + m · batch, with the *unbiased* variance, and m = 1 - ``momentum``."""
    layer = BatchNorm(epsilon, momentum)
    batches = channel_batches(steps=6)
    variables = layer.init(jax.random.key(0), batches[0], train=True)
    np.testing.assert_array_equal(variables['batch_stats']['mean'], np.zeros(4))
    np.testing.assert_array_equal(variables['batch_stats']['var'], np.ones(4))

    params = randomised(variables['params'])
    scale, bias = (np.asarray(params[name], np.float64) for name in ('scale', 'bias'))
    stats = variables['batch_stats']
    torch_momentum = 1 - momentum
    running_mean, running_variance = np.zeros(4), np.ones(4)
    for batch in batches:
        output, updates = layer.apply(
            {'params': params, 'batch_stats': stats}, batch, train=True, mutable=['batch_stats']
        )
        stats = updates['batch_stats']
        rows = batch.astype(np.float64).reshape(-1, 4)
        mean = rows.mean(0)
        normalised = (batch - mean) / np.sqrt(rows.var(0, ddof=0) + epsilon)
        assert_close(output, normalised * scale + bias)
        running_mean = (1 - torch_momentum) * running_mean + torch_momentum * mean
        running_variance = (1 - torch_momentum) * running_variance + torch_momentum * rows.var(0, ddof=1)
        np.testing.assert_allclose(stats['mean'], running_mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(stats['var'], running_variance, rtol=1e-5)


def test_batch_norm_uses_and_keeps_running_statistics_in_inference():
    layer = BatchNorm(epsilon=1e-3)
    (batch,) = channel_batches(steps=1)
    variables = shapes(layer, batch)
    params = randomised(variables['params'])
    stats = {'mean': jnp.array([1.0, -2.0, 0.0, 4.0]), 'var': jnp.array([0.5, 2.0, 9.0, 1e-4])}
    variables = {'params': params, 'batch_stats': stats}
    output, updates = layer.apply(variables, batch, train=False, mutable=['batch_stats'])
    scale, bias = (np.asarray(params[name], np.float64) for name in ('scale', 'bias'))
    mean, variance = (np.asarray(stats[name], np.float64) for name in ('mean', 'var'))
    assert_close(output, (batch - mean) / np.sqrt(variance + 1e-3) * scale + bias)
    for name in stats:
        np.testing.assert_array_equal(updates['batch_stats'][name], stats[name])
    np.testing.assert_array_equal(layer.apply(variables, batch), output)  # inference is the default


@pytest.mark.parametrize('train', [True, False])
def test_batch_norm_in_bfloat16_rounds_only_its_output(train):
    """Parameters and statistics are float32, and the value is the float32 value rounded once.

    The mean of one channel is 20 deviations, where arithmetic in bfloat16 would shift the whole channel.
    """
    batch = jnp.asarray(channel_batches(steps=1)[0] - np.array([0, 0, 80, 0]), jnp.bfloat16)
    low, full = BatchNorm(dtype=jnp.bfloat16), BatchNorm()
    variables = shapes(low, batch)
    assert dtypes(variables) == FLOAT32
    stats = {'mean': jnp.array([0.1, 3.0, -100.0, 0.5]), 'var': jnp.array([1.0, 0.01, 25.0, 4.0])}
    variables = {'params': randomised(variables['params']), 'batch_stats': stats}
    output, updates = low.apply(variables, batch, train=train, mutable=['batch_stats'])
    assert output.dtype == jnp.bfloat16
    assert dtypes(updates) == FLOAT32
    expected, expected_updates = full.apply(variables, batch.astype(jnp.float32), train=train, mutable=['batch_stats'])
    np.testing.assert_array_equal(output, expected.astype(jnp.bfloat16))
    for name in stats:
        np.testing.assert_array_equal(updates['batch_stats'][name], expected_updates['batch_stats'][name])


@pytest.mark.parametrize('epsilon', [1e-6, 1e-2])
def test_layer_norm(epsilon):
    x = normal(0, 3, 5, 8) * 4 + 10
    layer = LayerNorm(epsilon)
    params = randomised(shapes(layer, x))['params']
    scale, bias = (np.asarray(params[name], np.float64) for name in ('scale', 'bias'))
    values = x.astype(np.float64)
    deviation = np.sqrt(values.var(-1, keepdims=True) + epsilon)
    expected = (values - values.mean(-1, keepdims=True)) / deviation * scale + bias
    assert_close(layer.apply({'params': params}, x), expected)


def test_layer_norm_in_bfloat16_rounds_only_its_output():
    x = jnp.asarray(normal(0, 3, 5, 8) + 50, jnp.bfloat16)
    low, full = LayerNorm(dtype=jnp.bfloat16), LayerNorm()
    variables = shapes(low, x)
    assert dtypes(variables) == FLOAT32
    variables = randomised(variables)
    expected = full.apply(variables, x.astype(jnp.float32)).astype(jnp.bfloat16)
    np.testing.assert_array_equal(low.apply(variables, x), expected)


# Layer, input channels, and the padding as lax is told it: pixels on every side, or TensorFlow's rule.
CONVOLUTIONS = {
    '1x1': (Conv(5, 1), 6, 0),
    '1x1 strided': (Conv(5, 1, stride=2), 6, 0),
    '1x1 strided same': (Conv(5, 1, stride=2, padding='same'), 6, 'SAME'),
    'general 1x1 padded': (Conv(5, 1, padding=1), 6, 1),
    'grouped 1x1': (Conv(6, 1, groups=3), 6, 0),
    'depthwise 3x3': (Conv(6, 3, groups=6), 6, 1),
    'depthwise 3x3 strided': (Conv(6, 3, stride=2, groups=6), 6, 1),
    'depthwise 3x3 strided same': (Conv(6, 3, stride=2, padding='same', groups=6), 6, 'SAME'),
    'depthwise 5x5': (Conv(6, 5, groups=6), 6, 2),
    'depthwise 5x5 strided same': (Conv(6, 5, stride=2, padding='same', groups=6), 6, 'SAME'),
    'depthwise 5x5 dilated, strided': (Conv(6, 5, stride=3, groups=6, dilation=2), 6, 4),
    'depthwise unpadded': (Conv(6, 3, stride=2, padding=0, groups=6), 6, 0),
    'patches 4x4': (Conv(5, 4, stride=4, padding=0), 3, 0),
    'patches 2x2': (Conv(5, 2, stride=2, padding=0), 6, 0),
    'general 2x2 padded': (Conv(5, 2, stride=2, padding=1), 6, 1),
    'grouped 2x2 strided': (Conv(6, 2, stride=2, padding=0, groups=3), 6, 0),
    'grouped with a multiplier': (Conv(12, 3, groups=6), 6, 1),
    'one channel': (Conv(1, 3), 1, 1),
    'grouped strided': (Conv(9, 3, stride=2, groups=3), 6, 1),
    'general 3x3': (Conv(5, 3), 6, 1),
    'general 3x3 strided same': (Conv(5, 3, stride=2, padding='same'), 6, 'SAME'),
    'general 7x7 strided': (Conv(5, 7, stride=2), 3, 3),
    'general 3x3 dilated, strided same': (Conv(5, 3, stride=2, padding='same', dilation=2), 6, 'SAME'),
}


def test_global_response_norm():
    x, scale, bias = normal(0, 2, 3, 5, 4), normal(1, 4), normal(2, 4)
    x[..., 1] = 0
    norms = np.sqrt((x.astype(np.float64) ** 2).sum((1, 2), keepdims=True))
    expected = x + bias + scale * x * norms / (norms.mean(-1, keepdims=True) + 1e-6)
    params = {'scale': scale, 'bias': bias}
    found = GlobalResponseNorm().apply({'params': params}, x)
    assert_close(found, expected)
    low = GlobalResponseNorm(dtype=jnp.bfloat16).apply({'params': params}, jnp.asarray(x, jnp.bfloat16))
    assert low.dtype == jnp.bfloat16
    assert_close(low, expected, tolerance=0.02)
    # Channels that are zero everywhere, as those of a black image are at first, have a gradient.
    for image in (x, np.zeros_like(x)):
        gradient = jax.grad(lambda x: GlobalResponseNorm().apply({'params': params}, x).sum())(image)
        assert np.isfinite(gradient).all()


def reference_convolution(layer: Conv, padding: int | str):
    pads = padding if isinstance(padding, str) else ((padding, padding),) * 2

    def convolve(kernel, x):
        return lax.conv_general_dilated(
            x,
            kernel,
            (layer.stride, layer.stride),
            pads,
            dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
            rhs_dilation=(layer.dilation, layer.dilation),
            feature_group_count=layer.groups,
            precision='highest',
        )

    return convolve


def value_and_gradients(convolve, kernel, x):
    """The output, and the gradients of a weighted sum of it."""
    output, pull_back = jax.vjp(convolve, kernel, x)
    weights = jnp.cos(jnp.arange(output.size, dtype=jnp.float32)).reshape(output.shape)
    return output, *pull_back(weights)


def assert_equals_lax(case: str, compute) -> None:
    """What ``compute`` makes of our convolution, and of lax's."""
    layer, channels, padding = CONVOLUTIONS[case]
    x = normal(0, 2, 9, 8, channels)  # one odd and one even side, which stride and padding treat differently
    kernel = shapes(layer, x)['params']['kernel']
    assert kernel.shape == (layer.kernel_size, layer.kernel_size, channels // layer.groups, layer.features)
    kernel = normal(1, *kernel.shape)

    def ours(kernel, x):
        return layer.apply({'params': {'kernel': kernel}}, x)

    reference = reference_convolution(layer, padding)
    actual, expected = (jax.jit(partial(compute, convolve))(kernel, x) for convolve in (ours, reference))
    jax.tree.map(assert_close, actual, expected)


@pytest.mark.parametrize(
    'case', [case for case in CONVOLUTIONS if case.startswith(('1x1', 'depthwise', 'one', 'patches'))]
)
def test_convolution_and_its_gradients(case):
    """The lowerings of our own."""
    assert_equals_lax(case, value_and_gradients)


@pytest.mark.parametrize('case', [case for case in CONVOLUTIONS if case.startswith(('grouped', 'general'))])
def test_convolution(case):
    """Those that are lax's own, and so are their gradients: what is left is the padding, the groups and the stride."""
    assert_equals_lax(case, lambda convolve, kernel, x: convolve(kernel, x))


def test_convolution_adds_its_bias():
    x = normal(0, 2, 6, 6, 4)
    layer = Conv(3, 3, use_bias=True)
    params = randomised(shapes(layer, x))['params']
    assert {name: leaf.shape for name, leaf in params.items()} == {'kernel': (3, 3, 4, 3), 'bias': (3,)}
    expected = reference_convolution(layer, 1)(params['kernel'], x) + params['bias']
    assert_close(layer.apply({'params': params}, x), expected)


@pytest.mark.parametrize('case', ['1x1 strided', 'depthwise 5x5', 'grouped strided', 'general 3x3'])
def test_convolution_in_bfloat16(case):
    """Parameters stay float32; sums are rounded once, so the error is that of the output's 8 bits."""
    layer, channels, padding = CONVOLUTIONS[case]
    low = layer.clone(dtype=jnp.bfloat16)
    x = jnp.asarray(normal(0, 2, 8, 8, channels), jnp.bfloat16)
    variables = shapes(low, x)
    assert dtypes(variables) == FLOAT32
    kernel = jnp.asarray(normal(1, *variables['params']['kernel'].shape), jnp.bfloat16).astype(jnp.float32)
    output = low.apply({'params': {'kernel': kernel}}, x)
    assert output.dtype == jnp.bfloat16
    expected = np.asarray(reference_convolution(layer, padding)(kernel, x.astype(jnp.float32)))
    # Half a unit of the last of 8 bits; float32 sums can only differ in what is far below it.
    np.testing.assert_allclose(np.asarray(output, np.float32), expected, rtol=2**-8, atol=1e-5)


@pytest.mark.parametrize(
    ('case', 'is_convolution'),
    [
        ('1x1', False),
        ('1x1 strided', False),
        ('depthwise 3x3 strided same', False),
        ('patches 4x4', False),
        ('general 2x2 padded', True),
        ('general 3x3', True),
    ],
)
def test_lowering_on_the_cpu(case, is_convolution):
    """Where the CPU's convolution is slow, the program has none: a matrix product or multiply-adds stand for it."""
    layer, channels, _ = CONVOLUTIONS[case]
    x = normal(0, 2, 8, 8, channels)
    variables = shapes(layer, x)
    lowered = jax.jit(layer.apply).trace(variables, x).lower(lowering_platforms=('cpu',)).as_text()
    assert ('stablehlo.convolution' in lowered) == is_convolution


@pytest.mark.parametrize('case', ['1x1 strided', 'depthwise 3x3 strided same'])
def test_lowering_on_an_accelerator(case):
    layer, channels, _ = CONVOLUTIONS[case]
    x = normal(0, 2, 8, 8, channels)
    variables = shapes(layer, x)
    lowered = jax.jit(layer.apply).trace(variables, x).lower(lowering_platforms=('tpu',)).as_text()
    assert 'stablehlo.convolution' in lowered


@settings(max_examples=300, deadline=None)
@given(size=st.integers(1, 400), kernel=st.integers(1, 11), stride=st.integers(1, 6))
def test_same_padding_is_tensorflows(size, kernel, stride):
    (expected,) = lax.padtype_to_pads((size,), (kernel,), (stride,), 'SAME')
    before, after = same_padding(size, kernel, stride)
    assert (before, after) == expected
    outputs = (size + before + after - kernel) // stride + 1
    assert outputs == math.ceil(size / stride)


@pytest.mark.parametrize(('patch', 'size'), [(4, (12, 20)), (4, (15, 21)), (2, (6, 4)), (1, (3, 5))])
def test_patch_embedding_is_a_strided_convolution(patch, size):
    images, kernel = normal(0, 2, *size, 3), normal(1, patch, patch, 3, 5)
    expected = lax.conv_general_dilated(
        images, kernel, (patch, patch), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC'), precision='highest'
    )
    assert_close(patch_embedding(images, kernel), expected)


@pytest.mark.parametrize('size', [(7, 8), (8, 5)], ids=str)
@pytest.mark.parametrize(('window', 'stride', 'padding'), [(3, 2, 1), (2, 2, 0), (3, 1, 1), (5, 1, 2)])
def test_max_pool(window, stride, padding, size):
    """All values are negative, so a padding of zeros would show."""
    x = -1 - np.abs(normal(0, 2, *size, 3))
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)), constant_values=-np.inf)
    rows, columns = ((side + 2 * padding - window) // stride + 1 for side in size)
    expected = np.empty((2, rows, columns, 3))
    for row in range(rows):
        for column in range(columns):
            top, left = row * stride, column * stride
            expected[:, row, column] = padded[:, top : top + window, left : left + window].max((1, 2))
    np.testing.assert_array_equal(max_pool(x, window, stride, padding), expected.astype(np.float32))


@pytest.mark.parametrize('size', [(2, 3), (3, 4), (7, 8), (12, 5)], ids=str)
@pytest.mark.parametrize(('window', 'stride', 'padding'), [(2, 2, 0), (3, 2, 0), (3, 2, 1), (3, 1, 1), (2, 3, 1)])
def test_max_pool_rounding_up(window, stride, padding, size):
    """Torch's rule: an incomplete last window counts, unless it would start in the padding on the right."""
    x = -1 - np.abs(normal(0, 2, *size, 3))
    starts = []
    for side in size:
        count = math.ceil((side + 2 * padding - window) / stride) + 1
        starts.append([at * stride - padding for at in range(count) if at * stride < side + padding])
    expected = np.empty((2, *map(len, starts), 3), np.float32)
    for row, top in enumerate(starts[0]):
        for column, left in enumerate(starts[1]):
            rows, columns = (slice(max(first, 0), first + window) for first in (top, left))
            expected[:, row, column] = x[:, rows, columns].max((1, 2))
    np.testing.assert_array_equal(max_pool(x, window, stride, padding, ceil=True), expected)


def test_max_pool_sends_the_gradient_to_the_maximum():
    x = np.zeros((1, 4, 4, 1), np.float32)
    x[0, 1, 1, 0], x[0, 2, 3, 0] = 2, 1
    gradient = jax.grad(lambda x: max_pool(x, 2, 2, 0)[0, 0, 0, 0] + 5 * max_pool(x, 2, 2, 0)[0, 1, 1, 0])(x)
    expected = np.zeros_like(x)
    expected[0, 1, 1, 0], expected[0, 2, 3, 0] = 1, 5
    np.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize('size', [(7, 7), (3, 5), (1, 14), (9, 8), (13, 30)], ids=str)
def test_adaptive_average_pool(size):
    """Bins share a row or a column where the sides do not divide."""
    x = normal(0, 2, *size, 3)
    expected = np.empty((2, 7, 7, 3))
    for row in range(7):
        for column in range(7):
            rows, columns = (
                slice(math.floor(at * side / 7), math.ceil((at + 1) * side / 7))
                for at, side in zip((row, column), size, strict=True)
            )
            expected[:, row, column] = x.astype(np.float64)[:, rows, columns].mean((1, 2))
    assert_close(adaptive_average_pool(x, 7), expected)


def test_global_average_pool():
    x = normal(0, 2, 5, 7, 3)
    assert_close(global_average_pool(x), x.astype(np.float64).mean((1, 2)))


def test_global_average_pool_accumulates_in_float32():
    """Sums of ones in bfloat16 would stop growing at 256."""
    ones = jnp.ones((1, 40, 40, 2), jnp.bfloat16)
    output = global_average_pool(ones)
    assert output.dtype == jnp.bfloat16
    np.testing.assert_array_equal(output, np.ones((1, 2)))
