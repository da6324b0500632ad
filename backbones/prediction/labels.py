"""Text on pictures: its font, what that font can write, and where labels of boxes cover the least."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from PIL import Image, ImageFont

# Smaller letters cannot be told apart.
_SMALLEST = 11
# A label hides no more of any box than this, nor of its own; elsewhere it costs the part of each box that it hides,
# for each outline that it interrupts as much as a fifth of a box, and a little for each place that is more usual.
_HIDDEN, _INTERRUPTION, _UNUSUAL = 1 / 3, 0.2, 0.04


def font(picture: Image.Image) -> ImageFont.FreeTypeFont:
    """DejaVu Sans in the size that is read on this picture."""
    return font_of(max(_SMALLEST, round(max(picture.size) / 48)))


def font_of(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans of so many pixels."""
    return ImageFont.truetype(_font_file('DejaVuSans-Bold.ttf' if bold else 'DejaVuSans.ttf'), size)


def line_height(font: ImageFont.FreeTypeFont) -> int:
    """Pixels from line to line, with room for what hangs below and for accents."""
    ascent, descent = font.getmetrics()
    return ascent + descent + max(1, round(font.size / 8))


def gap(font: ImageFont.FreeTypeFont) -> int:
    """Pixels between a name and its number, more than between the words of a name."""
    return round(0.9 * font.size)


def written(name: str, index: int) -> str:
    """The name of a class as pictures show it: the number of the class where the font lacks one of its characters."""
    return name if name and _characters().issuperset(map(ord, name)) else f'class {index}'


def shortened(name: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """A name, or the start of it with an ellipsis, that takes no more than so many pixels."""
    if font.getlength(name) <= width:
        return name
    lengths = [font.getlength(f'{name[:end]}…') for end in range(1, len(name))]
    return f'{name[: max(1, sum(length <= width for length in lengths))]}…'


def places(
    boxes: Float[np.ndarray, 'n 4'], widths: Sequence[int], height: int, size: tuple[int, int]
) -> list[tuple[int, int, int, int] | None]:
    """Where the labels of boxes stand so that they cover no other label and little of any box.

    Args:
        boxes: left, top, right and bottom in pixels; the first choose first.
        widths: of their labels, in pixels.
        height: of a label, in pixels.
        size: width and height of the picture.

    Returns:
        left, top, right and bottom of each label, right and bottom outside; ``None`` where there is no room for it.
    """
    # Outlines include their last pixel; what lies outside the picture needs no room.
    outer = np.clip(np.floor(boxes) + np.array([0, 0, 1, 1]), 0, np.tile(size, 2))
    areas = np.maximum(outer[:, 2:] - outer[:, :2], 1).prod(-1)
    taken = np.zeros((0, 4), np.int64)
    chosen: list[tuple[int, int, int, int] | None] = []
    for box, width in zip(outer, widths, strict=True):
        candidates = _candidates(box, width, height, size)
        common = _common(candidates, outer)
        hidden = common / areas
        interrupted = (common > 0) & (common < width * height)
        cost = hidden.sum(1) + _INTERRUPTION * interrupted.sum(1) + _UNUSUAL * np.arange(len(candidates))
        inside = np.all(candidates[:, 2:] <= np.array(size), axis=1)
        free = inside & np.all(hidden <= _HIDDEN, axis=1) & np.all(_common(candidates, taken) == 0, axis=1)
        if not free.any():
            chosen.append(None)
            continue
        best = candidates[np.where(free, cost, np.inf).argmin()]
        taken = np.append(taken, best[None], 0)
        left, top, right, bottom = best.tolist()
        chosen.append((left, top, right, bottom))
    return chosen


def _candidates(
    box: Float[np.ndarray, '4'], width: int, height: int, size: tuple[int, int]
) -> Int[np.ndarray, 'candidates 4']:
    """Places at a box, the most usual first, moved into the picture: above, below, inside, and on either side."""
    left, top, right, bottom = box.tolist()
    corners = [(x, y) for y in (top - height, bottom, top, bottom - height) for x in (left, right - width)]
    corners += [(x, y) for y in (top, bottom - height) for x in (right, left - width)]
    extent = np.array([width, height])
    starts = np.clip(np.array(corners), 0, np.maximum(np.array(size) - extent, 0)).astype(np.int64)
    return np.concatenate([starts, starts + extent], 1)


def _common(one: np.ndarray, other: np.ndarray) -> Float[np.ndarray, 'one other']:
    """Pixels that rectangles have in common."""
    start, end = np.maximum(one[:, None, :2], other[:, :2]), np.minimum(one[:, None, 2:], other[:, 2:])
    return np.maximum(end - start, 0).prod(-1)


@functools.cache
def _font_file(name: str = 'DejaVuSans.ttf') -> str:
    import matplotlib  # only pictures need it

    return str(Path(matplotlib.get_data_path()) / 'fonts' / 'ttf' / name)


@functools.cache
def _characters() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(_font_file()).get_charmap())
