"""``coco:PATH``: the layout of COCO, for detection (``bbox``) and semantic segmentation (polygons and run lengths).

``annotations/instances_train2017.json`` lies beside the folder ``train2017/`` of its images, or, as Roboflow writes it,
``train/_annotations.coco.json`` among them. In segmentation class 0 is the background, smaller objects lie on top of
larger ones, and crowds are ignored.

Source of the format: cocodataset.org/#format-data, and pycocotools ``coco.py``.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np

from backbones.errors import UserError, listed
from experiments.data import image_files
from experiments.data.dataset import Dataset
from experiments.data.dense import assemble, painting
from experiments.data.dense.annotations import AnnotatedImage, AnnotatedObject, Annotations, digest_of
from experiments.data.dense.coco_files import AnnotationFile, annotation_files, one_file, root_of, strangers
from experiments.data.dense.folder_files import Files
from experiments.data.dense.mask_source import LabelTable
from experiments.data.options import ReadingOptions
from experiments.data.truth import IGNORE

_BACKGROUND = 'background'
# Areas are kept as float32; what is no such number, NaN included, is none.
_LARGEST = float(np.finfo(np.float32).max)


def load(path: str, options: ReadingOptions, segmentation: bool) -> Dataset:
    """Read a data set in the layout of COCO.

    Args:
        path: the folder that holds ``annotations`` or the folders of splits; or one annotation file, which is then
            split by a hash.
        options: how it is read.
        segmentation: whether masks are read, not boxes.

    Raises:
        UserError: no such folder, another layout, damaged annotations, more categories than masks can hold, or see
            ``assemble``.
    """
    root = root_of(path)
    if one_file(path) is None:
        root = image_files.existing(path, 'a folder with annotations/*.json beside the folders of images')
    files = Files(root, options.excluded)
    painting.ignore_warnings_of_pycocotools()
    read, others = annotation_files(path, files)
    if others and not any(file.split in ('train', '') for file in read):
        raise UserError(
            f'no file of {f"coco:{path}"!r} annotates objects for training; {listed(others)} should hold lists called '
            'images, annotations and categories'
        )
    groups = _groups(read)
    names = _category_names(read, groups)
    found = _Found()
    classes = (_BACKGROUND, *(name for name in names.values() if name != _BACKGROUND))
    if segmentation and len(classes) > IGNORE:
        raise UserError(
            f'{path!r} has {len(classes):,} classes, with the background; masks hold at most {IGNORE:,}, so that it is '
            'only for detection'
        )
    for file in read:
        found.add(file, files, names, classes if segmentation else None)
    paths = [image.path for image in found.images]
    unlisted = strangers(read, paths, files)
    annotations = Annotations(
        images=tuple(found.images),
        classes=tuple(names.values()),
        format='COCO',
        extents=True,
        strays={reason: tuple(each) for reason, each in found.strays.items()},
        painted=found.painted,
        left_out={
            **({'file that annotates no objects': others} if others else {}),
            **({'image in no annotation file': unlisted} if unlisted else {}),
        },
        guessed=tuple(
            f'the category {name!r} has no object and is the supercategory of others, so it is no class'
            for name in groups.values()
        ),
        noticed=found.noticed(),
        categories={name: number for number, name in names.items()},
    )
    if not segmentation:
        return assemble.with_boxes(f'coco:{path}', files, annotations, options)
    if not found.painted:
        raise UserError(f'there are no objects in the annotations of {f"coco:{path}"!r}')
    table = LabelTable(classes, {**{value: value for value in range(len(classes))}, IGNORE: IGNORE})
    return assemble.with_masks(f'coco:{path}', files, annotations, options, lambda counts, first: table)


def _groups(read: Sequence[AnnotationFile]) -> dict[Any, str]:
    """Id → name of each category that only stands for others, as Roboflow writes one: it has no object in any file."""
    used = {each['category_id'] for file in read for each in file.annotations}
    categories = [each for file in read for each in file.categories]
    above = {str(each['supercategory']) for each in categories if each.get('supercategory')}
    # One that is its own supercategory, such as COCO's 'person', is a class.
    return {
        each['id']: str(each['name'])
        for each in categories
        if each['id'] not in used and str(each['name']) in above - {str(each.get('supercategory'))}
    }


def _category_names(read: Sequence[AnnotationFile], groups: Container[Any]) -> dict[Any, str]:
    """Id of a category → name of its class, in the order of ids, which may have gaps; ``groups`` are left out.

    Raises:
        UserError: an id has two names, or ids are of several types.
    """
    found: dict[Any, str] = {}
    owner: dict[Any, str] = {}
    for file in read:
        for category in file.categories:
            number, name = category['id'], str(category['name'])
            if number in groups:
                continue
            if found.setdefault(number, name) != name:
                if owner[number] == file.name:
                    raise UserError(
                        f'{file.name}: both {found[number]!r} and {name!r} have the id {number}, so that annotations '
                        'belong to either'
                    )
                raise UserError(
                    f'category {number} is {found[number]!r} in {owner[number]}, and {name!r} in {file.name}; the '
                    'files must have the same categories'
                )
            owner.setdefault(number, file.name)
    numbers = Counter(found.values())
    try:
        ordered = sorted(found.items())
    except TypeError:
        raise UserError(f'ids of categories are not all numbers, such as {next(iter(found))!r}') from None
    # A class is known by its name alone.
    return {number: name if numbers[name] == 1 else f'{name} ({number})' for number, name in ordered}


class _Found:
    """The images of all files, and what was met."""

    def __init__(self):
        self.images: list[AnnotatedImage] = []
        self.strays: dict[str, list[str]] = defaultdict(list)
        self.painted = 0
        self._twice: list[str] = []

    def add(
        self, file: AnnotationFile, files: Files, names: Mapping[Any, str], mask_classes: Sequence[str] | None
    ) -> None:
        """Add the images of a file, with boxes, or with masks of these classes.

        Raises:
            UserError: two images have the same id.
        """
        listed: dict[Any, dict[str, Any]] = {}
        for image in file.images:
            other = listed.setdefault(image['id'], image)
            if other['file_name'] != image['file_name']:
                raise UserError(
                    f'{file.name}: both {other["file_name"]!r} and {image["file_name"]!r} have the id {image["id"]}, '
                    'so that annotations belong to either'
                )
        of_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        seen: dict[Any, dict[str, Any]] = {}
        for each in file.annotations:
            if (before := seen.setdefault(each['id'], each)) is not each:
                self._twice.append(f'{file.name}: {each["id"]}')
                if before == each:
                    continue
            if each['image_id'] in listed:
                of_image[each['image_id']].append(each)
            else:
                self.strays['object of an image that is not listed'].append(f'{file.name} annotation {each["id"]}')
        for number, image in listed.items():
            path = file.find(str(image['file_name']))
            size = _size(image)
            objects = of_image.get(number, [])
            named = (number, str(image['file_name']))
            plain = AnnotatedImage(files.name(path), path, file.split, size=size, listed=named)
            if mask_classes is None:
                converted = tuple(_object(each, names) for each in objects)
                plain = dataclasses.replace(plain, objects=converted, digest=digest_of((size, converted)))
            elif size is None:
                plain = dataclasses.replace(plain, problem='its annotation has no height and width')
            else:
                mask = self._painted(objects, size, names, mask_classes, plain.name)
                plain = dataclasses.replace(plain, mask=mask)
            self.images.append(plain)

    def _painted(
        self,
        objects: Sequence[dict[str, Any]],
        size: tuple[int, int],
        names: Mapping[Any, str],
        classes: Sequence[str],
        image: str,
    ) -> painting.PaintedMask:
        """The mask of an image: crowds at the bottom, then objects from large to small."""
        crowds, outlines = [], []
        for each in objects:
            self.painted += 1
            try:
                if each['category_id'] not in names:
                    raise painting.BadOutline(f'its class is unknown, category {each["category_id"]}')
                is_crowd = _is_crowd(each)
                value = IGNORE if is_crowd else classes.index(names[each['category_id']])
                (crowds if is_crowd else outlines).append(painting.outline(each.get('segmentation'), size, value))
            except painting.BadOutline as error:
                self.strays[f'object, {error}'].append(f'{image} annotation {each["id"]}')
        outlines.sort(key=lambda outline: -outline.area)
        return painting.PaintedMask(size, (*crowds, *outlines))

    def noticed(self) -> tuple[str, ...]:
        """What may need attention."""
        if not self._twice:
            return ()
        return (f'{len(self._twice):,} annotations have the id of another one (such as {self._twice[0]})',)


def _is_crowd(annotation: Mapping[str, Any]) -> bool:
    return annotation.get('iscrowd') in (1, '1')


def _size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    try:
        height, width = int(image['height']), int(image['width'])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return (height, width) if height > 0 and width > 0 else None


def _object(annotation: Mapping[str, Any], names: Mapping[Any, str]) -> AnnotatedObject:
    label = names.get(annotation['category_id'])
    if label is None:
        return AnnotatedObject('', problem=f'its class is unknown, category {annotation["category_id"]}')
    box = _box(annotation)
    if box is None:
        return AnnotatedObject(label, problem='it has no box of four numbers')
    area = annotation.get('area')
    area = float(area) if isinstance(area, int | float) and abs(area) <= _LARGEST else 0.0
    return AnnotatedObject(label, box, crowd=_is_crowd(annotation), area=area)


def _box(annotation: Mapping[str, Any]) -> tuple[float, float, float, float] | None:
    """Left, top, right, bottom, or ``None`` if there is no box; without one, a polygon's is taken."""
    try:
        left, top, width, height = map(float, annotation['bbox'])
        return left, top, left + width, top + height
    except (KeyError, TypeError, ValueError, OverflowError):  # the last: whole numbers of hundreds of digits
        polygons = annotation.get('segmentation')
    if annotation.get('bbox') or not isinstance(polygons, list):
        return None
    try:
        xs = [float(each) for polygon in polygons for each in polygon[::2]]
        ys = [float(each) for polygon in polygons for each in polygon[1::2]]
        return min(xs), min(ys), max(xs), max(ys)
    except (TypeError, ValueError, OverflowError):
        return None
