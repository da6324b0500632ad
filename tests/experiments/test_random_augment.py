"""RandAugment: each operation is Pillow's, with torchvision's ranges."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from backbones.errors import UserError
from experiments.data import random_augment as module
from experiments.data.random_augment import OPERATIONS, random_augment

COLOURS = np.random.default_rng(0).integers(0, 255, (20, 33, 3), dtype=np.uint8)  # no 255: solarize at 0 inverts it
GREYS = COLOURS[..., :1]


def affine(image, *matrix):
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)


# What torchvision 0.2x calls at magnitude 12 of 30, with its formulas written out.
PILLOW = {
    'identity': lambda image: image,
    'shear_x': lambda image: affine(image, 1, math.tan(math.atan(0.12)), 0, 0, 1, 0),
    'shear_y': lambda image: affine(image, 1, 0, 0, math.tan(math.atan(0.12)), 1, 0),
    'translate_x': lambda image: affine(image, 1, 0, -5, 0, 1, 0),  # 150 / 331 · 33 · 0.4 = 5.98
    'translate_y': lambda image: affine(image, 1, 0, 0, 0, 1, -3),  # 150 / 331 · 20 · 0.4 = 3.6
    'rotate': lambda image: image.rotate(12),
    'brightness': lambda image: ImageEnhance.Brightness(image).enhance(1.36),
    'color': lambda image: ImageEnhance.Color(image).enhance(1.36),
    'contrast': lambda image: ImageEnhance.Contrast(image).enhance(1.36),
    'sharpness': lambda image: ImageEnhance.Sharpness(image).enhance(1.36),
    'posterize': lambda image: ImageOps.posterize(image, 6),  # 8 - round(12 / 7.5)
    'solarize': lambda image: ImageOps.solarize(image, 153),  # 255 · 0.6
    'autocontrast': ImageOps.autocontrast,
    'equalize': ImageOps.equalize,
}
SIGNED = {'shear_x', 'shear_y', 'translate_x', 'translate_y', 'rotate', 'brightness', 'color', 'contrast', 'sharpness'}


def pillow(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def only(monkeypatch, name: str) -> None:
    monkeypatch.setattr(module, '_NAMES', (name,))


def test_the_standard_operations():
    assert OPERATIONS.keys() == PILLOW.keys()
    assert {name for name, operation in OPERATIONS.items() if operation.signed} == SIGNED


@pytest.mark.parametrize('name', OPERATIONS)
@pytest.mark.parametrize('image', [COLOURS, GREYS], ids=['colours', 'greys'])
def test_every_operation_is_the_plain_pillow_call(monkeypatch, name, image):
    only(monkeypatch, name)
    expected = np.asarray(PILLOW[name](pillow(image))).reshape(image.shape)
    outputs = [random_augment(np.random.default_rng(seed), image, 1, 12) for seed in range(8)]
    assert any(np.array_equal(output, expected) for output in outputs)
    # A grey image has no colour to change.
    different = len({output.tobytes() for output in outputs})
    assert different == (2 if name in SIGNED and not (name == 'color' and image is GREYS) else 1)


@pytest.mark.parametrize('name', sorted(OPERATIONS.keys() - {'autocontrast', 'equalize'}))
@pytest.mark.parametrize('image', [COLOURS, GREYS], ids=['colours', 'greys'])
def test_magnitude_0_changes_nothing(monkeypatch, name, image):
    """Autocontrast and equalize have no magnitude."""
    only(monkeypatch, name)
    np.testing.assert_array_equal(random_augment(np.random.default_rng(0), image, 3, 0), image)


def test_signs_are_opposite(monkeypatch):
    only(monkeypatch, 'translate_x')
    outputs = {random_augment(np.random.default_rng(seed), COLOURS, 1, 12).tobytes() for seed in range(8)}
    assert outputs == {
        np.asarray(affine(pillow(COLOURS), 1, 0, -5, 0, 1, 0)).tobytes(),
        np.asarray(affine(pillow(COLOURS), 1, 0, 5, 0, 1, 0)).tobytes(),
    }


def test_layers_follow_one_another(monkeypatch):
    only(monkeypatch, 'posterize')
    monkeypatch.setitem(OPERATIONS, 'posterize', module.Operation(lambda image, strength: ImageOps.invert(image)))
    for layers, expected in ((0, COLOURS), (1, 255 - COLOURS), (2, COLOURS), (3, 255 - COLOURS)):
        np.testing.assert_array_equal(random_augment(np.random.default_rng(0), COLOURS, layers, 9), expected)


def test_all_operations_are_drawn_equally_often(monkeypatch):
    counts = dict.fromkeys(OPERATIONS, 0)

    def counting(name):
        def apply(image, strength):
            counts[name] += 1
            return image

        return module.Operation(apply)

    for name in OPERATIONS:
        monkeypatch.setitem(OPERATIONS, name, counting(name))
    random_augment(np.random.default_rng(0), COLOURS, 1400, 9)
    assert min(counts.values()) > 50  # 5 standard deviations below 100
    assert sum(counts.values()) == 1400


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    channels=st.sampled_from([1, 3]),
    layers=st.integers(0, 4),
    magnitude=st.floats(0, 30),
)
def test_shape_and_type_are_kept_and_a_seed_says_all(seed, height, width, channels, layers, magnitude):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    before = image.copy()
    first, second = (random_augment(np.random.default_rng(seed), image, layers, magnitude) for _ in range(2))
    assert first.shape == image.shape
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(image, before)


def test_bad_arguments_are_named():
    generator = np.random.default_rng(0)
    with pytest.raises(UserError, match='between 0 and 30, not 31'):
        random_augment(generator, COLOURS, 2, 31)
    with pytest.raises(UserError, match='-1'):
        random_augment(generator, COLOURS, -1, 9)
    with pytest.raises(UserError, match=r'not uint8\[20, 33, 2\]'):
        random_augment(generator, COLOURS[..., :2], 2, 9)
    with pytest.raises(UserError, match='not float32'):
        random_augment(generator, COLOURS.astype(np.float32), 2, 9)
