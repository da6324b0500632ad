"""The block that EfficientNet and MobileNetV3 share against plain numpy, and what the two families make of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import backbones
from backbones import registry
from backbones.layers.inverted_residual import BlockConfig, InvertedResidual, into_stages, round_channels, strides_after

EPSILON = 1e-2

FUNCTIONS = {
    'relu': lambda x: np.maximum(x, 0),
    'silu': lambda x: x / (1 + np.exp(-x)),
    'hard_swish': lambda x: x * np.clip(x + 3, 0, 6) / 6,
    'sigmoid': lambda x: 1 / (1 + np.exp(-x)),
    'hard_sigmoid': lambda x: np.clip(x + 3, 0, 6) / 6,
}

# What is in the block, and the rows and columns that TensorFlow's padding and torch's add to 7x6 pixels.
BLOCKS = {
    'all parts, added': (BlockConfig(4, 8, 4, 3, 1, 2, 'silu'), 'silu', 'sigmoid', None, ((1, 1), (1, 1))),
    'hard gate, strided': (BlockConfig(4, 8, 6, 5, 2, 3, 'hard_swish'), 'relu', 'hard_sigmoid', None, ((2, 2), (2, 2))),
    'TensorFlow, strided': (BlockConfig(4, 8, 4, 3, 2, 0, 'relu'), 'relu', 'sigmoid', 'same', ((1, 1), (0, 1))),
    'no expansion': (BlockConfig(4, 4, 4, 3, 1, 0, 'relu'), 'relu', 'sigmoid', None, ((1, 1), (1, 1))),
    'other channels': (BlockConfig(4, 8, 5, 3, 1, 2, 'relu'), 'relu', 'sigmoid', None, ((1, 1), (1, 1))),
}


def randomised(variables: dict) -> dict:
    """Random values; variances are positive."""
    random = np.random.default_rng(0)
    values = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(np.float32), variables)
    values['batch_stats'] = jax.tree.map(lambda leaf: np.abs(leaf) + np.float32(0.1), values['batch_stats'])
    return values


def made(case: str, **changes) -> tuple[InvertedResidual, np.ndarray, dict]:
    """The layer of a case, images of 7x6 pixels, and random variables."""
    block, squeeze_activation, gate, padding, _ = BLOCKS[case]
    layer = InvertedResidual(block._replace(**changes), squeeze_activation, gate, padding, EPSILON)
    x = np.random.default_rng(1).normal(size=(3, 7, 6, block.inputs)).astype(np.float32)
    return layer, x, randomised(jax.eval_shape(layer.init, jax.random.key(0), x))


def normalised(x: np.ndarray, variables: dict, name: str) -> np.ndarray:
    params, stats = variables['params'][name], variables['batch_stats'][name]
    return (x - stats['mean']) / np.sqrt(stats['var'] + EPSILON) * params['scale'] + params['bias']


def depthwise(x: np.ndarray, kernel: np.ndarray, stride: int, pads) -> np.ndarray:
    """Pixel by pixel."""
    x = np.pad(x, ((0, 0), *pads, (0, 0)))
    size = kernel.shape[0]
    rows, columns = ((side - size) // stride + 1 for side in x.shape[1:3])
    output = np.empty((x.shape[0], rows, columns, x.shape[3]))
    for row in range(rows):
        for column in range(columns):
            window = x[:, row * stride : row * stride + size, column * stride : column * stride + size]
            output[:, row, column] = (window * kernel[:, :, 0]).sum((1, 2))
    return output


@pytest.mark.parametrize('case', BLOCKS)
def test_inverted_residual(case: str):
    layer, x, variables = made(case)
    block, squeeze_activation, gate, _, pads = BLOCKS[case]
    params = jax.tree.map(lambda leaf: leaf.astype(np.float64), variables['params'])
    assert ('expand_conv' in params) == (block.expanded != block.inputs)
    assert ('squeeze_excitation' in params) == (block.squeezed > 0)
    act, y = FUNCTIONS[block.activation], x.astype(np.float64)
    if 'expand_conv' in params:
        y = act(normalised(y @ params['expand_conv']['kernel'][0, 0], variables, 'expand_norm'))
    y = depthwise(y, params['depthwise_conv']['kernel'], block.stride, pads)
    y = act(normalised(y, variables, 'depthwise_norm'))
    if 'squeeze_excitation' in params:
        reduce, expand = (params['squeeze_excitation'][name] for name in ('reduce', 'expand'))
        means = y.mean((1, 2), keepdims=True) @ reduce['kernel'][0, 0] + reduce['bias']
        y = y * FUNCTIONS[gate](FUNCTIONS[squeeze_activation](means) @ expand['kernel'][0, 0] + expand['bias'])
    y = normalised(y @ params['project_conv']['kernel'][0, 0], variables, 'project_norm')
    if case in ('all parts, added', 'no expansion'):
        y = y + x
    actual = np.asarray(layer.apply(variables, x))
    assert actual.shape == y.shape
    np.testing.assert_allclose(actual, y, rtol=0, atol=1e-5 * np.abs(y).max())


def test_stochastic_depth_skips_whole_examples():
    """An example is its input alone, or its input and twice the branch."""
    layer, x, variables = made('all parts, added', drop_rate=0.5)
    whole, _, _ = made('all parts, added')
    x = np.tile(x, (8, 1, 1, 1))
    branch = whole.apply(variables, x, train=True, mutable=['batch_stats'])[0] - x
    rngs = {'dropout': jax.random.key(0)}
    output, _ = layer.apply(variables, x, train=True, mutable=['batch_stats'], rngs=rngs)
    skipped = np.isclose(output, x, atol=1e-4).all((1, 2, 3))
    assert 0 < skipped.sum() < len(x)
    np.testing.assert_allclose(output, np.where(skipped[:, None, None, None], x, x + 2 * branch), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ('channels', 'rounded'), [(4, 8), (11.9, 16), (17.6, 16), (18, 24), (44, 48), (134.4, 136), (208, 208)]
)
def test_round_channels_keeps_nine_tenths(channels: float, rounded: int):
    assert round_channels(channels) == rounded


def test_every_stride_begins_a_stage():
    blocks = [BlockConfig(8, 8, 8, 3, stride, 0, 'relu') for stride in (1, 1, 2, 1, 2)]
    assert [len(stage) for stage in into_stages(blocks)] == [2, 2, 1]
    assert strides_after(2, into_stages(blocks)) == (2, 4, 8)
    assert [len(stage) for stage in into_stages(blocks[2:])] == [2, 1]
    assert strides_after(2, into_stages(blocks[2:])) == (4, 8)


@pytest.mark.parametrize(
    ('name', 'blocks'), [('efficientnet_b0', 16), ('efficientnet_b7', 55), ('efficientnet_lite1', 21)]
)
def test_stochastic_depth_rises_linearly(name: str, blocks: int):
    rates = [block.drop_rate for group in backbones.create(name).groups() for block in group]
    np.testing.assert_allclose(rates, 0.2 * np.arange(blocks) / blocks)


def test_stochastic_depth_of_mobilenet_v4_rises_linearly_after_the_stem():
    stem, *rates = (
        block.drop_rate for block in backbones.create('mobilenet_v4_conv_small', stochastic_depth=0.1).blocks()
    )
    assert stem == 0
    np.testing.assert_allclose(rates, [0.1 * number / len(rates) for number in range(len(rates))])


@pytest.mark.parametrize('name', ['efficientnet_b0', 'mobilenet_v3_small'])
def test_an_unknown_padding_or_activation_is_named(name: str):
    images = jnp.zeros((1, 32, 32, 3))
    with pytest.raises(backbones.UserError, match="unknown padding 'valid'; valid choices: same"):
        jax.eval_shape(backbones.create(name, padding='valid').init, jax.random.key(0), images)
    with pytest.raises(backbones.UserError, match="unknown activation 'sil'; did you mean 'silu'"):
        jax.eval_shape(backbones.create(name, activation='sil').init, jax.random.key(0), images)


# Sides of the resized image and of the crop, from the weights of torchvision's efficientnet.py and mobilenetv3.py.
RESIZED = {
    'efficientnet_b0': (256, 224),
    'efficientnet_b1': (256, 240),
    'efficientnet_b2': (288, 288),
    'efficientnet_b3': (320, 300),
    'efficientnet_b4': (384, 380),
    'efficientnet_b5': (456, 456),
    'efficientnet_b6': (528, 528),
    'efficientnet_b7': (600, 600),
    'mobilenet_v3_small': (256, 224),
    'mobilenet_v3_large': (256, 224),
}


@pytest.mark.parametrize('name', RESIZED)
def test_preprocessing_of_torchvisions_weights(name: str):
    preprocessing = registry.preprocessing_of(name, 'torchvision')
    resized, size = RESIZED[name]
    assert preprocessing.size == (size, size)
    assert size / preprocessing.crop == pytest.approx(resized)
    assert preprocessing.interpolation == ('bicubic' if name.startswith('efficientnet') else 'bilinear')
