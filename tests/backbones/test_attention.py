"""Attention, its positions and its feed-forward layers against plain references in numpy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

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
from backbones.layers.convolution import Conv
from backbones.layers.multi_query_attention import MultiQueryAttention
from backbones.layers.normalisation import BatchNorm
from backbones.layers.positions import resample_relative_positions
from backbones.layers.regularisation import stochastic_depth_rates
from tests.backbones.test_layers import FLOAT32, assert_close, dtypes, normal, randomised, shapes


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
