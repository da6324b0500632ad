"""From an image file to 8-bit RGB pixels: orientation, bit depth, transparency.

It is the same when a folder is checked, when it is read, and when a model is used, so that no number depends on who
reads a file.
"""

import contextlib
import dataclasses
import functools
import io
import re
import warnings
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from backbones.errors import UserError
from backbones.letterbox import LETTERBOX_GREY, letterbox_geometry

# The tag with which a camera says how it was held, and what turns the image upright.
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS_SIDES = frozenset({5, 6, 7, 8})

Source = Path | str | bytes | IO[bytes] | Image.Image


@dataclasses.dataclass(frozen=True)
class ImageReading:
    """How files become 8-bit RGB pixels, where a file leaves a choice.

    Attributes:
        grey_range: the values of deep grey images (more than 8 bits, or floating point) that become 0 and 255; values
            outside are clipped. ``None``: there are no such images, and none can be read.
        background: red, green and blue (0 to 255) of what transparent images are put on.
    """

    grey_range: tuple[float, float] | None = None
    background: tuple[int, int, int] = (255, 255, 255)

    def as_json(self) -> dict[str, Any]:
        """The reading as JSON represents it."""
        return {
            'grey_range': None if self.grey_range is None else list(self.grey_range),
            'background': list(self.background),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> 'ImageReading':
        """The inverse of ``as_json``; what is absent has its default."""
        grey_range = value.get('grey_range')
        return ImageReading(
            None if grey_range is None else tuple(grey_range), tuple(value.get('background', (255, 255, 255)))
        )


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What decoding an image showed.

    Attributes:
        size: width and height in pixels, upright.
        kind: such as ``'RGB'``, ``'8-bit grey'``, ``'16-bit grey'``, ``'RGB with transparency'``.
        deep_range: the smallest and largest finite value of a deep grey image; ``None`` for all others.
        deep_is_float: whether these values are floating-point numbers.
        upper_bits: for colour of 16 bits per channel, of which only the upper 8 are read: the largest of these.
        frames: whether there are further frames or pages, of which only the first is read.
        plain: whether all pixels have the same colour.
        not_finite: whether some values are NaN, which become 0, or infinite.
        orientation: the camera's orientation tag; 1 for an image that is stored upright.
    """

    size: tuple[int, int]
    kind: str
    deep_range: tuple[float, float] | None = None
    deep_is_float: bool = False
    upper_bits: int | None = None
    frames: bool = False
    plain: bool = False
    not_finite: bool = False
    orientation: int = 1

    @property
    def size_as_stored(self) -> tuple[int, int]:
        """Width and height in pixels as the file has them, not turned upright."""
        return self.size[::-1] if self.orientation in _SWAPS_SIDES else self.size

    @property
    def is_turned(self) -> bool:
        """Whether reading it upright turns or mirrors what the file has."""
        return self.orientation in _UPRIGHT


def read_image(source: Source, reading: ImageReading = ImageReading()) -> UInt8[np.ndarray, 'height width 3']:
    """Read one image as upright 8-bit RGB.

    Args:
        source: a file, its bytes, a binary stream, or an open Pillow image.
        reading: the rules of the data set, or of the run whose model is used.

    Raises:
        UserError: it is no image, damaged, or a deep grey image for which ``reading`` has no range.
    """
    name = _name(source)
    try:
        return np.asarray(decode(source, reading))
    except UserError as error:
        raise UserError(f'{name}: {error}') from None
    except Exception as error:  # decoders raise all kinds of errors on damaged files
        raise UserError(f'{name} cannot be read: {why_unreadable(source, error)}') from None


def decode(source: Source, reading: ImageReading = ImageReading(), upright: bool = True) -> Image.Image:
    """The image in 8-bit RGB.

    Args:
        source: as for ``read_image``.
        reading: as for ``read_image``.
        upright: whether the camera's orientation tag is applied; without it, pixels lie as the file has them.

    Raises:
        UserError: a deep grey image for which ``reading`` has no range.
        Exception: whatever Pillow raises on a damaged file.
    """
    with _opened(source) as image:
        orientation = _orientation(image)
        rgb = _to_rgb(image, reading)
    return rgb.transpose(_UPRIGHT[orientation]) if upright and orientation in _UPRIGHT else rgb


def to_stored(
    image: Image.Image, size: int | tuple[int, int], fit: str = 'crop'
) -> UInt8[np.ndarray, 'rows columns 3']:
    """Bring an image to the size in which a data set stores it (bicubic); one that has it already stays as it is.

    ``Preprocessing`` does the same on the device, to the bit.

    Args:
        image: upright, 8-bit RGB or grey.
        size: height and width in pixels; a number stands for a square.
        fit: ``'crop'`` (the centre), ``'squash'`` or ``'letterbox'`` (grey borders), as in ``Preprocessing``.
    """
    rows, columns = (size, size) if isinstance(size, int) else size
    image, method = image.convert('RGB'), Image.Resampling.BICUBIC
    if fit == 'squash':
        return np.asarray(image.resize((columns, rows), method))
    if fit == 'crop':
        return np.asarray(ImageOps.fit(image, (columns, rows), method))
    (height, width), pads = letterbox_geometry((image.height, image.width), (rows, columns))
    inside = np.asarray(image.resize((width, height), method))
    return np.pad(inside, (*pads, (0, 0)), constant_values=LETTERBOX_GREY)


def inspect(source: Source) -> Inspection:
    """Decode an image as ``decode`` does, and report what it holds.

    Raises:
        UserError: it holds no finite value.
        Exception: whatever Pillow raises on a damaged file.
    """
    with _opened(source) as image:
        deep_colour = ';16' in repr(getattr(image, 'tile', ()))  # emptied when the pixels are loaded
        orientation = _orientation(image)
        frames = image.format != 'MPO' and _has_frames(image)
        upper_bits, not_finite = None, False
        if _is_deep(image):
            image.load()
            values = np.asarray(image)
            finite = values[np.isfinite(values)]
            if finite.size == 0:
                raise UserError('it holds no finite value')
            not_finite = finite.size < values.size
            low, high = float(finite.min()), float(finite.max())
            deep, floating = (low, high), image.mode == 'F'
            kind, plain = f'{"float" if floating else "32-bit" if image.mode == "I" else "16-bit"} grey', low == high
        else:
            deep, floating = None, False
            has_alpha = _may_be_transparent(image)
            rgb = _to_rgb(image, ImageReading())
            plain = all(low == high for low, high in _extrema(rgb))
            if deep_colour:
                # Before they are put on a background, whose values would count as well.
                colours = zip(image.getbands(), _extrema(image), strict=True)
                upper_bits = max(high for band, (_, high) in colours if band != 'A')
            kind = _kind(image.mode, deep_colour, has_alpha)
    width, height = image.size
    size = (height, width) if orientation in _SWAPS_SIDES else (width, height)
    return Inspection(size, kind, deep, floating, upper_bits, frames, plain, not_finite, orientation)


def _extrema(image: Image.Image) -> list[tuple[int, int]]:
    """The smallest and largest value of each band of an image of 8 bits."""
    found: Any = image.getextrema()
    return [found] if len(image.getbands()) == 1 else list(found)


def why_unreadable(source: Source, error: Exception) -> str:
    """Why an image cannot be read, in one line: what the file is if that can be told, and how to mend it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # of the file, not of what is in it
    with contextlib.suppress(Exception):
        if (what := what_it_is(_head(source))) is not None:
            return what
    if isinstance(error, UnidentifiedImageError):
        return 'not an image of a known kind'
    if isinstance(error, Image.DecompressionBombError):
        return f'more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels, which Pillow refuses: make it smaller'
    if re.search('truncated', str(error), re.IGNORECASE):
        return 'truncated'
    text = re.sub('<[^<>]* object at 0x[0-9a-f]+>', 'the file', ' '.join(str(error).split()))
    return text or type(error).__name__


def is_image(head: bytes) -> bool:
    """Whether a file begins like an image of a kind that can be read; for files whose suffix does not tell.

    Args:
        head: the first 512 bytes.
    """
    _register_heif()
    Image.init()
    for name in Image.ID:
        _, accepts = Image.OPEN[name]
        if name in _READ_BY_CONTENT and accepts is not None and accepts(head[:16]) is True:
            return True
    return False


_READ_BY_CONTENT = frozenset(
    {'PNG', 'JPEG', 'GIF', 'TIFF', 'BMP', 'WEBP', 'AVIF', 'HEIF', 'JPEG2000', 'PPM', 'FITS', 'QOI', 'PSD'}
)


def what_it_is(head: bytes) -> str | None:
    """What a file that is no readable image begins like, and how to mend it; ``None`` if that cannot be told.

    Args:
        head: the first 512 bytes.
    """
    start = head.lstrip(b'\xef\xbb\xbf \t\r\n').lower()
    if not head:
        return 'empty file'
    if head[128:132] == b'DICM':
        return 'a DICOM file, which is not read here: convert it to PNG or TIFF of 16 bits (dcm2img of DCMTK does)'
    if head[4:8] == b'ftyp' and head[8:12] in _HEIF_BRANDS:
        if _register_heif():
            return 'a damaged HEIC image'
        return "a HEIC image: pip install -e '.[heif]', or convert it to JPEG"
    if start.startswith(b'version https://git-lfs'):
        return 'a git-LFS pointer in place of the image: git lfs pull'
    if start.startswith((b'<!doctype html', b'<html')):
        return 'an HTML page in place of the image: download it again'
    if start.startswith((b'<svg', b'<?xml')) and b'<svg' in start:
        return 'a vector drawing (SVG): convert it to PNG'
    if head[:2] in (b'\x5c\x01', b'n+') or head[344:347] in (b'n+1', b'ni1'):
        return 'a NIfTI volume: convert its slices to PNG or TIFF of 16 bits'
    return None


_HEIF_BRANDS = (b'heic', b'heix', b'hevc', b'heim', b'heis', b'hevm', b'hevs', b'mif1', b'msf1')


@functools.cache
def suffixes() -> frozenset[str]:
    """Suffixes, in lower case, of the formats that can be read here."""
    _register_heif()
    extensions = Image.registered_extensions()
    # Of a video's formats only a stub is known, and PostScript would be run by another program.
    unsafe = {'MPEG', 'EPS', 'HDF5', 'GRIB', 'BUFR'}
    return frozenset(
        suffix for suffix, kind in extensions.items() if kind.upper() in Image.OPEN and kind.upper() not in unsafe
    )


@functools.cache
def _register_heif() -> bool:
    """Whether HEIC images can be read, which needs another package."""
    try:
        import pillow_heif  # ty: ignore[import-not-found]
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


@contextlib.contextmanager
def _opened(source: Source) -> Generator[Image.Image]:
    _register_heif()
    if isinstance(source, Image.Image):
        yield source
        return
    if isinstance(source, bytes):
        source = io.BytesIO(source)
    with Image.open(source) as image:
        if image.format in ('EPS', 'MPEG'):
            raise OSError(f'{image.format} is not read here')
        yield image


def ignore_warnings_of_pillow() -> None:
    """Let Pillow say nothing about odd metadata and large images, which are no reason to leave a file out.

    Call it in the main thread: the filters of warnings belong to the whole process.
    """
    warnings.filterwarnings('ignore', module=r'PIL\.')


def _orientation(image: Image.Image) -> int:
    """The camera's orientation tag, or 1 (upright): damaged metadata say nothing."""
    try:
        tag = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a parser of damaged bytes
        return 1
    return tag if isinstance(tag, int) else 1


def _has_frames(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, 'is_animated', False)) or getattr(image, 'n_frames', 1) > 1
    except Exception:  # counting them reads the file to its end
        return True


