"""Each layer against a plain reference in numpy, scipy or jax.lax."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from backbones.errors import UserError
from backbones.layers import rotary
from backbones.layers.attention import (
    Dense,
    FeedForward,
    SelfAttention,
    WindowAttention,
    dot_product_attention,
    relative_position_index,
)
from backbones.layers.convolution import Conv, patch_embedding, same_padding
from backbones.layers.multi_query_attention import MultiQueryAttention
from backbones.layers.normalisation import BatchNorm, GlobalResponseNorm, LayerNorm
from backbones.layers.pooling import adaptive_average_pool, global_average_pool, max_pool
from backbones.layers.positions import resample_relative_positions
from backbones.layers.regularisation import stochastic_depth_rates


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
    'large 7x7 strided': (Conv(5, 7, stride=2), 3, 3),
    'many channels, dilated, strided same': (Conv(65, 3, stride=2, padding='same', dilation=2), 64, 'SAME'),
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
    'case', [case for case in CONVOLUTIONS if case.startswith(('1x1', 'depthwise', 'one', 'patches', 'large', 'many'))]
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


def naive_attention(x: np.ndarray, params: dict, heads: int, scores_bias: np.ndarray | None = None) -> np.ndarray:
    """Head by head and image by image, in float64; ``scores_bias`` is ``[heads, tokens, tokens]``."""
    packed_kernel, packed_bias, kernel, bias = (
        np.asarray(params[layer][name], np.float64) for layer in ('qkv', 'projection') for name in ('kernel', 'bias')
    )
    channels = x.shape[-1]
    width = channels // heads
    outputs = []
    for tokens in x.astype(np.float64):
        packed = tokens @ packed_kernel + packed_bias
        queries, keys, values = packed[:, :channels], packed[:, channels : 2 * channels], packed[:, 2 * channels :]
        mixed = []
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            scores = queries[:, part] @ keys[:, part].T / math.sqrt(width)
            scores += 0 if scores_bias is None else scores_bias[head]
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            mixed.append(weights @ values[:, part])
        outputs.append(np.concatenate(mixed, axis=-1) @ kernel + bias)
    return np.stack(outputs)


@pytest.mark.parametrize('heads', [1, 3])
def test_self_attention(heads):
    x = normal(0, 2, 7, 12)
    layer = SelfAttention(heads)
    params = randomised(shapes(layer, x))['params']
    # Scores of all sizes up to a few units: neither uniform weights nor a single large one.
    params['qkv'] = jax.tree.map(lambda leaf: 0.4 * leaf, params['qkv'])
    assert_close(jax.jit(layer.apply)({'params': params}, x), naive_attention(x, params, heads))


def test_dot_product_attention_with_values_of_another_width():
    query, key, value = normal(0, 2, 3, 5, 4), normal(1, 2, 3, 7, 4), normal(2, 2, 3, 7, 6)
    scores = np.einsum('bhqd,bhkd->bhqk', query, key, dtype=np.float64) / math.sqrt(4)
    expected = np.einsum('bhqk,bhkd->bhqd', scipy.special.softmax(scores, axis=-1), value)
    assert_close(dot_product_attention(query, key, value), expected)
    low = dot_product_attention(*(jnp.asarray(each, jnp.bfloat16) for each in (query, key, value)))
    assert low.dtype == jnp.bfloat16
    assert_close(low, expected, tolerance=0.02)


def turned_by_hand(x: np.ndarray, angles: np.ndarray, pairing: str) -> np.ndarray:
    """The last positions of ``[…, tokens, width]``, pair by pair, as complex numbers in float64."""
    width = x.shape[-1]
    x = x.astype(np.float64)
    for pair in range(width // 2):
        first, second = (pair, pair + width // 2) if pairing == 'half' else (2 * pair, 2 * pair + 1)
        for position in range(-len(angles), 0):
            values = x[..., position, first] + 1j * x[..., position, second]
            values = values * np.exp(1j * angles[position, pair])
            x[..., position, first], x[..., position, second] = values.real, values.imag
    return x


@pytest.mark.parametrize('pairing', ['half', 'interleaved'])
def test_rotary_positions_turn_the_pairs_of_the_last_tokens(pairing):
    grid, before, width = (2, 3), 2, 8
    coordinates = rotary.centred_coordinates(grid)
    rotation = rotary.rotation_of(coordinates, 2 * np.pi * rotary.frequencies(width // 4, 100.0), pairing)
    angles = np.zeros((6, width // 2))
    for position in range(6):
        row, column = divmod(position, 3)
        for index, period in enumerate((1.0, 10.0)):
            angles[position, index] = 2 * np.pi * ((row + 0.5) / 2 * 2 - 1) / period
            angles[position, 2 + index] = 2 * np.pi * ((column + 0.5) / 3 * 2 - 1) / period
    x = normal(0, 2, 3, before + 6, width)
    found = jax.jit(rotary.rotated)(x, rotation)
    assert_close(found, turned_by_hand(x, angles, pairing))
    np.testing.assert_array_equal(found[..., :before, :], x[..., :before, :])
    low = rotary.rotated(jnp.asarray(x, jnp.bfloat16), rotation)
    assert low.dtype == jnp.bfloat16
    assert_close(low, turned_by_hand(x, angles, pairing), tolerance=0.01)


def test_coordinates_counted_from_zero_are_scaled_to_the_grid_of_the_pretraining():
    np.testing.assert_array_equal(rotary.index_coordinates((1, 3)), [[0, 0], [0, 1], [0, 2]])
    np.testing.assert_array_equal(rotary.index_coordinates((2, 4), 2), [[r, c / 2] for r in (0, 1) for c in range(4)])


def test_unknown_pairing():
    with pytest.raises(UserError, match="unknown pairing of channels 'halve'; did you mean 'half'"):
        rotary.rotation_of(np.zeros((1, 2)), np.ones(1), 'halve')


@pytest.mark.parametrize('biases', ['queries_and_values', 'none'])
def test_self_attention_with_rotary_positions_and_fewer_biases(biases):
    x = normal(0, 2, 7, 12)
    layer = SelfAttention(3, biases=biases)
    rotation = rotary.rotation_of(rotary.centred_coordinates((2, 3)), rotary.frequencies(1, 100.0), 'half')
    params = randomised(jax.eval_shape(layer.init, jax.random.key(0), x))['params']
    found = layer.apply({'params': params}, x, rotation=rotation)
    query, value = np.split(np.asarray(params['qkv'].get('bias', np.zeros(24))), 2)
    packed = x @ np.asarray(params['qkv']['kernel'], np.float64) + np.concatenate([query, np.zeros(12), value])
    query, key, value = packed.reshape(2, 7, 3, 3, 4).transpose(2, 0, 3, 1, 4)
    angles = (rotary.centred_coordinates((2, 3))[:, :, None]).reshape(6, 2)
    query, key = (turned_by_hand(each, angles, 'half') for each in (query, key))
    weights = scipy.special.softmax(query @ key.transpose(0, 1, 3, 2) / 2, axis=-1)
    mixed = (weights @ value).transpose(0, 2, 1, 3).reshape(2, 7, 12)
    projection = jax.tree.map(np.float64, params['projection'])
    assert_close(found, mixed @ projection['kernel'] + projection['bias'])


def test_unknown_choice_of_biases():
    with pytest.raises(UserError, match="unknown choice of biases in attention 'al'; did you mean 'all'"):
        jax.eval_shape(SelfAttention(3, biases='al').init, jax.random.key(0), normal(0, 2, 7, 12))


def test_self_attention_in_bfloat16_keeps_float32_parameters():
    x = jnp.asarray(normal(0, 2, 7, 12), jnp.bfloat16)
    layer = SelfAttention(3, jnp.bfloat16)
    output, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
    assert output.dtype == jnp.bfloat16
    assert dtypes(variables) == FLOAT32


def naive_window_attention(x: np.ndarray, params: dict, heads: int, window: int, shift: int) -> np.ndarray:
    """Window by window, each position followed to where it comes from in the padded map."""
    batch, height, width, channels = x.shape
    sides = [-(-side // window) * window for side in (height, width)]
    shifts = [shift if side > window else 0 for side in sides]
    padded = np.zeros((batch, *sides, channels))
    padded[:, :height, :width] = x
    table = np.asarray(params['relative_position_bias_table'], np.float64).reshape(
        2 * window - 1, 2 * window - 1, heads
    )
    output = np.zeros_like(padded)
    for top in range(0, sides[0], window):
        for left in range(0, sides[1], window):
            places = [(top + row, left + column) for row in range(window) for column in range(window)]
            origins = [(row + shifts[0], column + shifts[1]) for row, column in places]
            wrapped = [(row >= sides[0], column >= sides[1]) for row, column in origins]
            bias = np.zeros((heads, window**2, window**2))
            for query, (row, column) in enumerate(places):
                for key, (other_row, other_column) in enumerate(places):
                    bias[:, query, key] = table[row - other_row + window - 1, column - other_column + window - 1]
                    if wrapped[query] != wrapped[key]:
                        bias[:, query, key] -= 100
            rows, columns = np.transpose(origins) % np.array(sides)[:, None]
            output[:, rows, columns] = naive_attention(padded[:, rows, columns], params, heads, bias)
    return output[:, :height, :width]


@pytest.mark.parametrize('size', [(6, 9), (7, 4), (3, 8), (2, 3)], ids=str)
@pytest.mark.parametrize('shift', [0, 1])
def test_window_attention(size, shift):
    """Sides that are whole windows, that are padded, and that one window covers, which keeps them from the shift."""
    x = normal(0, 2, *size, 12)
    layer = WindowAttention(heads=2, window=3, shift=shift)
    params = randomised(shapes(layer, x))['params']
    params['qkv'] = jax.tree.map(lambda leaf: 0.4 * leaf, params['qkv'])
    assert params['relative_position_bias_table'].shape == (25, 2)
    expected = naive_window_attention(x, params, 2, 3, shift)
    assert_close(jax.jit(layer.apply)({'params': params}, x), expected)


def test_window_attention_in_bfloat16_keeps_float32_parameters():
    x = jnp.asarray(normal(0, 2, 6, 7, 12), jnp.bfloat16)
    layer = WindowAttention(2, 3, 1, jnp.bfloat16)
    output, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
    assert output.dtype == jnp.bfloat16
    assert dtypes(variables) == FLOAT32


@pytest.mark.parametrize('reduction', [1, 2])
def test_multi_query_attention(reduction: int):
    """Each head's own queries, the keys and values of all; a coarser map by strided depthwise convolutions."""
    heads, width = 3, 4
    layer, x = MultiQueryAttention(heads, width, reduction, epsilon=0.1), normal(1, 2, 7, 5, 6)
    variables = randomised(shapes(layer, x))
    variables |= {'batch_stats': jax.tree.map(jnp.abs, variables['batch_stats'])} if reduction > 1 else {}
    params = variables['params']

    def tokens(name: str) -> np.ndarray:
        y = x
        if reduction > 1:
            y = Conv(6, 3, 2, groups=6).apply({'params': params[f'{name}_conv']}, x)
            norm = {kind: leaves[f'{name}_norm'] for kind, leaves in variables.items()}
            y = BatchNorm(0.1).apply(norm, y)
        return np.reshape(y @ params[name]['kernel'][0, 0], (2, -1, width))

    query = np.reshape(x @ params['query']['kernel'][0, 0], (2, -1, heads, width))
    scores = np.einsum('bqhd,bkd->bhqk', query, tokens('key')) / width**0.5
    mixed = np.einsum('bhqk,bkd->bqhd', scipy.special.softmax(scores, -1), tokens('value'))
    expected = mixed.reshape(2, 7, 5, -1) @ params['projection']['kernel'][0, 0]
    assert_close(layer.apply(variables, x), expected)


