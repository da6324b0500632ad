"""Decode images to uint8 RGB in threads (PIL releases Python's lock while decoding)."""

import contextlib
import hashlib
import math
import os
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL
from jaxtyping import Int, UInt8
from PIL import Image, ImageOps

from backbones.preprocessing import LETTERBOX_GREY

# Data sets of up to this many bytes are decoded once and kept; larger ones are decoded on every access.
MEMORY_LIMIT = 2 << 30


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


def fit_to_square(image: Image.Image, size: int, fit: str = 'crop') -> UInt8[np.ndarray, 'size size 3']:
    """Convert to RGB and to a square (bicubic); a camera's orientation tag is applied.

    Args:
        fit: ``'crop'`` (the centre), ``'squash'`` or ``'letterbox'`` (grey borders), as in ``Preprocessing``.
    """
    image = ImageOps.exif_transpose(image).convert('RGB')
    square, method = (size, size), Image.Resampling.BICUBIC
    if fit == 'squash':
        return np.asarray(image.resize(square, method))
    if fit == 'letterbox':
        return np.asarray(ImageOps.pad(image, square, method, color=(LETTERBOX_GREY,) * 3))
    return np.asarray(ImageOps.fit(image, square, method))


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
        return __name__, getattr(self._read, '__module__', None) or type(self._read).__module__

    @property
    def fits_in_memory(self) -> bool:
        """True if all images together take at most ``MEMORY_LIMIT`` bytes."""
        return fits_in_memory(self.shape)

    def in_memory_if_small(self) -> 'DecodedImages | UInt8[np.ndarray, "examples height width channels"]':
        """All images as one array if they fit into ``MEMORY_LIMIT`` bytes, else unchanged."""
        return self[np.arange(self.shape[0])] if self.fits_in_memory else self

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
