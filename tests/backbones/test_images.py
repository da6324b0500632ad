"""From a file to 8-bit RGB: orientation, bit depth, transparency, damage."""

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from backbones import UserError
from backbones.images import ImageReading, grey_range, inspect, read_image


def encoded(image, kind='PNG', **options) -> bytes:
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, kind, **options)
    return stream.getvalue()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


RAMP = np.linspace(0, 4095, 64).reshape(8, 8)


@pytest.mark.parametrize(
    ('data', 'kind'),
    [
        (encoded(RAMP.astype(np.uint16)), '16-bit grey'),
        (encoded(RAMP.astype(np.uint16), 'TIFF'), '16-bit grey'),
        (encoded(RAMP.astype(np.int32), 'TIFF'), '32-bit grey'),
        (b'P5 8 8 65535\n' + RAMP.astype('>u2').tobytes(), '32-bit grey'),
        (encoded(RAMP.astype(np.float32), 'TIFF'), 'float grey'),
    ],
    ids=['PNG of 16 bits', 'TIFF of 16 bits', 'TIFF of 32 bits', 'PGM', 'TIFF of floats'],
)
def test_deep_grey_images_keep_their_shades(data, kind):
    """Pillow alone cuts every value at 255, so such images become black and white."""
    found = inspect(data)
    assert (found.kind, found.deep_range) == (kind, (0.0, 4095.0))
    pixels = read_image(data, ImageReading(grey_range=(0, 4095)))
    expected = np.floor(np.trunc(RAMP) * 255 / 4095 + 0.5) if 'float' not in kind else np.floor(RAMP * 255 / 4095 + 0.5)
    np.testing.assert_array_equal(pixels, np.repeat(expected[..., None], 3, -1))


def test_deep_grey_without_a_range_is_refused():
    with pytest.raises(UserError, match=r'more than 8 bits \(mode I;16\), for which no range is known'):
        read_image(encoded(RAMP.astype(np.uint16)))


@pytest.mark.parametrize(
    ('low', 'high', 'floating', 'expected'),
    [
        (0, 200, False, (0, 255)),
        (0, 4095, False, (0, 4095)),
        (0, 4096, False, (0, 16383)),
        (5, 60000, False, (0, 65535)),
        (-1000, 3000, False, (-1000, 3000)),
        (0, 0.7, True, (0, 1)),
        (0, 200, True, (0, 255)),
        (-1, 1, True, (-1, 1)),
        (0, 5000, True, (0, 5000)),
    ],
)
def test_the_range_of_a_data_set(low, high, floating, expected):
    found, rule = grey_range(low, high, floating)
    assert found == expected
    assert f'{high:g}' in rule or 'floating' in rule


def test_what_is_not_a_number_becomes_the_lowest_value():
    values = np.array([[np.nan, -np.inf], [np.inf, 0.5]], np.float32)
    data = encoded(values, 'TIFF')
    assert inspect(data).deep_range == (0.5, 0.5)
    assert read_image(data, ImageReading(grey_range=(0, 1)))[..., 0].tolist() == [[0, 0], [255, 128]]
    with pytest.raises(UserError, match='no finite value'):
        inspect(encoded(np.full((2, 2), np.nan, np.float32), 'TIFF'))


