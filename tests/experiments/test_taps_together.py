"""Features at several taps from one program: the bits of each are those of a program for it alone."""

import jax
import numpy as np
import pytest

import backbones
from experiments.features import network
from experiments.training import mesh

# What a compiler fuses decides on the last bits.
AS_USERS_COMPILE = True
SIZE = 64


def values(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    generator = np.random.default_rng(leaf.size)
    if len(leaf.shape) < 2:
        return generator.uniform(0.5, 1.5, leaf.shape).astype(np.float32)  # variances and scales among them
    return generator.standard_normal(leaf.shape, np.float32) / np.sqrt(np.prod(leaf.shape[:-1], dtype=np.float32))


@pytest.mark.parametrize(
    ('name', 'runtime', 'alone'),
    [
        ('vit_micro', 'onnxruntime', ('pooled', 'stage4')),
        pytest.param('mobilenet_v3_small', 'onnxruntime', ('pooled', 'stage3', 'grid'), marks=pytest.mark.slow),
        pytest.param('resnet18', 'xla', ('pooled', 'stage1', 'grid'), marks=pytest.mark.slow),
        pytest.param('swin_tiny', 'xla', ('pooled', 'stage1', 'grid'), marks=pytest.mark.exhaustive),
        pytest.param('convnext_tiny', 'xla', ('pooled', 'stage1', 'grid'), marks=pytest.mark.exhaustive),
    ],
)
def test_bits_do_not_depend_on_other_taps(name, runtime, alone):
    preprocessing = backbones.preprocess(name).replace(size=SIZE)
    made = network.make_network(name, preprocessing, 'float32', 4, mesh.make(), runtime)
    variables = jax.device_put(jax.tree.map(values, made.shapes))
    images = jax.device_put(np.random.default_rng(0).standard_normal((4, SIZE, SIZE, 3), np.float32))

    def features(*names):
        return dict(zip(names, map(np.asarray, made.frozen(*names).program(variables, images)), strict=True))

    together = features(*made.features_shapes)
    for tap in alone:
        found = features(tap)[tap]
        assert np.isfinite(found).all() and found.std() > 0
        assert found.tobytes() == together[tap].tobytes()
