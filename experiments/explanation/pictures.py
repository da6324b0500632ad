"""From what models computed to cells of a contact sheet and to numbers."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from backbones.explanation import heat_maps, methods
from backbones.prediction import labels
from experiments.data.dataset import Dataset
from experiments.explanation import contact_sheet, training_images
from experiments.explanation.contact_sheet import Cell, Heading
from experiments.explanation.explaining import Column, Explained
from experiments.explanation.training_images import Neighbour

# Longest side of the pictures that are kept while models run: sheets need no more.
LONGEST = 1024

PALE = 'Pale: outside what the model was given.'


@dataclasses.dataclass(frozen=True)
class Shown:
    """An image for pictures.

    Attributes:
        name: as the user gave it.
        size: width and height in pixels.
        picture: the image, or a smaller copy of a large one.
    """

    name: str
    size: tuple[int, int]
    picture: Image.Image

    @staticmethod
    def of(name: str, pixels: np.ndarray) -> 'Shown':
        """A shown image of pixels."""
        picture = Image.fromarray(pixels)
        size = picture.size
        if max(size) > LONGEST:
            picture.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
        return Shown(name, size, picture)


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What a column says about an image; ``neighbours`` is ``None`` where they were not asked for."""

    column: Column
    explained: Explained
    neighbours: Sequence[Neighbour] | None = None
    dataset: Dataset | None = None


def headings(columns: Sequence[Explanation]) -> list[Heading]:
    """Those of a sheet: the image, then model and method of each column."""
    found = [Heading('input')]
    for each in columns:
        model = each.column.model
        found.append(Heading(model.name, (each.column.label, model.about)))
        if each.neighbours is not None and each.dataset is not None:
            found.append(Heading('nearest training images', (f'to {model.name}', each.dataset.name)))
    return found


def row(shown: Shown, columns: Sequence[Explanation], width: int) -> list[Cell]:
    """The cells of an image."""
    picture = contact_sheet.in_cell(shown.picture, width)
    name = shown.name.replace('\\', '/').rpartition('/')[2]
    cells = [Cell(picture, [(name, ''), (f'{shown.size[0]}x{shown.size[1]}', '')])]
    for each in columns:
        cells.append(Cell(_drawn(picture, shown, each), _told(each)))
        if each.neighbours is not None and each.dataset is not None:
            cells.append(_nearest(each.neighbours, each.dataset, width))
    return cells


def notes(images: Sequence[Shown], rows: Sequence[Sequence[Explanation]]) -> list[str]:
    """What a reader of a sheet has to know: what each method shows, and what is pale."""
    used = dict.fromkeys(each.column.method for row in rows for each in row)
    told = [f'{methods.METHODS[name].label}: {methods.METHODS[name].meaning}.' for name in used]
    cut = any(
        _is_cut(each.explained.window, shown.size) for shown, row in zip(images, rows, strict=True) for each in row
    )
    return [' '.join([told[0][:1].upper() + told[0][1:], *told[1:], *([PALE] if cut else [])])]


def _is_cut(window: heat_maps.Window, size: tuple[int, int]) -> bool:
    """Whether a part of an image of this width and height lies outside."""
    top, left, bottom, right = window
    return top > 0.5 or left > 0.5 or bottom < size[1] - 0.5 or right < size[0] - 0.5


def has_scale(columns: Sequence[Explanation]) -> bool:
    """Whether there are heat maps."""
    return any(each.column.method != methods.PCA for each in columns)


def as_json(each: Explanation) -> dict[str, Any]:
    """The numbers of an explanation, without the map."""
    column, explained = each.column, each.explained
    found: dict[str, Any] = {
        'model': column.model.name,
        'about': column.model.about,
        'method': column.method,
        'stage': column.stage,
    }
    if explained.probabilities is not None:
        best = int(explained.probabilities.argmax())
        index = best if column.class_index is None else column.class_index
        classes = column.model.classes
        found |= {'predicted': classes[best], 'probability': float(explained.probabilities[best])}
        if column.method == methods.GRAD_CAM:
            found |= {'class': classes[index], 'class_probability': float(explained.probabilities[index])}
    if each.neighbours is not None:
        found['nearest'] = [
            {'id': one.name, 'class': one.target, 'similarity': round(one.similarity, 6)} for one in each.neighbours
        ]
    return found


def in_words(each: Explanation) -> str:
    """One line: model, method, and what is predicted."""
    value = as_json(each)
    text = f'{value["model"]} ({each.column.label})'
    if 'predicted' in value:
        text += f': {_in_words(value["predicted"])} {value["probability"]:.1%}'
    if value.get('class', value.get('predicted')) != value.get('predicted'):
        text += f', shown for {_in_words(value["class"])} {value["class_probability"]:.1%}'
    return text


def _in_words(name: str) -> str:
    """A class in texts: one that has only a number is said to be a class."""
    return f'class {name}' if name.isdecimal() else name


def _drawn(picture: Image.Image, shown: Shown, each: Explanation) -> Image.Image:
    scales = [picture.height / shown.size[1], picture.width / shown.size[0]] * 2
    top, left, bottom, right = (side * scale for side, scale in zip(each.explained.window, scales, strict=True))
    draw = heat_maps.in_place_of if each.column.method == methods.PCA else heat_maps.over
    return draw(picture, each.explained.values, (top, left, bottom, right))


def _told(each: Explanation) -> list[tuple[str, str]]:
    value = as_json(each)
    if 'predicted' not in value:
        return []
    classes = each.column.model.classes
    lines = [(_written(classes, value['predicted']), f'{value["probability"]:.1%}')]
    if value.get('class', value['predicted']) != value['predicted']:
        text = f'shown for: {_written(classes, value["class"])}'
        lines.append((text, f'{value["class_probability"]:.1%}'))
    return lines


def _written(classes: Sequence[str], name: str) -> str:
    return _in_words(labels.written(name, classes.index(name)))


def _nearest(neighbours: Sequence[Neighbour], dataset: Dataset, width: int) -> Cell:
    pictures = [training_images.picture(dataset, each.index) for each in neighbours]
    counts: dict[str, int] = {}
    for each in neighbours:
        if each.target:
            counts[each.target] = counts.get(each.target, 0) + 1
    ordered = sorted(counts, key=lambda name: -counts[name])
    told = ', '.join(f'{counts[name]} {_written(dataset.classes, name)}' for name in ordered)
    similarity = f'{neighbours[0].similarity:.2f}'
    similarity += f' to {neighbours[-1].similarity:.2f}' if len(neighbours) > 1 else ''
    return Cell(
        contact_sheet.mosaic(pictures, width), [(told or dataset.name, ''), (f'cosine similarity {similarity}', '')]
    )