def _is_deep(image: Image.Image) -> bool:
    return image.mode in ('I', 'F') or image.mode.startswith('I;')


def _may_be_transparent(image: Image.Image) -> bool:
    return image.has_transparency_data


def _to_rgb(image: Image.Image, reading: ImageReading) -> Image.Image:
    if _is_deep(image):
        return _scaled(image, reading.grey_range).convert('RGB')
    if not _may_be_transparent(image):
        return image.convert('RGB')
    pixels = image.convert('RGBA')
    background = Image.new('RGBA', pixels.size, (*reading.background, 255))
    return Image.alpha_composite(background, pixels).convert('RGB')


def _scaled(image: Image.Image, grey_range: tuple[float, float] | None) -> Image.Image:
    """A deep grey image in 8 bits, rounded; what is not a number becomes the lowest value."""
    if grey_range is None:
        raise UserError(
            f'a grey image of more than 8 bits (mode {image.mode}), for which no range is known: the data set of this '
            'model had none'
        )
    low, high = grey_range
    values = np.asarray(image).astype(np.float64)
    scaled = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) * (255 / max(high - low, 1e-300))
    return Image.fromarray(np.floor(np.clip(scaled, 0, 255) + 0.5).astype(np.uint8))


_KINDS = {'1': '1-bit', 'L': '8-bit grey', 'LA': '8-bit grey', 'La': '8-bit grey', 'P': 'palette', 'PA': 'palette'}


