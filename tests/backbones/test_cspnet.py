"""What the parity with timm does not show of CSPNet: the first values, the training, and wrong options."""

from functools import partial

import flax.linen as nn
import jax
import numpy as np
import pytest

import backbones
from backbones.cnn.cspnet import BottleneckBlock, CSPNet, DarkBlock
from backbones.layers.regularisation import StochasticDepth

SMALL = {
    'depths': (2, 3),
    'channels': (8, 16),
    'expansions': (2, 1),
    'bottlenecks': (0.5, 1),
    'stem': (4, 3, 1),
    'stem_pool': False,
    'downsample_grows': True,
}
IMAGES = np.zeros((2, 8, 8, 3), np.float32)


@pytest.mark.parametrize(('block', 'last'), [(BottleneckBlock, 'conv3'), (DarkBlock, 'conv2')])
def test_the_last_scale_of_a_block_starts_at_zero(block, last):
    """Every residual branch first adds nothing, as timm initialises it."""
    layers = block(2, 0.0, 'relu', 1e-5, 0.9, np.float32).init(jax.random.key(0), IMAGES)['params']
    assert {name: bool(layer['norm']['scale'].any()) for name, layer in layers.items()} == {
        name: name != last for name in layers
    }
    assert last in layers


@pytest.mark.parametrize('block', [BottleneckBlock, DarkBlock])
def test_stochastic_depth_rises_from_the_first_block_to_the_last(block):
    model = CSPNet(block, **SMALL, stochastic_depth=0.4)
    keys = {'params': jax.random.key(0), 'dropout': jax.random.key(1)}
    rates = []

    def watch(call, args, kwargs, context):
        if isinstance(context.module, StochasticDepth):
            rates.append(context.module.rate)
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        jax.eval_shape(partial(model.init, train=True), keys, IMAGES)
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_options_per_stage_of_unequal_length():
    model = backbones.create('cspresnet50', depths=(3, 3))
    with pytest.raises(backbones.UserError, match='one value per stage each, not 2, 4, 4, 4 values'):
        jax.eval_shape(model.init, jax.random.key(0), IMAGES)
