"""``voc:PATH``: the layout of Pascal VOC, for boxes (``Annotations/*.xml``) and masks (``SegmentationClass/*.png``).

Images lie in ``JPEGImages``, also in folders there. ``ImageSets/Main`` (detection) and ``ImageSets/Segmentation`` list
the splits; without them, folders of ``JPEGImages`` that are called like splits are the splits. An image that no list
names, or that has no annotation, is not used.

Source of the format: VOCdevkit, ``VOCcode/PASreadrecord.m`` and the devkit's documentation: pixels count from 1, and
the box includes its last row and column, so that a box from 1 to 10 covers ten pixels: 0 to 10 here.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from backbones.errors import UserError, listed
from experiments.data import image_files
from experiments.data.dataset import Dataset
from experiments.data.dense import assemble
from experiments.data.dense.annotations import AnnotatedImage, Annotations
from experiments.data.dense.folder_files import Files
from experiments.data.dense.label_tables import ClassNames, NamedClass, class_names, label_table
from experiments.data.dense.mask_files import MaskFile
from experiments.data.dense.voc_annotation import parse
from experiments.data.dense.voc_lists import Listing
from experiments.data.options import ReadingOptions

CLASSES = (
    'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow', 'diningtable', 'dog',
    'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor',
)  # fmt: skip
_LAYOUT = 'a folder with JPEGImages/ and Annotations/*.xml (detection) or SegmentationClass/*.png (segmentation)'
_BORDER = NamedClass(255, 'border', (224, 224, 192))
_XML, _PNG = frozenset({'.xml'}), frozenset({'.png'})


def load(path: str, options: ReadingOptions, segmentation: bool) -> Dataset:
    """Read a data set in the layout of Pascal VOC.

    Args:
        path: the folder that holds ``JPEGImages``.
        options: how it is read.
        segmentation: whether masks are read, not boxes.

    Raises:
        UserError: no such folder, another layout, or see ``assemble``.
    """
    root = image_files.existing(path, _LAYOUT)
    folder = 'SegmentationClass' if segmentation else 'Annotations'
    for needed in ('JPEGImages', folder):
        if not (root / needed).is_dir():
            raise _no_such_layout(path, root, needed)
    files = Files(root, options.excluded)
    listing = Listing(files, 'Segmentation' if segmentation else 'Main')
    if segmentation:
        return _masks(path, files, listing, options)
    return _boxes(path, files, listing, options)


def _no_such_layout(path: str, root: Path, needed: str) -> UserError:
    inner = sorted(
        each.parent for pattern in ('*', '*/*') for each in root.glob(f'{pattern}/{needed}') if each.is_dir()
    )
    if inner:
        return UserError(f'there is no {needed}/ in {path!r}; the data set seems to be voc:{inner[0]}')
    there = listed(sorted(each.name for each in root.iterdir()), 6)
    if not there:
        return UserError(f'{path!r} is an empty folder; expected {_LAYOUT}')
    return UserError(f'there is no {needed}/ in {path!r}, but {there}; expected {_LAYOUT}')


# --- Boxes. -----------------------------------------------------------------------------------------------------------


def _boxes(path: str, files: Files, listing: Listing, options: ReadingOptions) -> Dataset:
    folder = files.root / 'Annotations'
    xml = {each.relative_to(folder).with_suffix('').as_posix(): each for each in files.below(folder, _XML)}
    names = listing.names(list(xml))
    unlabelled = listing.unlabelled(names, xml)
    found: list[AnnotatedImage] = []
    for name, split in names:
        if split not in unlabelled:
            found.append(_image(name, split, xml.get(name), listing, files))
    labels = {each.label for image in found for each in image.objects} - {''}
    classes = CLASSES if labels <= set(CLASSES) else tuple(sorted(labels))
    guessed = [*listing.guessed]
    if labels:
        guessed.append(
            'the classes are those of Pascal VOC, in its order'
            if classes == CLASSES
            else f'the classes are the names in {files.name(folder)}/, in alphabetical order'
        )
    found, from_zero = _zero_based(found)
    if from_zero:
        guessed.append('boxes have corners at 0 rather than at 1, so pixels count from 0, not from 1 as in VOC')
    annotations = Annotations(
        images=tuple(found),
        classes=classes,
        format='VOC',
        left_out={**_not_used(unlabelled), **listing.left_out(found, files)},
        guessed=tuple(guessed),
        noticed=_difficult(found),
    )
    return assemble.with_boxes(f'voc:{path}', files, annotations, options)


def _not_used(unlabelled: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {f'image of the {split} split, which has no annotations': names for split, names in unlabelled.items()}


def _image(name: str, split: str, xml: Path | None, listing: Listing, files: Files) -> AnnotatedImage:
    path, parsed, problem = listing.image(name), None, None
    if xml is None:
        problem = 'it has no annotation in Annotations/'
    else:
        try:
            parsed = parse(xml.read_bytes())
        except (OSError, ElementTree.ParseError) as error:
            problem = f'its annotation cannot be read ({error})'
        if path is None and parsed is not None:
            path = listing.image(Path(parsed.filename).stem)
    if path is None:
        absent = files.root / 'JPEGImages' / f'{name}.jpg'
        return AnnotatedImage(files.name(absent), absent, split, problem=problem or 'there is no such image')
    if parsed is None:
        return AnnotatedImage(files.name(path), path, split, problem=problem)
    return AnnotatedImage(
        files.name(path), path, split, parsed.objects, size=parsed.size, problem=problem, digest=parsed.digest
    )


def _zero_based(found: Sequence[AnnotatedImage]) -> tuple[list[AnnotatedImage], bool]:
    """Boxes as their corners lie between pixels, and whether the annotations count pixels from 0."""
    corners = [corner for image in found for each in image.objects for corner in each.box[:2]]
    from_zero = corners.count(0) > corners.count(1)
    shift = 0 if from_zero else 1
    moved = [
        dataclasses.replace(
            image, objects=tuple(each._replace(box=_shifted(each.box, shift)) for each in image.objects)
        )
        for image in found
    ]
    return moved, from_zero


def _shifted(box: tuple[float, float, float, float], shift: int) -> tuple[float, float, float, float]:
    left, top, right, bottom = box
    return left - shift, top - shift, right, bottom


def _difficult(found: Sequence[AnnotatedImage]) -> tuple[str, ...]:
    count = sum(each.difficult for image in found for each in image.objects)
    if not count:
        return ()
    return (f"{count:,} objects are marked as difficult; COCO's average precision counts them like any other",)


# --- Masks. -----------------------------------------------------------------------------------------------------------


def _masks(path: str, files: Files, listing: Listing, options: ReadingOptions) -> Dataset:
    folder = files.root / 'SegmentationClass'
    masks = {each.relative_to(folder).with_suffix('').as_posix(): each for each in files.below(folder, _PNG)}
    names = class_names(files.root)
    guessed = f'the classes of masks are those of {names.source or "Pascal VOC, in its order"}'
    names = names if names.source else _official()
    listed_names = listing.names(list(masks))
    unlabelled = listing.unlabelled(listed_names, masks)
    found = []
    for name, split in listed_names:
        if split in unlabelled:
            continue
        image, mask = listing.image(name), masks.get(name)
        absent = image or files.root / 'JPEGImages' / f'{name}.jpg'
        problem = (
            'there is no such image' if image is None else None if mask else 'it has no mask in SegmentationClass/'
        )
        source = MaskFile(mask, names.by_colour) if mask else None
        found.append(AnnotatedImage(files.name(absent), absent, split, mask=source, problem=problem))
    annotations = Annotations(
        images=tuple(found),
        classes=(),
        format='VOC',
        left_out={**_not_used(unlabelled), **listing.left_out(found, files)},
        guessed=(*listing.guessed, guessed),
    )
    return assemble.with_masks(
        f'voc:{path}',
        files,
        annotations,
        options,
        lambda counts, first: label_table(counts, first, names, options.ignore_label, path),
    )


def _official() -> ClassNames:
    """The classes of Pascal VOC with their colours (``VOClabelcolormap.m``), and the border, which is ignored."""
    found = [NamedClass(value, name, _colour(value)) for value, name in enumerate(('background', *CLASSES))]
    return ClassNames('VOC', (*found, _BORDER))


def _colour(value: int) -> tuple[int, int, int]:
    """The bits of a value, dealt to the colours in turn, the lowest to the highest bit of red."""
    red, green, blue = (
        sum((value >> (3 * place + channel) & 1) << (7 - place) for place in range(8)) for channel in range(3)
    )
    return red, green, blue