def test_relative_position_index():
    """Rows of the table run from the largest offset upwards and leftwards to the largest down and right."""
    expected = [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    np.testing.assert_array_equal(relative_position_index(2), expected)
    assert relative_position_index(2).dtype == np.int64


def test_relative_positions_of_a_larger_window():
    """The centre stays, the outermost offsets meet, and between two old offsets the values are interpolated.

    From 5 offsets to 7 along each side, the old ones lie at -3, -1, 0, 1 and 3 (a ratio of 2 would bring them there,
    but it is bounded by 1.5: -2.5, -1, 0, 1 and 2.5).
    """
    old, new = 5, 7
    axis = normal(0, old)
    table = (axis[:, None] + 10 * axis[None]).reshape(-1, 1)
    resampled = resample_relative_positions(table, window=4).reshape(new, new)
    points = np.interp(np.arange(-3, 4), [-2.5, -1, 0, 1, 2.5], axis)
    assert_close(resampled, points[:, None] + 10 * points[None])
    assert resampled.dtype == np.float32


def test_relative_positions_of_the_same_window_are_kept():
    table = normal(0, 25, 2)
    assert resample_relative_positions(table, window=3) is table


@pytest.mark.parametrize('count', [24, 36])
def test_relative_positions_of_no_square_window(count):
    with pytest.raises(ValueError, match=f'{count} relative positions are not those of a square window'):
        resample_relative_positions(normal(0, count, 2), window=3)


def test_dense_without_a_bias():
    x = normal(0, 3, 4)
    layer = Dense(5, use_bias=False)
    params = randomised(shapes(layer, x))['params']
    assert set(params) == {'kernel'}
    assert_close(layer.apply({'params': params}, x), x @ np.asarray(params['kernel']))


def test_stochastic_depth_rates_grow_linearly_over_all_blocks():
    assert stochastic_depth_rates(0.5, (2, 1, 3)) == [(0.0, 0.1), (0.2,), (0.3, 0.4, 0.5)]
    assert stochastic_depth_rates(0.5, (1,)) == [(0.0,)]


def test_feed_forward_with_another_activation():
    x = normal(0, 2, 5, 4)
    params = randomised(shapes(FeedForward(16), x))['params']
    hidden = Dense(16).apply({'params': params['dense1']}, x)
    expected = Dense(4).apply({'params': params['dense2']}, jax.nn.relu(hidden))
    assert_close(FeedForward(16, activation='relu').apply({'params': params}, x), expected)


def test_feed_forward_uses_the_exact_gelu():
    """The tanh approximation is off by up to 4.7e-4, far more than the tolerance."""
    x = normal(0, 2, 50, 4)
    layer = FeedForward(16)
    params = randomised(shapes(layer, x))['params']
    kernels, biases = (
        [np.asarray(params[dense][name], np.float64) for dense in ('dense1', 'dense2')] for name in ('kernel', 'bias')
    )
    hidden = x.astype(np.float64) @ kernels[0] + biases[0]
    cumulative = 0.5 * (1 + scipy.special.erf(hidden / math.sqrt(2)))
    expected = (hidden * cumulative) @ kernels[1] + biases[1]
    np.testing.assert_allclose(jax.jit(layer.apply)({'params': params}, x), expected, rtol=0, atol=2e-5)


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
