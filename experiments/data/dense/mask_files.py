"""Masks in image files: palette and grey images hold the values themselves, coloured ones need a table of colours."""

import dataclasses
import io
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from backbones.errors import UserError
from experiments.data.decoding import KnownFile
from experiments.data.dense.mask_source import InspectedMask, LabelTable, counted

# Added to red, green and blue as one number, so that a colour is never taken for a value.
COLOUR = 1 << 24


@dataclasses.dataclass(frozen=True)
class MaskFile:
    """A mask in a file, which is known once it has been inspected.

    Attributes:
        path: where it is.
        by_colour: whether there is a table of colours, so that grey pixels of a coloured image are colours too.
        known: its content, once known.
    """

    path: Path
    by_colour: bool
    known: KnownFile | None = None

    def inspect(self) -> InspectedMask:
        """Read its values: see ``MaskSource``."""
        known, content = KnownFile.read(self.path)
        if not content:
            raise UserError('empty file')
        values = mask_values(content, self.by_colour)
        source = dataclasses.replace(self, known=known)
        return InspectedMask((values.shape[0], values.shape[1]), counted(values), source)

    def reader(self, table: LabelTable) -> 'LabelledFile':
        """The mask in classes."""
        assert self.known is not None, 'inspect first'
        return LabelledFile(self.known, self.by_colour, table)


@dataclasses.dataclass(frozen=True)
class LabelledFile:
    """A mask in a file, read in classes."""

    known: KnownFile
    by_colour: bool
    table: LabelTable

    @property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return self.known.digest

    def __call__(self) -> UInt8[np.ndarray, 'height width']:
        """Read it.

        Raises:
            UserError: the file has changed.
        """
        return self.table(mask_values(self.known.content(), self.by_colour))


def mask_values(content: bytes, by_colour: bool) -> Int[np.ndarray, 'height width']:
    """The value of each pixel of a mask: palette index, grey value, or colour (``colour_value``).

    Args:
        content: of the file.
        by_colour: whether a coloured image is read by its colours even if all of them are grey.

    Raises:
        UserError: a kind of image that holds no whole numbers, or a JPEG file.
        Exception: whatever Pillow raises on a damaged file.
    """
    with Image.open(io.BytesIO(content)) as image:
        if image.format == 'JPEG':
            raise UserError('a JPEG file, whose compression changes the values of masks: PNG keeps them')
        if image.mode in ('P', 'L', '1', 'I') or image.mode.startswith('I;'):
            unit = _unit(image)
            return np.asarray(image).astype(np.int64) // unit
        if image.mode not in ('RGB', 'RGBA', 'LA', 'PA', 'RGBX'):
            raise UserError(f'a mask of mode {image.mode}; expected palette indices, grey values or RGB')
        pixels = np.asarray(image.convert('RGB')).astype(np.int64)
    if not by_colour and (pixels == pixels[..., :1]).all():
        return pixels[..., 0]
    return colour_value(pixels[..., 0], pixels[..., 1], pixels[..., 2])


def _unit(image: Image.Image) -> int:
    """What Pillow makes of the value 1: it spreads grey values of 2 and 4 bits over all of 8 bits."""
    how = repr(getattr(image, 'tile', ()))  # emptied when the pixels are loaded
    return 85 if "'L;2'" in how else 17 if "'L;4'" in how else 1


def colour_value(red, green, blue):
    """The value that stands for a colour: of numbers, or of arrays of them."""
    return COLOUR + (red << 16) + (green << 8) + blue


def colour_of(value: int) -> tuple[int, int, int]:
    """Red, green and blue of a value from ``COLOUR`` on."""
    return (value >> 16) & 255, (value >> 8) & 255, value & 255


def value_in_words(value: int) -> str:
    """A value of a mask as a person writes it."""
    return f'the value {value}' if value < COLOUR else f'the colour {",".join(map(str, colour_of(value)))}'
