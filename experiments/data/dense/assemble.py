"""From the annotations of a format to a data set: images are checked, what does not fit is left out and named."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from backbones.errors import UserError
from experiments.data import account, contents, folder_tree, image_files
from experiments.data.coco_ids import CocoIds
from experiments.data.dataset import Dataset
from experiments.data.decoding import DecodedImages, FileReader, MaskReader, content_digest, stored_size_of
from experiments.data.dense import object_checks
from experiments.data.dense.annotations import Annotations
from experiments.data.dense.checking import KeptImage, KeptImages, check_images
from experiments.data.dense.folder_files import Files
from experiments.data.dense.mask_files import value_in_words
from experiments.data.dense.mask_source import LabelTable
from experiments.data.file_splits import split_files
from experiments.data.options import ReadingOptions
from experiments.data.truth import IGNORE, Masks, Truth

LabelTableOf = Callable[[Counter, Mapping[int, str]], LabelTable]


def with_boxes(name: str, files: Files, annotations: Annotations, options: ReadingOptions) -> Dataset:
    """A data set for detection.

    Args:
        name: as given by the user, such as ``voc:PATH``.
        files: what the annotations were read from.
        annotations: what they say.
        options: how images are read.

    Raises:
        UserError: too many images cannot be read, or contradict their annotations; too many objects make no sense; or
            there are no images, or none for training.
    """
    kept = check_images(name, files, annotations, options)
    ids = tuple(each.image.name for each in kept.images)
    sizes = np.array([each.size for each in kept.images], np.int32).reshape(-1, 2)
    objects = [each.image.objects for each in kept.images]
    found = object_checks.check_objects(
        objects, sizes, ids, annotations.classes, annotations.normalised, annotations.extents
    )
    bad = {**annotations.strays, **found.bad}
    total = sum(map(len, objects)) + sum(map(len, annotations.strays.values()))
    object_checks.check_limit(bad, total, name, options.bad_boxes_limit, found.hint)
    if not total:
        raise UserError(f'there are no objects in the annotations of {name!r}')
    object_checks.check_left(found.boxes, name)
    return _dataset(name, files, annotations, options, kept, annotations.classes, found.boxes, bad, found.noticed)


def with_masks(
    name: str, files: Files, annotations: Annotations, options: ReadingOptions, table_of: LabelTableOf
) -> Dataset:
    """A data set for segmentation.

    Args:
        name, files, annotations, options: as for ``with_boxes``.
        table_of: the classes of masks, from the number of pixels of each value in all of them, and the first image that
            has it.

    Raises:
        UserError: as for ``with_boxes``, or whatever ``table_of`` raises.
    """
    object_checks.check_limit(annotations.strays, annotations.painted, name, options.bad_boxes_limit)
    kept = check_images(name, files, annotations, options)
    counts: Counter = Counter()
    first: dict[int, str] = {}
    for each in kept.images:
        assert each.mask is not None
        counts.update(each.mask.counts)
        for value in each.mask.counts:
            first.setdefault(value, each.image.name)
    table = table_of(counts, first)
    # What no class has, such as a value that an editor of images mixed, spoils the whole mask: its source is in doubt.
    unknown = {}
    for each in kept.images:
        strange = sorted(value for value in each.mask.counts if value not in table.labels) if each.mask else []
        if strange:
            unknown[each.image.name] = f'its mask holds {value_in_words(strange[0])}, which is no class'
    kept = kept.without(unknown)
    kept.check(name, options.bad_files_limit)
    pixels = np.zeros((len(kept.images), len(table.classes) + 1), np.int64)
    for row, each in zip(pixels, kept.images, strict=True):
        for value, number in each.mask.counts.items() if each.mask else ():
            label = table.labels[value]
            row[-1 if label == IGNORE else label] += number
    masks = [each.mask.source.reader(table) for each in kept.images if each.mask]
    annotations = dataclasses.replace(annotations, guessed=(*annotations.guessed, *table.guessed))
    truth = Masks(pixels)
    return _dataset(
        name, files, annotations, options, kept, table.classes, truth, annotations.strays, (), masks, table.labels
    )


def _dataset(
    name: str,
    files: Files,
    annotations: Annotations,
    options: ReadingOptions,
    kept: KeptImages,
    classes: tuple[str, ...],
    truth: Truth,
    bad_objects: Mapping[str, tuple[str, ...]],
    noticed: Sequence[str],
    masks: Sequence[MaskReader] | None = None,
    labels: Mapping[int, int] | None = None,
) -> Dataset:
    """Everything that boxes and masks share."""
    ids = tuple(each.image.name for each in kept.images)
    inspections = [each.checked.inspection for each in kept.images]
    digests = tuple(each.checked.digest for each in kept.images)
    strata = np.zeros(len(ids), np.int32)
    splits = split_files(strata, ids, [each.image.split for each in kept.images], digests, classes, options)
    reading, rules = image_files.reading_of(inspections, ids, options)
    sizes = [each.size for each in kept.images]
    size = stored_size_of(sizes, options.stored_size)
    turned = [each.turned for each in kept.images]
    read = FileReader([each.checked.known for each in kept.images], reading, size, 'letterbox', masks, turned)
    annotated = tuple(each.digest for each in masks) if masks is not None else None
    content = content_digest(
        [*digests, *(annotated or ())],
        size=size or sizes[0],
        turned=turned,
        reading=reading.as_json(),
        labels=sorted(labels.items()) if labels else None,
    )
    shape = (len(ids), *(size or sizes[0]), 3 if masks is None else 4)
    dataset = Dataset(
        name=name,
        images=DecodedImages(read, shape, content).in_memory_if_small('reading images'),
        targets=strata,
        ids=ids,
        classes=classes,
        splits=splits.indices,
        provenance=f'{annotations.format} {folder_tree.printable(files.root.resolve().name)}; {splits.how}'
        f'{f"; {account.number_of(len(kept.bad))} left out" if kept.bad else ""}',
        skipped=tuple(kept.bad.items()),
        stored_size=size,
        reading=reading,
        digests=digests,
        file_sizes=tuple(each.checked.known.stamp[0] for each in kept.images),
        files=tuple(
            each.checked.known.path if each.turned == each.checked.inspection.is_turned else None
            for each in kept.images
        ),
        truth=truth,
        annotation_digests=annotated or tuple(each.image.digest for each in kept.images),
        coco_ids=_coco_ids(kept.images, annotations.categories),
    )
    met = account.Account(
        sizes=account.sizes_in_words(Counter(each[::-1] for each in sizes)),
        kinds=Counter(each.kind for each in inspections),
        stored=_stored_in_words(sizes, size, masks is not None),
        rules=tuple(rules),
        left_out={
            **kept.bad_by_reason(),
            **bad_objects,
            **annotations.left_out,
            **kept.left_out,
            **({'excluded': tuple(files.excluded)} if files.excluded else {}),
        },
        guessed=(*annotations.guessed, *splits.guessed),
        noticed=(
            *annotations.noticed,
            *noticed,
            *splits.noticed,
            *_orientation_in_words(kept.images),
            *image_files.noticed(inspections, ids),
            *contents.noticed(dataset),
        ),
    )
    return dataclasses.replace(dataset, account=met)


def _coco_ids(kept: Sequence[KeptImage], categories: Mapping[str, int | str]) -> CocoIds | None:
    if not categories:
        return None
    return CocoIds({each.image.name: each.image.listed for each in kept if each.image.listed}, categories)


def _stored_in_words(sizes: Sequence[tuple[int, int]], size: tuple[int, int] | None, masks: bool) -> str:
    if size is None:
        return 'at their own size'
    how = 'bicubic; masks: nearest' if masks else 'bicubic'
    if len(set(sizes)) == 1:
        return f'at {size[1]}x{size[0]} ({how})'
    return f'as squares of {size[1]}x{size[0]} (letterbox, {how})'


def _orientation_in_words(kept: Sequence[KeptImage]) -> list[str]:
    found = []
    for turned, what in ((True, 'turned upright by the orientation tag'), (False, 'not turned by the orientation tag')):
        names = [each.image.name for each in kept if each.checked.inspection.is_turned and each.turned == turned]
        if names:
            found.append(f'{account.number_of(len(names))} {what}, as annotated (such as {names[0]})')
    return found
