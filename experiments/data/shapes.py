"""``shapes``: coloured and textured shapes on textured backgrounds, generated from a seed.

For the first experiment with a dense task, without a download. Neither colour nor texture tells a shape, shapes
overlap, and all of COCO's sizes occur; the large ones are mostly discs and squares, which fill their boxes.
"""

import dataclasses

import numpy as np
from jaxtyping import Int, UInt8

from backbones.errors import UserError
from experiments.data import shape_drawing
from experiments.data.account import Account
from experiments.data.dataset import Dataset
from experiments.data.shape_drawing import EXTENT, OUTLINES, TEXTURES
from experiments.data.truth import IGNORE, Boxes, Masks, TruthKind

CLASSES = tuple(OUTLINES)
SIZE = 128
# An object of which a smaller share is visible is no object: it has no box, and the mask ignores its pixels.
SMALLEST_VISIBLE_SHARE = 0.3
SPLITS = {'train': 1400, 'validation': 200, 'test': 400}
# Fewest and most shapes in an image. A classified image needs one, and few, so that one of them is the largest.
_DENSE, _CLASSIFIED = (0, 8), (1, 3)

# Share of the images in which a shape is nearly as large as the image: others are seldom large by COCO's measure.
_LARGE_SHARE = 0.2
_CELLS = 8  # of the lattice of each texture's clouds
_SCENE_NUMBERS, _OBJECT_NUMBERS = 17, 28


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Generated images and everything that is known about them.

    Attributes:
        images: pixels.
        masks: 0 for the background, else 1 + class, or ``IGNORE``.
        boxes: around the visible part of each object; ``area`` is its number of visible pixels.
        labels: class of the largest object; -1 where there is none.
    """

    images: UInt8[np.ndarray, 'examples size size 3']
    masks: UInt8[np.ndarray, 'examples size size']
    boxes: Boxes
    labels: Int[np.ndarray, ' examples']


def generate(count: int, size: int = SIZE, seed: int = 0, objects: tuple[int, int] = _DENSE) -> Shapes:
    """Generate images; each depends only on its index and on ``size``, ``seed`` and ``objects``.

    Args:
        count: number of images.
        size: height and width in pixels.
        seed: at least 0.
        objects: fewest and most shapes drawn in an image.
    """
    images, masks = np.empty((count, size, size, 3), np.uint8), np.empty((count, size, size), np.uint8)
    kept = [_draw(index, size, seed, objects, images[index], masks[index]) for index in range(count)]
    most = max([1, *map(len, kept)])
    rows = np.zeros((count, most, 6), np.int64)
    rows[..., 4] = -1
    for row, found in zip(rows, kept, strict=True):
        row[: len(found)] = np.reshape(found, (-1, 6))
    classes, area = rows[..., 4].astype(np.int32), rows[..., 5].astype(np.float32)
    none = np.zeros((count, most), bool)
    boxes = Boxes(rows[..., :4].astype(np.float32), classes, none, none, area, np.full((count, 2), size))
    labels = np.take_along_axis(classes, area.argmax(1)[:, None], 1)[:, 0]
    return Shapes(images, masks, boxes, labels)


def draw_image(example: str, classified: bool) -> UInt8[np.ndarray, '{SIZE} {SIZE} 3']:
    """The image of one example of ``load_shapes``, by its id, without the others.

    Args:
        classified: whether it is one of those with a class.

    Raises:
        UserError: there is no such example.
    """
    if not example.isdecimal() or int(example) >= sum(SPLITS.values()):
        raise UserError(f"'shapes' has no example {example!r}")
    image, mask = np.empty((SIZE, SIZE, 3), np.uint8), np.empty((SIZE, SIZE), np.uint8)
    _draw(int(example), SIZE, *((1, _CLASSIFIED) if classified else (0, _DENSE)), image, mask)
    return image


def _draw(
    index: int, size: int, seed: int, objects: tuple[int, int], image: np.ndarray, mask: np.ndarray
) -> list[tuple[int, ...]]:
    """Draw an image and its mask in place; left, top, right, bottom, class and visible pixels of each object."""
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, index], np.uint64)))
    scene = generator.random(_SCENE_NUMBERS)
    fewest, most = objects
    number = fewest + int(scene[0] * (most - fewest + 1))
    drawn = generator.random((number, _OBJECT_NUMBERS))
    lattices = generator.random((number + 1, _CELLS, _CELLS)).astype(np.float32)
    grain = np.frombuffer(generator.bytes(size * size), np.uint8).reshape(size, size)

    pixels = np.arange(size, dtype=np.float32) + 0.5
    pair = _background_colours(scene[1:7])
    canvas = _textured(pixels, pixels, scene[8:13], lattices[-1], pair)
    owner = np.full((size, size), number, np.uint8)  # which object a pixel shows; ``number``: none
    radii = 6 + 56 * drawn[:, 0] * drawn[:, 0] * drawn[:, 0]
    if scene[7] < _LARGE_SHARE:
        radii[:1] = 54 + 10 * drawn[:1, 0]
    radii *= size / SIZE
    pairs = _object_colours(drawn[:, 16:], pair[0])
    areas = np.zeros(number, np.int64)
    # Smaller shapes tend to lie upon larger ones.
    for which in np.argsort(-radii * (0.4 + drawn[:, 1]), kind='stable').tolist():
        areas[which] = _paint(canvas, owner, which, float(radii[which]), drawn[which], lattices[which], pairs[which])

    canvas *= _light(pixels, scene[13:16])
    canvas += (grain.astype(np.float32) - np.float32(127.5)) * np.float32(0.25 * scene[16] * scene[16])
    image[:] = np.moveaxis(np.clip(canvas, 0, 255).astype(np.uint8), 0, -1)
    classes = _classes(drawn)
    values = np.full(number + 1, IGNORE, np.uint8)
    values[-1] = 0
    found = []
    visible = np.bincount(owner.ravel(), minlength=number + 1)
    for which in range(number):
        if visible[which] and visible[which] >= SMALLEST_VISIBLE_SHARE * areas[which]:
            values[which] = 1 + classes[which]
            shown = owner == which
            rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
            edges = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
            found.append((*map(int, edges), int(classes[which]), int(visible[which])))
    mask[:] = values[owner]
    return found


def _classes(drawn: np.ndarray) -> np.ndarray:
    return (drawn[:, 2] * len(CLASSES)).astype(np.int32)


def _direction(turn: float) -> tuple[np.float32, np.float32]:
    """Cosine and sine of a direction, from a number from 0 to 1, without a cosine."""
    quarter = int(4 * turn)
    part = 4 * turn - quarter
    cosine, sine = (1 - part * part) / (1 + part * part), 2 * part / (1 + part * part)
    for _ in range(quarter):
        cosine, sine = -sine, cosine
    return np.float32(cosine), np.float32(sine)


def _paint(
    canvas: np.ndarray,
    owner: np.ndarray,
    which: int,
    radius: float,
    numbers: np.ndarray,
    lattice: np.ndarray,
    pair: np.ndarray,
) -> int:
    """Paint one object and enter it as owner of its pixels; the area that it would have if it were all visible."""
    size = len(owner)
    # The larger, the less of it lies beyond the border.
    margin = min(radius * (0.45 + radius / size), 0.5 * size)
    centre_x, centre_y = (margin + numbers[3:5] * (size - 2 * margin)).astype(np.float32)
    reach = int(EXTENT * radius) + 2
    left, top = int(centre_x) - reach, int(centre_y) - reach
    along = np.arange(2 * reach + 1, dtype=np.float32) + 0.5
    x, y = along + (left - centre_x), (along + (top - centre_y))[:, None]
    cosine, sine = _direction(numbers[5])
    stretch = np.float32(0.85 + 0.3 * numbers[6])
    outline = OUTLINES[CLASSES[int(numbers[2] * len(CLASSES))]]
    outside = outline((x * cosine + y * sine) * stretch, (y * cosine - x * sine) / stretch, radius, float(numbers[7]))
    area = int(np.count_nonzero(outside < 0))

    rows, columns = (slice(max(first, 0), min(first + len(along), size)) for first in (top, left))
    outside = outside[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    owner[rows, columns][outside < 0] = which
    surface = _textured(
        np.arange(rows.start, rows.stop, dtype=np.float32),
        np.arange(columns.start, columns.stop, dtype=np.float32),
        numbers[8:13],
        lattice,
        pair,
    )
    if numbers[13] < 0.4:  # a darker or a brighter rim
        rim = np.clip(outside + (1 + 0.08 * radius), 0, 1)
        surface *= 1 - rim * np.float32(0.6 if numbers[14] < 0.6 else -0.5)
    part = canvas[:, rows, columns]
    part += (surface - part) * np.clip(0.5 - outside, 0, 1)
    return area


def _textured(y: np.ndarray, x: np.ndarray, numbers: np.ndarray, lattice: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """A texture of two colours at rows ``y`` and columns ``x``, channels first."""
    cosine, sine = _direction(numbers[0])
    period = 5 + 22 * numbers[1] * numbers[1]
    cosine, sine = cosine / np.float32(period), sine / np.float32(period)
    across, down = x * cosine + (y * sine)[:, None], (y * cosine)[:, None] - x * sine
    cell = np.float32(9 + 18 * numbers[2])
    cloud = shape_drawing.clouds(lattice, y / cell, x / cell)
    texture = TEXTURES[int(numbers[3] * len(TEXTURES))]
    share = texture(across, down, cloud, float(1.5 + 4 * numbers[4]))
    first, second = pair[..., None, None]
    return first + (second - first) * share


def _background_colours(numbers: np.ndarray) -> np.ndarray:
    """Two colours from 0 to 255, the second not far from the first."""
    hue = np.array([numbers[0], numbers[0] + 0.25 * numbers[1]])
    value = np.array([0.25 + 0.6 * numbers[2], 0.25 + 0.6 * numbers[2] + 0.4 * (numbers[3] - 0.5)])
    return shape_drawing.colours(hue, 0.6 * numbers[4:6], value) * 255


def _object_colours(numbers: np.ndarray, behind: np.ndarray) -> np.ndarray:
    """Two colours of each object: of three drawn pairs, the one whose first colour is least like the background."""
    hue, saturation, value = numbers[:, :3], 0.2 + 0.8 * numbers[:, 3:6], 0.15 + 0.85 * numbers[:, 6:9]
    firsts = shape_drawing.colours(hue, saturation, value) * 255
    red, green, blue = np.moveaxis(np.abs(firsts - behind), -1, 0)
    best = (red + green + blue).argmax(1)
    first = firsts[np.arange(len(numbers)), best]
    second = shape_drawing.colours(numbers[:, 9], 0.9 * numbers[:, 10], 0.1 + 0.9 * numbers[:, 11]) * 255
    return np.stack([first, second], 1)


def _light(pixels: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Brightness that changes from one side of the image to the other."""
    cosine, sine = _direction(numbers[0])
    along = pixels / np.float32(len(pixels)) - np.float32(0.5)
    strength = np.float32(0.5 * numbers[1])
    return np.float32(0.8 + 0.3 * numbers[2]) + strength * (along * cosine + (along * sine)[:, None])


