"""The most confident mistakes: as pictures, or as texts."""

import functools
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from backbones.errors import UserError, listed
from backbones.letterbox import letterbox_geometry
from backbones.pixel_labels import IGNORE
from backbones.prediction import drawing
from experiments.results import calibration, example_pictures, example_texts, mistakes
from experiments.results.aggregates import Aggregate
from experiments.results.example_pictures import Picture
from experiments.results.page import excerpts, kept, markup
from experiments.results.page.content import Report
from experiments.results.page.estimates import percent
from experiments.results.page.markup import Child, Markup, element

# Pictures or texts of each data set: all of a page are to stay well below 5 MB.
MOST = 12
_BOXES = ('ids', 'boxes', 'scores', 'labels', 'found', 'truth_boxes', 'truth_classes', 'truth_crowd', 'truth_difficult',
          'truth_sizes')  # fmt: skip
_MASKS = ('ids', 'confusion', 'truth_thumbnail', 'predicted_thumbnail')
_BACKGROUND = ('background', '__background__')
_OPACITY = 0.6


def section(report: Report) -> Markup | None:
    """Those of the best line of each data set; ``None`` where there are none."""
    options = []
    for dataset in report.datasets:
        (line, *_), _ = kept.lines(report, dataset, 1)
        content = next((found for show in _KINDS if (found := show(line)) is not None), None)
        if content is not None:
            name = ' · '.join(part for part in kept.names([line]))
            options.append((dataset, markup.escaped([element('p', markup.name(name), class_='note'), content])))
    if not options:
        return None
    intro = element(
        'p', f'Of the best line of each data set, with its first seed: the test {report.noun}s it is most wrong about.'
    )
    return markup.escaped([intro, markup.choice('mistakes-of', 'data set', options)])


def _classes(line: Aggregate) -> Markup | None:
    found = kept.classified(line)[:1]
    if not found:
        return None
    ((targets, predictions, scores),) = found
    own = kept.probabilities(line, scores)
    logits = scores.logits
    if own is not None:
        confidence = np.take_along_axis(own, predictions[:, None].astype(int), 1)[:, 0]
    elif logits is not None and logits.shape[1] > 1 and calibration.are_numbers(logits):
        best = np.sort(logits.astype(np.float32), 1)[:, ::-1]
        confidence = best[:, 0] - best[:, 1]
    else:  # of an older version, or a copy of its results
        wrong = int((targets != predictions).sum())
        counted = f'{wrong:,} of {len(targets):,} test {line.noun}s are classified wrongly'
        return element('p', f'{counted}; no scores are kept that tell how surely.')
    wrong = mistakes.of_classes(targets, predictions, confidence, MOST, own is not None)
    if not wrong:
        return element('p', f'No test {line.noun} is classified wrongly.')
    names = kept.classes(line, int(max(targets.max(), predictions.max())) + 1)

    def card(each: mistakes.WrongClass, shown: Picture | str) -> Markup:
        true, predicted = names[targets[each.example]], names[predictions[each.example]]
        sure = f' {percent(each.confidence)}\u00a0%' if each.confidence is not None else ''
        example = str(scores.ids[each.example])
        caption = [
            element('div', element('span', 'true '), markup.name(true, 40)),
            element('div', element('span', 'predicted '), element('b', markup.name(predicted, 40)), sure),
        ]
        if isinstance(shown, str):
            place = element('div', markup.name(example, 60), class_='quiet')
            return element('figure', element('figcaption', caption), excerpts.excerpt(shown), place, class_='card text')
        return _card(_image(shown, f'{example}: {true}, predicted {predicted}'), caption)

    entries = [(str(scores.ids[each.example]), functools.partial(card, each)) for each in wrong]
    return _text_cards(line, entries) if line.noun == 'text' else _cards(line, entries)


def _boxes(line: Aggregate) -> Markup | None:
    found = next(kept.arrays(line, _BOXES), None)
    if found is None:
        return None
    wrong = mistakes.of_boxes(found, MOST)
    if not wrong:
        return element('p', 'Every detection has its object.')
    names = kept.classes(line, int(max(found['labels'].max(), found['truth_classes'].max())) + 1)

    def card(each: mistakes.WrongBox, picture: Picture) -> Markup:
        label = names[found['labels'][each.example, each.detection]]
        score = percent(found['scores'][each.example, each.detection])
        other = f' ({names[each.other]})' if 'another class' in each.why else ''
        caption = [
            element('div', element('b', markup.name(label, 40)), f' {score}\u00a0%'),
            element('div', element('span', f'{each.why}{markup.shortened(other, 40)}, IoU {each.overlap:.2f}')),
        ]
        title = f'{found["ids"][each.example]}: {label} with {score} %, {each.why}{other}'
        return _card(_drawn(found, each, picture, names, title), caption)

    sizes = {
        str(found['ids'][each.example]): (int(height), int(width))
        for each in wrong
        for height, width in [found['truth_sizes'][each.example]]
    }
    key = element(
        'ul',
        element('li', element('span', class_='swatch truth'), 'objects'),
        element('li', element('span', class_='swatch wrong'), 'the detection that is wrong at IoU 0.5'),
        class_='legend',
    )
    entries = [(str(found['ids'][each.example]), functools.partial(card, each)) for each in wrong]
    cards = _cards(line, entries, sizes, dense=True)
    return markup.escaped([key, cards])