def _kind(mode: str, deep_colour: bool, has_alpha: bool) -> str:
    kind = _KINDS.get(mode, mode.rstrip('AaX') if mode.startswith('RGB') else mode)
    return f'{"16-bit " if deep_colour else ""}{kind}{" with transparency" if has_alpha else ""}'


def _head(source: Source) -> bytes:
    if isinstance(source, bytes):
        return source[:512]
    if isinstance(source, Path | str):
        with Path(source).open('rb') as stream:
            return stream.read(512)
    if isinstance(source, Image.Image):
        return b'?'
    source.seek(0)
    return source.read(512)


def _name(source: Source) -> str:
    return repr(str(source)) if isinstance(source, Path | str) else 'the image'


def grey_range(low: float, high: float, floating: bool) -> tuple[tuple[float, float], str]:
    """The values that become 0 and 255 for deep grey images of one data set, and the rule in words.

    Whole numbers from 0 take the range of their bits (the fewest of 8, 10, 12, 14, 16, 20, 24, 31, 32 that hold the
    largest value), floating-point numbers that of 0 to 1 or of 0 to 255 if they lie in it; all others run from the
    smallest to the largest value of the data set.

    Args:
        low, high: the smallest and largest value of all its deep grey images.
        floating: whether they are floating-point numbers.
    """
    if low >= 0 and floating:
        for largest in (1.0, 255.0):
            if high <= largest:
                return (0.0, largest), f'floating-point values from 0 to {largest:g} become 0 to 255'
    if low >= 0 and not floating:
        bits = next((each for each in (8, 10, 12, 14, 16, 20, 24, 31, 32) if high < 2**each), 64)
        largest = float(2**bits - 1)
        return (0.0, largest), f'their largest value is {high:.0f}: {bits} bits, 0 to {largest:.0f} become 0 to 255'
    return (low, high), f'their smallest and largest value, {low:g} and {high:g}, become 0 and 255'
