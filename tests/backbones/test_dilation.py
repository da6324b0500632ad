"""Dilated convolutions, and the output strides that backbones reach with them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import backbones
from backbones import UserError
from backbones.layers.convolution import Conv
from tests.parity.segmentation import cases


def dilated(kernel: np.ndarray, dilation: int) -> np.ndarray:
    """The kernel with zeros between its values."""
    rows, columns = (dilation * (side - 1) + 1 for side in kernel.shape[:2])
    result = np.zeros((rows, columns, *kernel.shape[2:]), kernel.dtype)
    result[::dilation, ::dilation] = kernel
    return result


def conv(**options) -> Callable[..., jax.Array]:
    return lambda kernel, x: Conv(kernel_size=len(kernel), **options).apply({'params': {'kernel': kernel}}, x)


@pytest.mark.parametrize(('groups', 'channels'), [(1, 6), (2, 4), (4, 4), (4, 8)])
@pytest.mark.parametrize('stride', [1, 2])
def test_a_dilated_convolution_is_that_of_a_kernel_with_zeros_in_between(groups, channels, stride):
    """Every lowering: general, grouped, depthwise, depthwise with a multiplier; symmetric padding and ``'same'``."""
    x = cases.noise('x', 2, 11, 8, 4)
    kernel = cases.noise('kernel', 3, 3, 4 // groups, channels)
    for padding in (None, 'same', 1):
        options = {'features': channels, 'stride': stride, 'groups': groups, 'padding': padding}
        actual, expected = conv(dilation=3, **options)(kernel, x), conv(**options)(dilated(kernel, 3), x)
        np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert conv(features=channels, groups=groups, dilation=3)(kernel, x).shape == (2, 11, 8, channels)


@pytest.mark.parametrize(
    ('name', 'stride', 'strides'),
    [
        ('resnet50', 8, (4, 8, 8, 8)),
        ('resnet50', 16, (4, 8, 16, 16)),
        ('resnet18', 8, (4, 8, 8, 8)),
        pytest.param('resnext50_32x4d', 16, (4, 8, 16, 16), marks=pytest.mark.exhaustive),
        ('resnet_micro', 2, (1, 2, 2, 2)),
        pytest.param('mobilenet_v3_large', 16, (2, 4, 8, 16, 16), marks=pytest.mark.exhaustive),
        ('mobilenet_v3_small', 16, (4, 8, 16, 16)),
        ('mobilenet_v4_conv_small', 8, (2, 4, 8, 8, 8)),
        pytest.param('mobilenet_v4_hybrid_medium', 16, (2, 4, 8, 16, 16), marks=pytest.mark.exhaustive),
    ],
)
def test_an_output_stride_is_reached_by_dilation(name, stride, strides):
    """The same variables, the real strides; the usual one changes nothing."""
    module, plain = backbones.create(name, output_stride=stride), backbones.create(name)
    assert module.stage_strides() == strides
    images = jax.ShapeDtypeStruct((1, 64, 96, 3), jnp.float32)
    found, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), images)
    for each, x in zip(strides, found.stages.values(), strict=True):
        assert x.shape[1:3] == (64 // each, 96 // each)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(
        jnp.shape, jax.eval_shape(plain.init, jax.random.key(0), images)
    )
    usual = backbones.create(name, output_stride=plain.stage_strides()[-1])
    assert usual.stage_strides() == plain.stage_strides()


@pytest.mark.parametrize(
    ('name', 'stride', 'message'),
    [
        ('resnet50', 4, 'output_stride must be one of 8, 16, 32, or None, not 4'),
        ('resnet50', '8', "output_stride must be one of 8, 16, 32, or None, not '8'"),
        ('mobilenet_v3_large', 8, 'output_stride must be one of 16, 32, or None, not 8'),
        ('vgg16', 8, "unknown option of the backbone vgg16 'output_stride'"),
    ],
)
def test_an_output_stride_that_a_backbone_cannot_have_is_refused(name, stride, message):
    with pytest.raises(UserError, match=message):
        backbones.create(name, output_stride=stride)