def deep_png(values: np.ndarray) -> bytes:
    """A PNG of 16 bits per channel, which Pillow reads but does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    height, width, channels = values.shape
    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in values)
    header = struct.pack('>IIBBBBB', width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = ((b'IHDR', header), (b'IDAT', zlib.compress(rows)), (b'IEND', b''))
    return b'\x89PNG\r\n\x1a\n' + b''.join(chunk(*each) for each in chunks)


@pytest.mark.parametrize(('channels', 'kind'), [(2, '16-bit RGB with'), (3, '16-bit RGB'), (4, '16-bit RGB with')])
def test_colours_of_16_bits_are_said(channels, kind):
    values = np.full((4, 4, channels), 3300)
    values[..., channels - 1] = 60 if channels == 4 else 3300  # nearly transparent: nearly all white
    found = inspect(deep_png(values))
    assert found.kind.startswith(kind)
    assert found.upper_bits == 3300 >> 8


SHAPE = np.zeros((6, 6, 4), np.uint8)  # black everywhere; only alpha says where
SHAPE[2:4, 2:4, 3] = 255


def _palette() -> bytes:
    image = Image.fromarray(SHAPE[..., 3] // 255).convert('P')
    image.putpalette([0, 0, 0, 0, 0, 0])
    return encoded(image, transparency=0)


@pytest.mark.parametrize(
    'data',
    [encoded(SHAPE), encoded(SHAPE, 'WEBP', lossless=True), encoded(Image.fromarray(SHAPE).convert('LA')), _palette()],
    ids=['RGBA', 'WebP', 'LA', 'palette'],
)
def test_transparent_images_are_put_on_the_background(data):
    """Without that, a shape that only alpha shows is black on black."""
    assert 'transparency' in inspect(data).kind
    white = read_image(data)
    assert white[0, 0].tolist() == [255, 255, 255]
    assert white[2, 2].tolist() == [0, 0, 0]
    assert read_image(data, ImageReading(background=(0, 128, 255)))[0, 0].tolist() == [0, 128, 255]


def test_half_transparent_pixels_are_mixed():
    data = encoded(np.array([[[200, 0, 0, 128]]], np.uint8))
    mixed = [round((128 * value + 127 * 255) / 255) for value in (200, 0, 0)]
    assert np.abs(read_image(data)[0, 0].astype(int) - mixed).max() <= 1


@pytest.mark.parametrize('tag', range(1, 9))
def test_the_camera_s_orientation_is_applied(tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    data = encoded(noise(5, 7, 3), exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read_image(data), expected)
    assert inspect(data).size == expected.shape[1::-1]


@settings(max_examples=100, deadline=None)
@given(damage=st.binary(min_size=1, max_size=40))
def test_damaged_metadata_never_spoil_an_image(damage):
    """What the check accepts is also read: both go the same way."""
    data = encoded(noise(8, 8, 3), 'JPEG')
    segment = b'Exif\0\0' + damage
    spoilt = data[:2] + b'\xff\xe1' + struct.pack('>H', len(segment) + 2) + segment + data[2:]
    found = inspect(spoilt)
    assert read_image(spoilt).shape[1::-1] == found.size


@settings(max_examples=60, deadline=None)
@given(length=st.integers(0, 200), flips=st.lists(st.tuples(st.integers(0, 199), st.integers(0, 255)), max_size=3))
def test_reading_accepts_what_the_check_accepts(length, flips):
    data = bytearray(encoded(noise(8, 8, 4)))[: max(length, 1)]
    for place, value in flips:
        data[place % len(data)] = value
    try:
        found = inspect(bytes(data))
    except Exception:
        with pytest.raises(UserError):
            read_image(bytes(data))
    else:
        reading = ImageReading(found.deep_range)
        assert read_image(bytes(data), reading).shape[1::-1] == found.size


@pytest.mark.parametrize(
    ('data', 'message'),
    [
        (b'', 'empty file'),
        (b'\0' * 128 + b'DICM' + b'x' * 99, 'a DICOM file, which is not read here: convert it to PNG or TIFF'),
        (b'\0\0\0\x18ftypheic' + b'x' * 99, r"a HEIC image: pip install -e '\.\[heif\]', or convert it to JPEG"),
        (b'<!DOCTYPE html><html>', 'an HTML page in place of the image'),
        (b'version https://git-lfs.github.com/spec/v1\n', 'a git-LFS pointer in place of the image: git lfs pull'),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 'a vector drawing'),
        (b'no image at all', 'not an image of a known kind'),
        (encoded(noise(40, 40, 3))[:300], 'truncated|Truncated'),
    ],
)
def test_what_is_no_image_is_called_what_it_is(data, message):
    with pytest.raises(UserError, match=message):
        read_image(data)


def test_reading_in_threads_leaves_the_warnings_of_a_process_alone():
    before = list(warnings.filters)
    data = encoded(noise(8, 8, 3))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: read_image(data), range(400)))
    assert warnings.filters == before


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.png' cannot be read: .*No such file"):
        read_image(tmp_path / 'nowhere.png')


def test_of_several_frames_the_first_is_read():
    first, second = Image.fromarray(noise(4, 4, 3)), Image.fromarray(255 - noise(4, 4, 3))
    data = encoded(first, 'TIFF', save_all=True, append_images=[second])
    assert inspect(data).frames
    np.testing.assert_array_equal(read_image(data), np.asarray(first))
    assert not inspect(encoded(first)).frames


def test_a_reading_survives_json():
    reading = ImageReading((-5.0, 1000.5), (1, 2, 3))
    assert ImageReading.from_json(reading.as_json()) == reading
    assert ImageReading.from_json({}) == ImageReading()
