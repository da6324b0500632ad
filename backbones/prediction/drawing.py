"""Boxes, masks and class names drawn on images."""

import colorsys
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from PIL import Image, ImageDraw

from backbones.prediction import labels

# Okabe and Ito (2008): colours that people with any colour vision tell apart, without black; then others far from them.
_FIRST = (
    (0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (213, 94, 0), (122, 77, 40), (240, 228, 66),
    (86, 180, 233), (128, 0, 160), (128, 128, 128), (255, 90, 130), (160, 210, 60), (0, 80, 80), (30, 30, 130),
    (150, 20, 40), (190, 160, 255),
)  # fmt: skip
# Pictures whose longer side is shorter are enlarged, where nobody says otherwise, so that text fits on them.
_LEGIBLE = 400
# A mask lets the image through, and leaves it as it is where there is nothing but background.
_OPACITY = 0.55
_BACKGROUND = ('background', '__background__')


def colour(index: int) -> tuple[int, int, int]:
    """Red, green and blue of a class: the same in every picture, and far from those of its neighbours."""
    if index < len(_FIRST):
        return _FIRST[index]
    # Steps of the golden ratio spread the hues evenly, however many there are.
    hue, shade = (index * 0.618034) % 1, (0.95, 0.7)[index % 2]
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.75, shade))
    return red, green, blue


