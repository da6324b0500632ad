"""From a file to an input, by way of the size in which a data set stores images: the host and the device agree."""

import io
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from backbones import UserError
from backbones.images import ImageReading, to_stored
from backbones.letterbox import LETTERBOX_GREY
from backbones.preprocessing import FITS, SMALL_IMAGES, TORCHVISION, Preprocessing

BICUBIC = Image.Resampling.BICUBIC


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Random pixels on the left, black and white ones, where the filter overshoots, on the right."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    pixels[:, width // 2 :] = np.where(pixels[:, width // 2 :] > 127, 255, 0)
    return pixels


def raw(size: int, fit: str, stored_size: int | None = None) -> Preprocessing:
    return Preprocessing((0.0,) * 3, (1.0,) * 3, size, 1.0, 'bilinear', fit, stored_size)


def on_the_device(image: np.ndarray, size: int, fit: str) -> np.ndarray:
    """What a preprocessing makes of an image before its own steps."""
    return np.rint(np.asarray(raw(size, fit, size)(jnp.asarray(image)[None]))[0] * 255)


def check(shape: tuple[int, int], size: int, fit: str, seed: int = 0) -> None:
    image = noise(*shape, seed)
    expected = to_stored(Image.fromarray(image), size, fit)
    assert (expected.shape, expected.dtype) == ((size, size, 3), np.uint8)
    np.testing.assert_array_equal(on_the_device(image, size, fit), expected)


def test_a_crop_is_pillows():
    for shape in ((45, 77), (77, 45), (64, 64), (32, 32), (1, 50)):
        image = Image.fromarray(noise(*shape))
        np.testing.assert_array_equal(to_stored(image, 32, 'crop'), np.asarray(ImageOps.fit(image, (32, 32), BICUBIC)))


def test_squash_resizes_both_sides():
    image = Image.fromarray(noise(45, 77))
    np.testing.assert_array_equal(to_stored(image, (20, 30), 'squash'), np.asarray(image.resize((30, 20), BICUBIC)))


def test_a_letterbox_holds_the_whole_image():
    image = Image.fromarray(noise(30, 60))
    stored = to_stored(image, 32, 'letterbox')
    np.testing.assert_array_equal(stored[8:24], np.asarray(image.resize((32, 16), BICUBIC)))
    assert (stored[:8] == LETTERBOX_GREY).all()
    assert (stored[24:] == LETTERBOX_GREY).all()


@pytest.mark.parametrize('fit', FITS)
@pytest.mark.parametrize('shape', [(45, 77), (40, 23), (1, 50), (201, 2), (32, 32)], ids=str)
def test_the_device_does_what_the_host_does(shape, fit):
    check(shape, 32, fit)


@given(st.tuples(*[st.integers(1, 90)] * 2), st.integers(1, 60), st.sampled_from(FITS), st.integers(0, 9))
@settings(max_examples=6, deadline=None)
def test_the_device_does_what_the_host_does_for_any_size(shape, size, fit, seed):
    check(shape, size, fit, seed)


@pytest.mark.slow
@given(st.tuples(*[st.integers(1, 1500)] * 2), st.integers(1, 300), st.sampled_from(FITS), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_the_device_does_what_the_host_does_for_any_large_size(shape, size, fit, seed):
    check(shape, size, fit, seed)


@pytest.mark.parametrize('fit', FITS)
def test_both_steps_one_after_the_other(fit):
    image = noise(50, 70)
    prepare = TORCHVISION.replace(size=24, crop=1.0, fit=fit, stored_size=40)
    stored = to_stored(Image.fromarray(image), 40, fit)
    expected = prepare.for_stored_images()(jnp.asarray(stored)[None])
    np.testing.assert_array_equal(prepare(jnp.asarray(image)[None]), expected)
    np.testing.assert_array_equal(prepare(jnp.asarray(stored)[None]), expected)  # stored already: left as it is
    unlike = TORCHVISION.replace(size=24, crop=1.0, fit=fit)(jnp.asarray(image)[None])
    assert np.abs(unlike - expected).max() > 0.05


def test_for_stored_images_nothing_is_read_or_stored_again():
    prepare = SMALL_IMAGES.replace(stored_size=40, reading=ImageReading((0.0, 4095.0)))
    assert prepare.stored_size == (40, 40)
    assert prepare.for_stored_images() == SMALL_IMAGES != prepare
    assert SMALL_IMAGES.for_stored_images() == SMALL_IMAGES


@pytest.mark.parametrize('reading', [ImageReading(), ImageReading((-1024.0, 3071.0), (0, 0, 0))])
@pytest.mark.parametrize('stored_size', [None, 40, (40, 60)])
def test_json(stored_size, reading):
    prepare = TORCHVISION.replace(size=(32, 48), stored_size=stored_size, reading=reading)
    assert Preprocessing.from_json(prepare.as_json()) == prepare


# --- Files. -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Photos of several sizes; the camera was turned for the last one."""
    files = [tmp_path / f'{index}.png' for index in range(3)]
    for index, (file, shape) in enumerate(zip(files, [(30, 50), (44, 20), (30, 50)], strict=True)):
        exif = Image.Exif()
        exif[0x0112] = 6 if index == 2 else 1
        Image.fromarray(noise(*shape, index)).save(file, exif=exif)
    return files


def test_a_file_is_read_as_the_data_were(photos):
    pixels = SMALL_IMAGES.read(photos[2])
    assert (pixels.shape, pixels.dtype) == ((1, 50, 30, 3), np.uint8)
    np.testing.assert_array_equal(pixels[0], np.rot90(noise(30, 50, 2), -1))
    for source in (str(photos[2]), photos[2].read_bytes(), io.BytesIO(photos[2].read_bytes()), Image.open(photos[2])):
        np.testing.assert_array_equal(SMALL_IMAGES.read(source), pixels)


def test_deep_grey_is_read_by_the_range_of_the_data(tmp_path):
    Image.fromarray(np.array([[0, 1000], [2000, 5000]], np.uint16)).save(tmp_path / 'deep.png')
    pixels = SMALL_IMAGES.replace(reading=ImageReading((1000.0, 3000.0))).read(tmp_path / 'deep.png')
    assert pixels[0, ..., 0].tolist() == [[0, 0], [128, 255]]
    with pytest.raises(UserError, match=r"deep\.png': a grey image of more than 8 bits .* no range is known"):
        SMALL_IMAGES.read(tmp_path / 'deep.png')


@pytest.mark.parametrize('stored_size', [pytest.param(None, marks=pytest.mark.exhaustive), 24])
def test_files_of_any_sizes_are_one_batch(photos, stored_size):
    prepare = SMALL_IMAGES.replace(size=16, stored_size=stored_size)
    inputs = prepare.files(photos)
    assert (inputs.shape, inputs.dtype) == ((3, 16, 16, 3), jnp.float32)
    for file, found in zip(photos, inputs, strict=True):
        np.testing.assert_array_equal(found, prepare(prepare.read(file))[0])


def test_files_that_are_none(photos):
    with pytest.raises(UserError, match='there are no files to read'):
        SMALL_IMAGES.files([])
    with pytest.raises(UserError, match=r"given as a list, such as files\(\['photo.jpg'\]\)"):
        SMALL_IMAGES.files('photo.jpg')
    with pytest.raises(UserError, match='given as a list'):
        SMALL_IMAGES.files(photos[0])
    with pytest.raises(UserError, match=r"nothing\.png' cannot be read"):
        SMALL_IMAGES.files([photos[0], photos[0].with_name('nothing.png')])