def load_shapes(truth: TruthKind) -> Dataset:
    """2,000 images of 128 px with a class (the shape of the largest object), masks or boxes.

    Masks and boxes are of the same images, some of which show nothing. Those with a class are others, each
    with one to three objects: a class for nothing, or for one of eight, would be another task.
    """
    count = sum(SPLITS.values())
    classified = truth == 'class'
    shapes = generate(count, seed=1 if classified else 0, objects=_CLASSIFIED if classified else _DENSE)
    borders = np.cumsum(list(SPLITS.values()))
    splits = dict(zip(SPLITS, np.split(np.arange(count), borders[:-1]), strict=True))
    dataset = Dataset(
        name='shapes',
        images=shapes.images,
        targets=shapes.labels if classified else np.zeros(count, np.int32),
        ids=tuple(f'{index:05d}' for index in range(count)),
        classes=CLASSES,
        splits=splits,
        provenance='generated by experiments.data.shapes; split in the order of generation',
        account=Account(f'all {SIZE}x{SIZE}', {'RGB': count}, 'at their own size'),
    )
    if classified:
        return dataset
    # Label fractions are stratified by what there is most of in an image.
    dataset = dataclasses.replace(dataset, groups=shapes.labels + 1, truth=shapes.boxes)
    if truth == 'boxes':
        return dataset
    images = np.concatenate([shapes.images, shapes.masks[..., None]], -1)
    classes = ('background', *CLASSES)
    masks = Masks.counted(shapes.masks, len(classes))
    return dataclasses.replace(dataset, images=images, classes=classes, truth=masks)
