"""What a user means by images: arrays, files, directories, patterns."""

import glob
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from backbones.errors import UserError
from backbones.images import ImageReading, Source, read_image, suffixes

Images = Source | np.ndarray | Iterable[Source | np.ndarray]


def expand(images: Images) -> Iterator[Source | np.ndarray]:
    """Each image that is meant, in order; a directory stands for the images in it and below it, a pattern for its hits.

    Hidden files, and files of a directory that do not end like images, are passed over.

    Args:
        images: one of, or several of: a path, a directory, a pattern such as ``'photos/*.jpg'``, the bytes of a file,
            a binary stream, an open Pillow image, an array ``uint8[height, width, 1, 3 or 4]`` (grey, RGB, RGBA); or
            one array ``uint8[batch, height, width, 1, 3 or 4]``.

    Raises:
        UserError: there is nothing at a path, no image in a directory, no hit of a pattern, or an array of another
            shape or type.
    """
    if isinstance(images, np.ndarray) or (hasattr(images, '__array__') and not isinstance(images, Image.Image)):
        yield from _arrays(np.asarray(images))
    elif isinstance(images, Path | str):
        yield from _paths(images)
    elif isinstance(images, bytes | Image.Image):
        yield images
    elif isinstance(images, bytearray | memoryview):
        yield bytes(images)
    elif callable(read := getattr(images, 'read', None)):
        yield read()  # whoever looks at the image again cannot read a stream again
    elif isinstance(images, Iterable):
        for image in images:
            yield from expand(image)
    else:
        raise UserError(f'an image is a path, bytes, a stream, a Pillow image or an array, not {type(images).__name__}')


def _arrays(array: np.ndarray) -> Iterator[np.ndarray | Image.Image]:
    if array.dtype != np.uint8:
        raise UserError(
            f'images as arrays must be uint8 (0 to 255), not {array.dtype}; of values from 0 to 1 that is '
            "(array * 255).round().astype('uint8')"
        )
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim not in (3, 4) or array.shape[-1] not in (1, 3, 4) or 0 in array.shape:
        first = array.ndim == 3 and array.shape[0] in (1, 3)
        raise UserError(
            'images as arrays must have the shape [height, width, 1, 3 or 4] or [batch, height, width, 1, 3 or 4], not '
            f'{list(array.shape)}{"; array.transpose(1, 2, 0) has the channels last" if first else ""}'
        )
    images = array[None] if array.ndim == 3 else array
    # With transparency they are put on a background, as files are.
    yield from images if array.shape[-1] != 4 else map(Image.fromarray, images)


def _paths(text: Path | str) -> Iterator[Path]:
    if not str(text):
        raise UserError('a path is empty')
    if re.match(r'\w+://', str(text)):
        raise UserError(f'{text} is an address, from which nothing is fetched; download it first')
    path = Path(os.path.expanduser(text))  # noqa: PTH111 Path raises for a name that begins with ~ and is no user's
    try:
        is_directory = path.is_dir()
    except OSError:  # such as a name that is too long; whoever reads it says so
        is_directory = False
    if is_directory:
        found = False
        for directory, below, names in os.walk(path):
            below[:] = sorted(name for name in below if not name.startswith('.'))
            for name in sorted(names):
                hidden = name.startswith('.') or not Path(directory, name).is_file()
                if not hidden and Path(name).suffix.lower() in suffixes():
                    found = True
                    yield Path(directory, name)
        if not found:
            raise UserError(f'there is no image in the directory {str(path)!r}')
        return
    if not glob.has_magic(str(path)) or path.exists():
        yield path  # whether it can be read shows when it is read
        return
    hits = [
        hit
        for hit in sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 it may begin anywhere
        if not Path(hit).is_dir()
    ]
    if not hits:
        raise UserError(f'no file matches {str(path)!r}')
    yield from map(Path, hits)


def pixels(image: Source | np.ndarray, reading: ImageReading) -> UInt8[np.ndarray, 'height width 3']:
    """An image as a person sees it: upright, in 8-bit RGB.

    Raises:
        UserError: it cannot be read.
    """
    if not isinstance(image, np.ndarray):
        if isinstance(image, Path) and stat.S_ISFIFO(_mode(image)):
            raise UserError(f'{str(image)!r} cannot be read: it is a pipe, not a file')
        if isinstance(image, Image.Image) and 0 in image.size:
            raise UserError(f'an image of {image.width}x{image.height} pixels has none to look at')
        return read_image(image, reading)
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError:
        return 0