def enlargement(size: Sequence[int]) -> int:
    """The whole number by which a picture of this size is enlarged so that lines and text on it can be seen."""
    return max(1, -(-_LEGIBLE // max(size)))


def enlarged(picture: Image.Image, factor: int) -> Image.Image:
    """A picture with every pixel as a square of so many."""
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def with_boxes(
    picture: Image.Image,
    boxes: Float[np.ndarray, 'n 4'],
    names: Sequence[str],
    classes: Int[np.ndarray, 'n'],
    scores: Float[np.ndarray, 'n'] | None = None,
) -> Image.Image:
    """A picture with boxes, and at each its name and score, where that covers no better one's and hides no box.

    Args:
        picture: is not changed.
        boxes: left, top, right and bottom in its pixels, best first.
        names: what is written over each.
        classes: decide the colours.
        scores: from 0 to 1; ``None``: names alone.
    """
    picture = picture.convert('RGB')
    draw, font, width = ImageDraw.Draw(picture), labels.font(picture), line_width(picture)
    margin, height = round(font.size / 4), labels.line_height(font)
    numbers = [''] * len(boxes) if scores is None else [f'{score:.2f}' for score in scores]
    rest = [2 * margin + (labels.gap(font) + round(font.getlength(number)) if number else 0) for number in numbers]
    texts = [
        labels.shortened(labels.written(name, int(index)), font, picture.width - each)
        for name, index, each in zip(names, classes, rest, strict=True)
    ]
    widths = [math.ceil(font.getlength(text)) + each for text, each in zip(texts, rest, strict=True)]
    places = labels.places(boxes, widths, height, picture.size)
    tints = [colour(int(index)) for index in classes]
    for place, tint in zip(places, tints, strict=True):
        if place is not None:
            draw.rectangle((*place[:2], place[2] - 1, place[3] - 1), fill=tint)
    # Outlines lie on labels, and under the letters alone, those of small boxes and of better ones last: none is lost.
    corners = [(left, top, max(right, left), max(bottom, top)) for left, top, right, bottom in boxes.tolist()]
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in corners]
    for index in sorted(range(len(boxes)), key=lambda index: (areas[index], index), reverse=True):
        left, top, right, bottom = corners[index]
        # On large pictures a line of the usual width would fill a small box.
        thin = max(1, round(min(right - left, bottom - top) / 6))
        draw.rectangle((left, top, right, bottom), outline=tints[index], width=min(width, thin))
    for place, text, number, tint in zip(places, texts, numbers, tints, strict=True):
        if place is not None:
            ink = _readable_on(tint)
            draw.text((place[0] + margin, place[3]), text, ink, font, anchor='ld')
            draw.text((place[2] - margin, place[3]), number, ink, font, anchor='rd')
    return picture


def with_mask(
    picture: Image.Image, mask: Int[np.ndarray, 'height width'], names: Sequence[str], ignored: int | None = None
) -> Image.Image:
    """A picture under a mask, with a legend of the classes below it; the background stays as it is.

    Args:
        picture: is not changed.
        mask: the class of each pixel.
        names: of the classes.
        ignored: a value that is no class; its pixels stay as they are.
    """
    image = np.asarray(picture.convert('RGB'), np.float32)
    clear = [index for index, name in enumerate(names) if name in _BACKGROUND] + ([] if ignored is None else [ignored])
    present = [index for index in np.unique(mask).tolist() if index not in clear]
    tints = np.zeros((int(mask.max()) + 1, 3), np.float32)
    for index in present:
        tints[index] = colour(index)
    share = np.where(np.isin(mask, clear), 0.0, _OPACITY)[..., None].astype(np.float32)
    mixed = (1 - share) * image + share * tints[mask]
    return _with_legend(Image.fromarray(np.floor(mixed + 0.5).astype(np.uint8)), present, names)


def with_lines(picture: Image.Image, lines: Sequence[str], numbers: Sequence[str] = ()) -> Image.Image:
    """A picture with lines of text below it, the first one darker than the rest.

    Args:
        picture: is not changed.
        lines: of text.
        numbers: one for each line, in a column of their own, or none.
    """
    font = labels.font(picture)
    height, margin = labels.line_height(font), labels.line_height(font) // 3
    right = margin + max((math.ceil(font.getlength(line)) for line in lines), default=0)
    if numbers:
        right += 2 * labels.gap(font) + max(math.ceil(font.getlength(number)) for number in numbers)
    size = max(picture.width, right + margin), picture.height + height * len(lines) + 2 * margin
    result = Image.new('RGB', size, 'white')
    result.paste(picture, (0, 0))
    draw = ImageDraw.Draw(result)
    for row, line in enumerate(lines):
        tint = (0, 0, 0) if row == 0 else (90, 90, 90)
        top = picture.height + height * row + margin
        draw.text((margin, top), line, tint, font)
        if numbers:
            draw.text((right, top), numbers[row], tint, font, anchor='ra')
    return result


def beside(pictures: Sequence[Image.Image], titles: Sequence[str] = ()) -> Image.Image:
    """Pictures in a row, each under its title, with some white between them."""
    tallest = max(picture.height for picture in pictures)
    font = labels.font(max(pictures, key=lambda picture: picture.width))
    gap, above = max(4, tallest // 60), labels.line_height(font) if titles else 0
    total = sum(picture.width for picture in pictures) + gap * (len(pictures) - 1)
    row = Image.new('RGB', (total, tallest + above), 'white')
    draw, left = ImageDraw.Draw(row), 0
    for index, picture in enumerate(pictures):
        row.paste(picture, (left, above))
        if titles:
            draw.text((left, above // 8), titles[index], 'black', font)
        left += picture.width + gap
    return row


def above_each_other(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures in a column, with some white between them."""
    gap = max(4, pictures[0].height // 40)
    height = sum(picture.height for picture in pictures) + gap * (len(pictures) - 1)
    column = Image.new('RGB', (max(picture.width for picture in pictures), height), 'white')
    top = 0
    for picture in pictures:
        column.paste(picture, (0, top))
        top += picture.height + gap
    return column


def line_width(picture: Image.Image) -> int:
    """Width in pixels of a line whose colour is seen at any size of picture."""
    longer = max(picture.size)
    return max(1 if longer < _LEGIBLE else 2, round(longer / 320))


def _readable_on(tint: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = tint
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 130 else (255, 255, 255)


def _with_legend(picture: Image.Image, present: Sequence[int], names: Sequence[str]) -> Image.Image:
    font = labels.font(picture)
    height = labels.line_height(font)
    side, space = round(height * 0.6), round(font.size / 2)
    places, left, row = [], space, 0
    for index in present:
        text = labels.shortened(labels.written(names[index], index), font, picture.width - side - 3 * space)
        width = side + space + math.ceil(font.getlength(text))
        if left > space and left + width + space > picture.width:
            left, row = space, row + 1
        places.append((index, text, left, row))
        left += width + 2 * space
    result = Image.new('RGB', (picture.width, picture.height + height * (row + 1) + space), 'white')
    result.paste(picture, (0, 0))
    draw = ImageDraw.Draw(result)
    for index, text, left, row in places:
        top = picture.height + row * height + space // 2
        middle = top + (height - side) // 2
        draw.rectangle((left, middle, left + side, middle + side), fill=colour(index))
        draw.text((left + side + space, top), text, 'black', font)
    return result
