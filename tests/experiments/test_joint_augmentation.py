"""Images, boxes and masks move together: what is drawn in an image is found where its box says."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backbones import UserError
from backbones.letterbox import LETTERBOX_GREY
from backbones.preprocessing import Preprocessing
from experiments.data import joint_augmentation, placement
from experiments.data.joint_augmentation import JointAugmentation, augment
from experiments.data.placement import Axis
from experiments.data.truth import IGNORE

SIZE = (48, 64)
# One rectangle per image of a group of four, each in a colour of its own.
RECTANGLES = np.array([[10, 8, 50, 30], [4, 20, 20, 44], [30, 2, 60, 50], [22, 22, 40, 40]], np.float32)
COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], np.uint8)
JITTER = JointAugmentation(SIZE, flip=True, scale=(0.4, 2.0))
MOSAIC = JointAugmentation(SIZE, flip=True, scale=(0.4, 1.6), mosaic=0.7, max_objects=4)


def drawn() -> np.ndarray:
    """Images of 56x72 with a rectangle on black; the mask has its number, from 1."""
    images = np.zeros((4, 56, 72, 4), np.uint8)
    for number, (left, top, right, bottom) in enumerate(RECTANGLES.astype(int)):
        images[number, top:bottom, left:right] = (*COLOURS[number], number + 1)
    return images


@cache
def compiled(options: JointAugmentation):
    return jax.jit(partial(augment, options=options))


def augmented(options: JointAugmentation, seed: int = 0, images=None, boxes=None, classes=None):
    images = drawn() if images is None else images
    boxes = RECTANGLES[:, None] if boxes is None else boxes
    classes = np.arange(4, dtype=np.int32)[:, None] if classes is None else classes
    return [np.asarray(each) for each in compiled(options)(jax.random.key(seed), images, boxes, classes)]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), options=st.sampled_from([JITTER, MOSAIC]))
def test_a_rectangle_is_where_its_box_is(seed, options):
    images, masks, boxes, classes = augmented(options, seed)
    assert images.shape == (4, *SIZE, 3)
    assert set(np.unique(masks)) <= {0, 1, 2, 3, 4, IGNORE}
    for image, mask, of_image, labels in zip(images, masks, boxes, classes, strict=True):
        assert (image[mask == IGNORE] == LETTERBOX_GREY).all()
        for number in range(4):
            shown = mask == number + 1
            bright = (np.abs(image.astype(int) - COLOURS[number]) < 100).all(-1)
            which = np.flatnonzero(labels == number)
            if not len(which):
                assert shown.sum() < 0.1 * np.prod(SIZE), 'an object without a box is nearly gone'
                continue
            left, top, right, bottom = of_image[which[0]]
            assert 0 <= left <= right <= SIZE[1]
            assert 0 <= top <= bottom <= SIZE[0]
            for found in (shown, bright):
                rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
                edges = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
                np.testing.assert_allclose(edges, [left, top, right, bottom], atol=1)


@pytest.mark.parametrize('shape', [(40, 100), (48, 64), pytest.param((97, 63), marks=pytest.mark.exhaustive)])
def test_with_everything_off_it_is_a_letterbox(shape):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (2, *shape, 4), dtype=np.uint8)
    images[..., 3] %= 6
    boxes = np.array([[[0, 0, shape[1], shape[0]]]] * 2, np.float32)
    found, masks, moved, classes = augmented(JointAugmentation(SIZE), 0, images, boxes, np.zeros((2, 1), np.int32))
    letterbox = Preprocessing((0.0,) * 3, (1 / 255,) * 3, SIZE, fit='letterbox')
    expected = np.asarray(letterbox(jnp.asarray(images[..., :3])))
    # Preprocessing rounds after each pass, as Pillow does.
    np.testing.assert_allclose(found, expected, atol=1.01)
    (left, top, right, bottom) = moved[0, 0].astype(int)
    inside = np.zeros(SIZE, bool)
    inside[top:bottom, left:right] = True
    assert (moved == moved.astype(int)).all()
    np.testing.assert_array_equal(masks == IGNORE, np.broadcast_to(~inside, masks.shape))
    assert set(np.unique(masks)) == {*range(6), IGNORE} - ({IGNORE} if inside.all() else set())
    assert (found[:, ~inside] == LETTERBOX_GREY).all()
    assert (classes == 0).all()
    if shape == SIZE:
        np.testing.assert_array_equal(found, images[..., :3])
        np.testing.assert_array_equal(masks, images[..., 3])


@pytest.mark.parametrize('scale', [0.13, pytest.param(0.77, marks=pytest.mark.exhaustive), 2.3])
def test_interpolation_is_that_of_jax(scale):
    image = np.random.default_rng(0).integers(0, 256, (1, 40, 50, 3), dtype=np.uint8)
    shift, size = (-3.3, 4.1), (30, 36)
    rows, columns = (
        placement.taps(Axis(scale, jnp.array([each, 0.0]), length), whole, length, placement.taps_needed(scale))
        for each, whole, length in zip(shift, (40, 50), size, strict=True)
    )
    found = jax.jit(placement.resample)(image, jnp.zeros((2, 2), int), rows, columns)
    expected = jax.image.scale_and_translate(
        image[0].astype(np.float32), (*size, 3), (0, 1), jnp.array([scale, scale]), jnp.array(shift), 'linear'
    )
    inside = np.asarray(rows.inside)[:, None] & np.asarray(columns.inside)
    assert inside.sum() > 10
    np.testing.assert_allclose(np.asarray(found)[inside], np.asarray(expected)[inside], atol=0.01)


def test_images_that_shrink_very_much_are_still_averaged():
    """Fewer pixels are read than are covered, but from all over it."""
    image = np.random.default_rng(0).integers(0, 256, (1, 400, 400, 3), dtype=np.uint8)
    axis = Axis(jnp.array(0.02), jnp.array([0.0, 0.0]), jnp.array(8.0))
    taps = placement.taps(axis, 400, 8, placement.taps_needed(0.02))
    assert taps.places.shape == (8, 16)
    np.testing.assert_allclose(taps.weights.sum(1), 1, atol=1e-5)
    found = jax.jit(placement.resample)(image, jnp.zeros((2, 2), int), taps, taps)
    assert np.abs(np.asarray(found) - 127.5).max() < 40
    assert np.ptp(taps.places[3]) > 80


def test_masks_and_boxes_are_optional():
    images, masks, boxes, classes = compiled(JITTER)(jax.random.key(0), drawn()[..., :3], None, None)
    assert masks is boxes is classes is None
    np.testing.assert_array_equal(images, augmented(JITTER)[0])


def test_a_batch_depends_on_the_key_alone():
    for first, second in zip(augmented(MOSAIC, 3), augmented(MOSAIC, 3), strict=True):
        np.testing.assert_array_equal(first, second)
    assert not np.array_equal(augmented(MOSAIC, 3)[0], augmented(MOSAIC, 4)[0])


def test_half_of_the_images_are_mirrored():
    images = np.tile(drawn(), (16, 1, 1, 1))
    boxes, classes = np.tile(RECTANGLES[:, None], (16, 1, 1)), np.zeros((64, 1), np.int32)
    found = augmented(JointAugmentation((56, 72), flip=True), 0, images, boxes, classes)
    same = (found[0] == images[..., :3]).all((1, 2, 3))
    mirrored = (found[0] == images[:, :, ::-1, :3]).all((1, 2, 3))
    assert (same ^ mirrored).all()
    assert 20 < same.sum() < 44
    np.testing.assert_array_equal(found[2][same], boxes[same])
    left, top, right, bottom = boxes[mirrored][..., 0, :].T
    np.testing.assert_array_equal(found[2][mirrored][:, 0].T, [72 - right, top, 72 - left, bottom])


def test_objects_of_which_little_is_left_are_dropped():
    sides = Axis(jnp.array(1.0), jnp.array([0.0, 0.0]), jnp.array(20.0))
    boxes = jnp.array([[5, 5, 15, 15], [11, 5, 31, 15], [18.1, 5, 38.1, 15], [19.5, 5, 21, 15], [5, 5, 15, 5.5]])
    clipped, left = placement.place_boxes(boxes, (0, 0), sides, sides, (20, 20), 0.1)
    assert left.tolist() == [True, True, False, False, False]
    np.testing.assert_array_equal(clipped[1], [11, 5, 20, 15])
    _, left = placement.place_boxes(boxes, (0, 0), sides, sides, (20, 20), 0.0)
    assert left.tolist() == [True, True, True, False, False]


def test_the_largest_objects_are_kept():
    boxes = np.array([[[0, 0, 4, 4], [0, 0, 40, 30], [0, 0, 9, 9], [0, 0, 0, 0], [10, 10, 30, 30]]] * 4, np.float32)
    classes = np.array([[5, 1, 2, -1, 3]] * 4, np.int32)
    images = np.zeros((4, *SIZE, 3), np.uint8)
    _, _, kept, labels = augmented(JointAugmentation(SIZE, max_objects=3), 0, images, boxes, classes)
    assert labels.tolist() == [[1, 3, 2]] * 4
    np.testing.assert_array_equal(kept, boxes[:, [1, 4, 2]])
    _, _, kept, labels = augmented(JointAugmentation(SIZE, max_objects=7), 0, images, boxes, classes)
    assert labels.tolist() == [[5, 1, 2, -1, 3, -1, -1]] * 4
    assert not kept[labels < 0].any()


def test_colour_changes_pixels_alone():
    plain = augmented(JITTER)
    coloured = augmented(JointAugmentation(SIZE, flip=True, scale=(0.4, 2.0), colour=0.5))
    assert not np.array_equal(coloured[0], plain[0])
    for first, second in zip(coloured[1:], plain[1:], strict=True):
        np.testing.assert_array_equal(first, second)
    assert (coloured[0][plain[1] == IGNORE] == LETTERBOX_GREY).all()


def test_colours_change_as_their_factors_say(monkeypatch):
    """Against the definitions, for colours that are not clipped."""
    images = np.random.default_rng(0).integers(90, 140, (1, 16, 16, 3), dtype=np.uint8)
    factors = np.array([1.1, 0.8, 1.3], np.float32)
    monkeypatch.setattr(jax.random, 'uniform', lambda key, shape, **_: jnp.broadcast_to(factors[:, None], shape))
    matrix, offset = joint_augmentation._colour_changes(jax.random.key(0), images, 0.5)
    grey = np.array([0.299, 0.587, 0.114])
    pixels = images[0] * 1.1
    mean = (images[0, ::8, ::8] * 1.1 @ grey).mean()
    pixels = mean + 0.8 * (pixels - mean)
    tone = (pixels @ grey)[..., None]
    found = images[0] @ np.asarray(matrix[0]) + float(offset[0])
    np.testing.assert_allclose(found, tone + 1.3 * (pixels - tone), rtol=1e-4)


def test_a_mosaic_needs_groups_of_four():
    with pytest.raises(UserError, match='a mosaic joins four images and needs a batch_size divisible by 4, not 3'):
        augment(jax.random.key(0), drawn()[:3], None, None, MOSAIC)


@pytest.mark.parametrize(
    ('values', 'told'),
    [
        ({'scale': (2.0, 0.5)}, r'scale .* not \(2.0, 0.5\)'),
        ({'scale': (0.0, 1.0)}, r'scale .* not \(0.0, 1.0\)'),
        ({'mosaic': 1.5}, 'mosaic .* must lie from 0 to 1, not 1.5'),
        ({'colour': -0.1}, 'colour .* not -0.1'),
        ({'max_objects': 0}, 'max_objects .* must be positive, not 0'),
    ],
)
def test_values_outside_of_their_range(values, told):
    with pytest.raises(UserError, match=told):
        JointAugmentation(SIZE, **values)
