"""From annotated objects to boxes.

What makes no sense is named and left out, and what reaches out of an image is clipped.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from backbones.errors import UserError, listed
from experiments.data.account import number_of
from experiments.data.dense.annotations import AnnotatedObject
from experiments.data.truth import Boxes

# A box of which more than half lies outside is a slip of the annotator where it reaches out by no more than this: so
# many pixels, or this share of the image's longer side.
_SLIP_PIXELS, _SLIP_SHARE = 4, 0.02
_HALF_OUTSIDE = 'more than half of it outside its image'
# Where so many boxes would do as corners, they are likely to be some. Of boxes with a size, few would.
_LIKELY = 0.95


class CheckedBoxes(NamedTuple):
    """Boxes that make sense.

    Attributes:
        boxes: of all images.
        bad: reason → names of the objects that are left out.
        noticed: for the account.
        hint: what may be the reason where many are bad; empty if nothing is known.
    """

    boxes: Boxes
    bad: Mapping[str, tuple[str, ...]]
    noticed: tuple[str, ...]
    hint: str = ''


def check_objects(
    objects: Sequence[Sequence[AnnotatedObject]],
    sizes: Int[np.ndarray, 'examples 2'],
    ids: Sequence[str],
    classes: Sequence[str],
    normalised: bool = False,
    extents: bool = False,
) -> CheckedBoxes:
    """Check the objects of all images and bring them into one form.

    Args:
        objects: of each image.
        sizes: height and width of each image in the orientation of its boxes.
        ids: name of each image.
        classes: names of the classes.
        normalised: whether boxes are given in shares of the width and height.
        extents: whether they were written with their width and height in pixels, so that those of which more than half
            lies outside of the image are bad too: as if the right and bottom had been written.
    """
    number = {name: index for index, name in enumerate(classes)}
    counts = np.array([len(each) for each in objects], int)
    flat = list(itertools.chain.from_iterable(objects))
    owner = np.repeat(np.arange(len(objects)), counts)
    place = np.arange(len(flat)) - np.repeat(np.cumsum(counts) - counts, counts)
    boxes = np.array([each.box for each in flat], np.float64).reshape(-1, 4)
    limits = np.tile(sizes[owner][:, ::-1], 2).astype(np.float64).reshape(-1, 4)
    if normalised:
        boxes = boxes * limits
    labels = np.array([number.get(each.label, -1) for each in flat], int)

    problems = np.array([each.problem or '' for each in flat], object)
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    clipped = np.clip(boxes, 0, limits)
    overhang = np.abs(boxes - clipped).max(1, initial=0)
    with np.errstate(invalid='ignore', over='ignore'):
        inside = (clipped[:, 2] - clipped[:, 0]) * (clipped[:, 3] - clipped[:, 1])
        slips = overhang <= np.maximum(_SLIP_PIXELS, _SLIP_SHARE * limits.max(1, initial=0))
        for reason, holds in (
            ('its class is unknown', labels < 0),
            ('not finite', ~np.isfinite(boxes).all(1)),
            ('inverted: its right or bottom comes before its left or top', (width < 0) | (height < 0)),
            ('without area', (width == 0) | (height == 0)),
            ('outside its image', (clipped[:, 0] >= clipped[:, 2]) | (clipped[:, 1] >= clipped[:, 3])),
            (_HALF_OUTSIDE, extents & (inside < width * height / 2) & ~slips),
        ):
            problems[(problems == '') & holds] = reason
    good = problems == ''
    bad: dict[str, list[str]] = {}
    for index in np.flatnonzero(~good):
        reason = problems[index]
        if reason == 'its class is unknown':
            reason = f'its class is unknown, {flat[index].label!r}'
        bad.setdefault(f'object, {reason}', []).append(_name(ids[owner[index]], place[index]))
    out = np.flatnonzero(good & (overhang > 0))
    noticed = []
    if len(out):
        farthest = out[np.argmax(overhang[out])]
        noticed.append(
            f'{number_of(len(out), "box") if len(out) == 1 else f"{len(out):,} boxes"} clipped to the image, by up to '
            f'{overhang[farthest]:.3g} pixels ({_name(ids[owner[farthest]], place[farthest])})'
        )
    found = _padded(clipped, labels, flat, good, owner, sizes)
    hint = _hint(boxes, limits) if (problems == _HALF_OUTSIDE).any() else ''
    return CheckedBoxes(found, {reason: tuple(names) for reason, names in bad.items()}, tuple(noticed), hint)


def _hint(boxes: np.ndarray, limits: np.ndarray) -> str:
    """Whether boxes seem to hold corners where their width and height were expected."""
    corners = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)  # as they were written
    ordered = (corners[:, 2:] > corners[:, :2]).all(1)
    there = ordered & (corners >= -_SLIP_PIXELS).all(1) & (corners <= limits + _SLIP_PIXELS).all(1)
    return (
        'do their boxes hold left, top, right, bottom instead of width and height?' if there.mean() >= _LIKELY else ''
    )


def _name(image: str, place: int) -> str:
    return f'{image} #{place + 1}'


def _padded(
    boxes: np.ndarray,
    labels: np.ndarray,
    flat: Sequence[AnnotatedObject],
    good: np.ndarray,
    owner: np.ndarray,
    sizes: np.ndarray,
) -> Boxes:
    kept = np.flatnonzero(good)
    owners = owner[kept]
    counts = np.bincount(owners, minlength=len(sizes))
    slots = np.arange(len(kept)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = (len(sizes), int(counts.max(initial=0)))
    corners = boxes[kept]
    given = np.array([flat[index].area for index in kept])
    whole = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])

    def spread(values: np.ndarray, empty, dtype: type) -> np.ndarray:
        result = np.full((*shape, *values.shape[1:]), empty, dtype)
        result[owners, slots] = values
        return result

    return Boxes(
        boxes=spread(corners, 0, np.float32),
        classes=spread(labels[kept], -1, np.int32),
        crowd=spread(np.array([flat[index].crowd for index in kept], bool), False, np.bool_),
        difficult=spread(np.array([flat[index].difficult for index in kept], bool), False, np.bool_),
        area=spread(np.where(given > 0, given, whole), 0, np.float32),
        sizes=sizes.astype(np.int32),
    )


def check_left(boxes: Boxes, name: str) -> None:
    """Refuse a data set of whose objects none is left.

    Raises:
        UserError: there is none.
    """
    if not (boxes.classes >= 0).any():
        raise UserError(f'all objects of {name!r} are left out; without any, nothing can be learned')


def check_limit(bad: Mapping[str, Sequence[str]], total: int, name: str, limit: float, hint: str = '') -> None:
    """Refuse too many objects that make no sense.

    Args:
        bad: reason → names.
        total: number of all objects.
        name: of the data set.
        limit: the largest share of them.
        hint: what may be the reason, as a question.

    Raises:
        UserError: there are more; the first of each kind are named.
    """
    count = sum(map(len, bad.values()))
    if count <= limit * total:
        return
    shown = listed((f'{len(names):,} {reason} ({names[0]})' for reason, names in bad.items()), 3, '; ')
    raise UserError(
        f'{count:,} of {total:,} objects of {name!r} make no sense: {shown}; {f"{hint} " if hint else ""}'
        f'at most {limit:.3g} of them may be left out (config key bad_boxes_limit)'
    )