def _drawn(
    found: Mapping[str, np.ndarray], each: mistakes.WrongBox, picture: Picture, names: Sequence[str], title: str
) -> Markup:
    height, width = picture.size

    def box(corners: np.ndarray, kind: str, name: str) -> Markup:
        left, top, right, bottom = (float(value) for value in corners)
        return element(
            'rect', element('title', name), x=f'{left:.1f}', y=f'{top:.1f}', width=f'{max(right - left, 0):.1f}',
            height=f'{max(bottom - top, 0):.1f}', class_=kind,
        )  # fmt: skip

    row = each.example
    objects = [
        (found['truth_boxes'][row, place], names[found['truth_classes'][row, place]])
        for place in np.flatnonzero(found['truth_classes'][row] >= 0)
    ]
    return element(
        'svg',
        element('title', title),
        element('image', href=picture.address, width=width, height=height, preserveAspectRatio='none',
                class_='pixels' if max(picture.size) < example_pictures.SIDE else None),
        # Light on dark, so that they are seen on any image.
        [box(corners, kind, name) for corners, name in objects for kind in ('under', 'truth')],
        box(found['boxes'][row, each.detection], 'wrong', title),
        viewBox=f'0 0 {width} {height}', role='img', aria_label=title, class_='shot',
    )  # fmt: skip


def _masks(line: Aggregate) -> Markup | None:
    found = next(kept.arrays(line, _MASKS), None)
    if found is None:
        return None
    wrong = mistakes.of_masks(found['confusion'], MOST // 2)
    if not wrong:
        return element('p', 'Every pixel is right.')
    names = kept.classes(line, found['confusion'].shape[1])
    present = set()

    ids, truth, predicted = found['ids'], found['truth_thumbnail'], found['predicted_thumbnail']

    def card(row: int, overlap: float, picture: Picture) -> Markup:
        example, masks = str(ids[row]), (truth[row], predicted[row])
        present.update(*(np.unique(mask).tolist() for mask in masks))
        pictures = [_image(picture, f'{example}: the image')]
        pictures += [
            _image(_overlaid(picture, mask, names), f'{example}: {what}')
            for mask, what in zip(masks, ('truth', 'prediction'), strict=True)
        ]
        shown = [
            element('div', each, element('div', element('span', what)))
            for each, what in zip(pictures, ('image', 'truth', 'predicted'), strict=True)
        ]
        return _card(element('div', shown, class_='three'), element('div', f'mIoU {percent(overlap)} %'), 'wide')

    entries = [(str(found['ids'][row]), functools.partial(card, row, overlap)) for row, overlap in wrong]
    cards = _cards(line, entries, dense=True)
    legend = element(
        'ul',
        [
            element(
                'li', element('span', class_='swatch', style=f'background:rgb{drawing.colour(index)}'),
                markup.name(names[index], 40),
            )
            for index in sorted(present - {IGNORE})
            if names[index] not in _BACKGROUND
        ],
        class_='legend',
    )  # fmt: skip
    return markup.escaped([legend if present else None, cards])


def _overlaid(picture: Picture, mask: UInt8[np.ndarray, 'rows columns'], names: Sequence[str]) -> Picture:
    """A picture under a mask that may lie in a letterbox; background and ignored pixels stay as they are."""
    pixels = picture.pixels().astype(np.float32)
    _, ((above, below), (left, right)) = letterbox_geometry(picture.size, mask.shape)
    inside = mask[above : mask.shape[0] - below, left : mask.shape[1] - right]
    size = (pixels.shape[1], pixels.shape[0])
    fitted = np.asarray(Image.fromarray(inside).resize(size, Image.Resampling.NEAREST))
    tints = np.array([drawing.colour(index) for index in range(256)], np.float32)
    clear = [IGNORE, *(index for index, name in enumerate(names) if name in _BACKGROUND)]
    share = np.where(np.isin(fitted, clear), 0.0, _OPACITY)[..., None]
    mixed = (1 - share) * pixels + share * tints[fitted]
    stream = io.BytesIO()
    Image.fromarray(mixed.round().astype(np.uint8)).save(stream, 'webp', quality=80)
    return Picture(stream.getvalue(), picture.size)


# One of these knows what a line keeps of its examples.
_KINDS: tuple[Callable[[Aggregate], Markup | None], ...] = (_classes, _boxes, _masks)


def _cards(
    line: Aggregate,
    entries: Sequence[tuple[str, Callable[[Picture], Markup]]],
    sizes: Mapping[str, tuple[int, int]] | None = None,
    dense: bool = False,
) -> Markup:
    """What the function of each example makes of its picture."""
    workdir, row = line.members[0]
    try:
        pictures = example_pictures.read(workdir, row, [example for example, _ in entries], sizes, dense)
    except UserError as error:
        return element('p', f'There are no pictures: {error}')
    return _shown(pictures, entries)


def _text_cards(line: Aggregate, entries: Sequence[tuple[str, Callable[[str], Markup]]]) -> Markup:
    """What the function of each example makes of its text."""
    workdir, row = line.members[0]
    try:
        texts = example_texts.read(workdir, row, [example for example, _ in entries])
    except UserError as error:
        return element('p', f'There are no texts: {error}')
    return _shown(texts, entries)


def _shown(found: Mapping[str, Any], entries: Sequence[tuple[str, Callable[[Any], Markup]]]) -> Markup:
    shown = [card(found[example]) for example, card in entries if example in found]
    missing = [example for example, _ in entries if example not in found]
    unread = f'{len(missing)} more cannot be read any more: {listed(missing)}.'
    note = element('p', unread, class_='note') if missing else None
    return markup.escaped([element('div', shown, class_='shots'), note])


def _card(drawn: Child, caption: Child, kind: str = '') -> Markup:
    return element('figure', drawn, element('figcaption', caption), class_=f'card {kind}'.strip())


def _image(picture: Picture, alt: str) -> Markup:
    height, width = picture.size
    small = max(picture.size) < example_pictures.SIDE
    return element(
        'img', src=picture.address, alt=markup.shortened(alt, 120), title=alt, width=width, height=height,
        class_='shot pixels' if small else 'shot',
    )  # fmt: skip
