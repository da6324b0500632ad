"""A contact sheet: one row per image, the image first, then what each model looks at in it."""

import dataclasses
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from backbones.explanation import heat_maps
from backbones.prediction import labels

_INK, _GREY, _RULE = (20, 20, 20), (95, 95, 95), (215, 215, 215)
# Distances and sizes of letters, as shares of the width of a cell.
_GAP, _TEXT, _TITLE = 1 / 20, 1 / 18, 1 / 16
_SMALLEST_TEXT = 11
# Longest side of a cell's picture beyond its width, so that a tall image does not take a page.
_TALLEST = 1.35


@dataclasses.dataclass(frozen=True)
class Cell:
    """A picture and the lines under it, each with a number or none; the first is darker."""

    picture: Image.Image
    lines: Sequence[tuple[str, str]] = ()


@dataclasses.dataclass(frozen=True)
class Heading:
    """The title of a column and the lines under it."""

    title: str
    lines: Sequence[str] = ()


def cell_size(size: Sequence[int], width: int) -> tuple[int, int]:
    """Width and height of an image of some size in a cell of this width, its proportions kept."""
    scale = min(width / size[0], _TALLEST * width / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def in_cell(picture: Image.Image, width: int) -> Image.Image:
    """A picture in the size of a cell; of one that is much smaller every pixel is a square."""
    size = cell_size(picture.size, width)
    few = size[0] >= 3 * picture.width
    return picture.resize(size, Image.Resampling.NEAREST if few else Image.Resampling.LANCZOS)


def mosaic(pictures: Sequence[Image.Image], width: int) -> Image.Image:
    """Small pictures in a square of this side, as many in a row as in a column."""
    side = math.ceil(math.sqrt(len(pictures)))
    gap = max(1, width // 100)
    each = (width - gap * (side - 1)) // side
    rows = -(-len(pictures) // side)
    result = Image.new('RGB', (width, each * rows + gap * (rows - 1)), 'white')
    for number, picture in enumerate(pictures):
        row, column = divmod(number, side)
        scale = each / max(picture.size)
        size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        small = picture.resize(size, Image.Resampling.NEAREST if scale >= 3 else Image.Resampling.LANCZOS)
        place = column * (each + gap) + (each - size[0]) // 2, row * (each + gap) + (each - size[1]) // 2
        result.paste(small, place)
    return result


def sheet(headings: Sequence[Heading], rows: Sequence[Sequence[Cell]], width: int, notes: Sequence[str] = (),
          scale: bool = False) -> Image.Image:  # fmt: skip
    """Draw a contact sheet.

    Args:
        headings: of the columns.
        rows: as many cells as columns each; pictures are no wider than a column.
        width: of a column in pixels.
        notes: lines under the last row.
        scale: whether the colours of heat maps are shown under the last row.
    """
    gap, fonts = round(width * _GAP), _fonts(width)
    title, text = fonts
    step = labels.line_height(text)
    above = labels.line_height(title) + step * max(len(each.lines) for each in headings) + gap
    heights = [max(cell.picture.height + step * len(cell.lines) for cell in row) + gap // 3 for row in rows]
    total = len(headings) * width + (len(headings) + 1) * gap
    wrapped = [line for note in notes for line in _wrapped(note, text, total - 2 * gap)]
    below = (step + gap // 2 if scale else 0) + step * len(wrapped) + (gap if scale or wrapped else 0)
    page = Image.new('RGB', (total, above + sum(heights) + gap * (len(rows) + 1) + below), 'white')
    draw = ImageDraw.Draw(page)
    for column, heading in enumerate(headings):
        left = gap + column * (width + gap)
        draw.text((left, gap // 2), labels.shortened(heading.title, title, width), _INK, title)
        for number, line in enumerate(heading.lines):
            top = gap // 2 + labels.line_height(title) + step * number
            draw.text((left, top), labels.shortened(line, text, width), _GREY, text)
    top = above + gap // 2
    for row, height in zip(rows, heights, strict=True):
        draw.line((gap, top - gap // 3, total - gap, top - gap // 3), _RULE)
        for column, cell in enumerate(row):
            left = gap + column * (width + gap)
            page.paste(cell.picture, (left + (width - cell.picture.width) // 2, top))
            _write_lines(draw, cell.lines, (left, top + cell.picture.height + gap // 4), width, text)
        top += height + gap
    if scale or wrapped:
        draw.line((gap, top - gap // 3, total - gap, top - gap // 3), _RULE)
    if scale:
        _draw_scale(page, (gap, top + gap // 6), width, text)
        top += step + gap // 2
    for line in wrapped:
        draw.text((gap, top), line, _GREY, text)
        top += step
    return page


def _fonts(width: int) -> tuple[ImageFont.FreeTypeFont, ImageFont.FreeTypeFont]:
    return (
        labels.font_of(max(_SMALLEST_TEXT + 1, round(width * _TITLE)), bold=True),
        labels.font_of(max(_SMALLEST_TEXT, round(width * _TEXT))),
    )


def _write_lines(
    draw: ImageDraw.ImageDraw,
    lines: Sequence[tuple[str, str]],
    place: tuple[int, int],
    width: int,
    font: ImageFont.FreeTypeFont,
) -> None:
    left, top = place
    for number, (name, value) in enumerate(lines):
        tint = _INK if number == 0 else _GREY
        taken = font.getlength(value) + labels.gap(font) if value else 0
        draw.text((left, top), labels.shortened(name, font, width - taken), tint, font)
        if value:
            draw.text((left + width, top), value, tint, font, anchor='ra')
        top += labels.line_height(font)


def _draw_scale(page: Image.Image, place: tuple[int, int], width: int, font: ImageFont.FreeTypeFont) -> None:
    """The colours of heat maps from least to greatest, as they look over a middle grey."""
    left, top = place
    draw = ImageDraw.Draw(page)
    least, greatest = 'least', 'greatest, in each picture for itself'
    draw.text((left, top), least, _GREY, font)
    start = left + math.ceil(font.getlength(least)) + labels.gap(font) // 2
    bar = round(0.6 * width)
    height = labels.line_height(font)
    colours = Image.fromarray(heat_maps.colour_table()[None]).resize((bar, round(0.6 * height)))
    page.paste(colours, (start, top + round(0.2 * height)))
    draw.text((start + bar + labels.gap(font) // 2, top), greatest, _GREY, font)


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f'{lines[-1]} {word}') <= width:
            lines[-1] = f'{lines[-1]} {word}'
        else:
            lines.append(word)
    return lines
