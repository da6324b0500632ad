"""Decode images to uint8 RGB in threads (PIL releases Python's lock while decoding)."""

import contextlib
import hashlib
import math
import os
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import PIL
from jaxtyping import Int, UInt8
from PIL import Image

from backbones import images
from backbones.errors import UserError
from backbones.images import ImageReading
from backbones.letterbox import letterbox_geometry
from experiments.cli import display
from experiments.data.truth import IGNORE

# Data sets of up to this many bytes are decoded once and kept; larger ones are decoded on every access.
MEMORY_LIMIT = 2 << 30
_AT_ONCE = 512


def worker_count() -> int:
    """One decoding thread per core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


@contextlib.contextmanager
def worker_threads() -> Generator[ThreadPoolExecutor]:
    """A pool of ``worker_count`` threads; an exception that leaves the context waits for none of them.

    A thread may be reading from a disk that does not answer, and the exception be Ctrl-C.
    """
    pool = ThreadPoolExecutor(worker_count())
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


class KnownFile(NamedTuple):
    """A file whose content is known: SHA-256 of its bytes, and a stamp that changes with them."""

    path: Path
    digest: str
    stamp: tuple[int, ...]

    @staticmethod
    def read(path: Path) -> 'tuple[KnownFile, bytes]':
        """A file, and its content.

        Raises:
            OSError: it cannot be read.
        """
        stamp, content = _stamp(path), path.read_bytes()
        return KnownFile(path, hashlib.sha256(content).hexdigest(), stamp), content

    def content(self) -> bytes:
        """Its bytes.

        Raises:
            UserError: they are no longer what they were, or the file cannot be read any more.
        """
        try:
            content, stamp = self.path.read_bytes(), _stamp(self.path)
        except OSError as error:
            raise UserError(
                f'{str(self.path)!r} can no longer be read ({error.strerror}): it was there when the data set was '
                'loaded; start again'
            ) from None
        # The stamp is cheap to compare; a file that was only copied back has a new stamp but the same digest.
        if stamp != self.stamp and hashlib.sha256(content).hexdigest() != self.digest:
            raise UserError(f'{str(self.path)!r} has changed since the data set was loaded; start again')
        return content


def _stamp(file: Path) -> tuple[int, ...]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


class MaskReader(Protocol):
    """Reads a mask at the size of its image: the class of each pixel, from 0, or ``IGNORE``."""

    @property
    def digest(self) -> str:
        """A hash that changes with the mask."""
        ...

    def __call__(self) -> UInt8[np.ndarray, 'height width']:
        """Read it."""
        ...


class FileReader:
    """Reads the image of file ``index``, as it is or brought to a size, and its mask as a fourth channel.

    Args:
        files: the files.
        reading: how they become 8-bit RGB.
        size: height and width in pixels, or the side of a square; ``None``: images keep their size.
        fit: how images of another aspect ratio are brought to the size; with masks ``'letterbox'``.
        masks: of each file, if there are masks.
        turned: whether each file is turned upright as its orientation tag says; ``None``: all are.
    """

    def __init__(
        self,
        files: Sequence[KnownFile],
        reading: ImageReading,
        size: int | tuple[int, int] | None,
        fit: str,
        masks: Sequence[MaskReader] | None = None,
        turned: Sequence[bool] | None = None,
    ):
        self._files, self._reading, self._size, self._fit = files, reading, size, fit
        self._masks, self._turned = masks, turned

    def __call__(self, index: int) -> UInt8[np.ndarray, 'height width channels']:
        """Read one image."""
        upright = self._turned is None or self._turned[index]
        image = images.decode(self._files[index].content(), self._reading, upright)
        # Upright already: the tag of the camera would turn it again.
        pixels = np.asarray(image) if self._size is None else images.to_stored(image, self._size, self._fit)
        if self._masks is None:
            return pixels
        mask = self._masks[index]()
        return np.dstack([pixels, mask if self._size is None else stored_mask(mask, self._size)])


def stored_size_of(sizes: Sequence[tuple[int, int]], side: int) -> tuple[int, int] | None:
    """Height and width in which images are stored; ``None``: their own, which they share.

    Images of one size that is larger become smaller without any border; those of several sizes become squares.

    Args:
        sizes: height and width of each image.
        side: the longest side.
    """
    if len(set(sizes)) > 1:
        return side, side
    if max(sizes[0]) <= side:
        return None
    size, before = letterbox_geometry(sizes[0], (side, side))[0], (side, side)
    while size != before:  # rounding may cost the longer side a pixel
        size, before = letterbox_geometry(sizes[0], size)[0], size
    return size


def stored_mask(mask: UInt8[np.ndarray, 'h w'], size: int | tuple[int, int]) -> UInt8[np.ndarray, 'height width']:
    """Bring a mask to the size in which its image is stored with a letterbox: nearest pixels, ``IGNORE`` around it."""
    rows, columns = (size, size) if isinstance(size, int) else size
    (height, width), pads = letterbox_geometry(mask.shape, (rows, columns))
    inside = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
    return np.pad(inside, pads, constant_values=IGNORE)


def fits_in_memory(shape: tuple[int, ...]) -> bool:
    """True if images of this shape take at most ``MEMORY_LIMIT`` bytes."""
    return math.prod(shape) <= MEMORY_LIMIT


def content_digest(encoded: Iterable[str | bytes], **decoding: object) -> str:
    """A digest of images that are decoded on access, computed without decoding them.

    Args:
        encoded: a digest of the bytes of each file or record, in the order of the examples.
        **decoding: everything else that the pixels depend on.
    """
    # Decoders change the last bits of pixels from one release to the next.
    digest = hashlib.sha256(repr((PIL.__version__, sorted(decoding.items()))).encode())
    for each in encoded:
        digest.update(each.encode() if isinstance(each, str) else each)
    return digest.hexdigest()


class DecodedImages:
    """Images that are decoded when they are indexed.

    Attributes:
        shape: ``(examples, height, width, channels)`` of all readable images.
        content: ``content_digest`` of the images, or ``None``.
    """

    def __init__(
        self,
        read: Callable[[int], UInt8[np.ndarray, 'h w c']],
        shape: tuple[int, ...],
        content: str | None = None,
    ):
        self._read = read
        self.shape = shape
        self.content = content

    def __getitem__(self, indices: Int[np.ndarray, ' count']) -> UInt8[np.ndarray, 'count height width channels']:
        out = np.empty((len(indices), *self.shape[1:]), np.uint8)

        def fill(slot: int) -> None:
            out[slot] = self._read(int(indices[slot]))

        if len(indices) == 1:  # a caller that reads one by one has its own threads
            fill(0)
            return out
        with worker_threads() as pool:
            list(pool.map(fill, range(len(indices))))
        return out

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of the modules whose code determines the pixels."""
        reader = getattr(self._read, '__module__', None) or type(self._read).__module__
        return tuple(dict.fromkeys((__name__, images.__name__, reader)))

    @property
    def fits_in_memory(self) -> bool:
        """True if all images together take at most ``MEMORY_LIMIT`` bytes."""
        return fits_in_memory(self.shape)

    def in_memory_if_small(
        self, description: str = 'reading images'
    ) -> 'DecodedImages | UInt8[np.ndarray, "examples height width channels"]':
        """All images as one array if they fit into ``MEMORY_LIMIT`` bytes, else unchanged."""
        if not self.fits_in_memory:
            return self
        out, indices = np.empty(self.shape, np.uint8), np.arange(self.shape[0])
        with display.progress() as bar:
            task = bar.add_task(description, total=len(out), note='')
            for start in range(0, len(out), _AT_ONCE):
                out[start : start + _AT_ONCE] = self[indices[start : start + _AT_ONCE]]
                bar.advance(task, min(_AT_ONCE, len(out) - start))
        return out

    def decode_all(self) -> tuple[UInt8[np.ndarray, 'examples height width channels'], dict[int, Exception]]:
        """All images as one array, and the error of each unreadable one (its pixels are undefined)."""
        out, errors = np.empty(self.shape, np.uint8), {}

        def fill(index: int) -> None:
            try:
                out[index] = self._read(index)
            except Exception as error:  # decoders raise all kinds of errors on damaged records
                errors[index] = error

        with worker_threads() as pool:
            list(pool.map(fill, range(self.shape[0])))
        return out, dict(sorted(errors.items()))
