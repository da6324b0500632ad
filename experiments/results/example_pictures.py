"""Small pictures of a few test examples, read from their data set once and then kept in the work directory."""

import base64
import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from backbones.errors import UserError
from backbones.images import ImageReading
from experiments.cli import atomic_files, json_files
from experiments.data import examples_by_id, record
from experiments.results.rows import Row

DIRECTORY = 'pictures'
# Longest side in pixels of what is kept.
SIDE = 160
_QUALITY = 70


@dataclasses.dataclass(frozen=True)
class Picture:
    """A small picture of an example.

    Attributes:
        content: its file, in WebP.
        size: height and width of the example's own image.
    """

    content: bytes
    size: tuple[int, int]

    @property
    def address(self) -> str:
        """As an address that a page can hold."""
        return f'data:image/webp;base64,{base64.b64encode(self.content).decode()}'

    def pixels(self) -> UInt8[np.ndarray, 'height width 3']:
        """Its pixels."""
        with Image.open(io.BytesIO(self.content)) as image:
            return np.asarray(image.convert('RGB'))


def picture(pixels: UInt8[np.ndarray, 'height width channels']) -> Picture:
    """The small picture of an image; one that is small already keeps its size, without loss."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert('RGB')
    size = (image.height, image.width)
    is_small = max(size) <= SIDE // 2
    if not is_small:
        image.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    image.save(stream, 'webp', quality=_QUALITY, lossless=is_small)
    return Picture(stream.getvalue(), size)


def read(
    workdir: Path, row: Row, ids: Sequence[str], sizes: Mapping[str, tuple[int, int]] | None = None, dense: bool = False
) -> dict[str, Picture]:
    """Pictures of some test examples of a row, by id; those that cannot be read are left out.

    Args:
        workdir: its work directory, which keeps them.
        row: says which data set.
        ids: of the examples.
        sizes: height and width of the annotated images, where annotations say them.
        dense: whether the task is one of boxes or masks.

    Raises:
        UserError: none can be read; the reason is named.
    """
    name = row.cell.dataset
    file = workdir / DIRECTORY / record.file_of(workdir, name).name
    kept = _kept(file, row.data['fingerprint'])
    missing = [example for example in ids if example not in kept]
    if missing:
        reading = _reading(record.file_of(workdir, name))
        try:
            found = examples_by_id.read(name, missing, reading, sizes, dense)
        except UserError:
            if len(missing) == len(ids):
                raise
            return {example: kept[example] for example in ids if example in kept}
        kept |= {example: picture(pixels) for example, pixels in found.items()}
        _keep(file, row.data['fingerprint'], {example: kept[example] for example in ids if example in kept})
    return {example: kept[example] for example in ids if example in kept}


def _reading(file: Path) -> ImageReading | None:
    """How the files of a data set become 8-bit RGB, as its record says."""
    try:
        return ImageReading.from_json(json_files.parse(file.read_text())['reading'])
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return None


def _kept(file: Path, fingerprint: str) -> dict[str, Picture]:
    """Earlier pictures of the same data; what is damaged is read again."""
    try:
        document: dict[str, Any] = json_files.parse(file.read_text())
        if document['fingerprint'] != fingerprint:
            return {}
        return {
            example: Picture(base64.b64decode(content), (int(height), int(width)))
            for example, (content, height, width) in document['pictures'].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _keep(file: Path, fingerprint: str, pictures: Mapping[str, Picture]) -> None:
    document = {
        'fingerprint': fingerprint,
        'pictures': {
            example: [base64.b64encode(each.content).decode(), *each.size] for example, each in pictures.items()
        },
    }
    try:
        atomic_files.write_json(file, document)
    except OSError:
        return  # a directory of somebody else's: the next report reads them again
