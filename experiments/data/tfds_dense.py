"""``tfds:NAME`` with boxes or masks: prepared TensorFlow Datasets for dense tasks, read without TensorFlow.

Boxes are those of a feature ``objects``, as ``voc/2007`` and ``voc/2012`` have it. A split in which no image has an
object is one whose annotations are not published (``voc/2012``'s test). Masks are known of ``oxford_iiit_pet``.
"""

import dataclasses
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from backbones import images as image_files
from backbones.errors import UserError
from experiments.data import account, contents, tfds, unreadable
from experiments.data.dataset import Dataset
from experiments.data.decoding import DecodedImages, content_digest, stored_mask, stored_size_of, worker_threads
from experiments.data.dense import object_checks
from experiments.data.options import ReadingOptions
from experiments.data.splits import official_splits
from experiments.data.tfds_annotations import (
    IMAGE,
    MASK,
    MASKS,
    OBJECTS,
    AnnotatedRecord,
    mask_of,
    with_mask,
    with_objects,
)
from experiments.data.truth import Masks, Truth


def load(name: str, directory: Path, options: ReadingOptions, segmentation: bool) -> Dataset:
    """Read a prepared data set with boxes or masks.

    Args:
        name: TFDS's name, such as ``voc/2007``.
        directory: the directory of prepared data sets.
        options: how it is read; images keep their aspect ratio.
        segmentation: whether masks are read, not boxes.

    Raises:
        UserError: see ``tfds.load``; or the data set has no boxes, or no masks whose values are known; or too many
            objects make no sense.
    """
    import tensorflow_datasets  # imported late: only runs on TFDS data wait for it

    image_files.ignore_warnings_of_pillow()
    builder = tfds.prepared_builder(name, directory)
    features, family = builder.info.features, name.partition('/')[0].partition(':')[0]
    _check(name, family, features, segmentation)
    keys = (IMAGE, MASK) if segmentation else (IMAGE,)
    skip = {key: tensorflow_datasets.decode.SkipDecoding() for key in keys}
    sources = {
        split: builder.as_data_source(split, decoders=skip)
        for split in ('train', 'validation', 'test')
        if split in builder.info.splits
    }
    classes = MASKS[family][0] if segmentation else tuple(features[OBJECTS].feature['label'].names)

    def keep(split: str, position: int, record: Mapping[str, Any]) -> AnnotatedRecord:
        if segmentation:
            return with_mask(record, split, position, family)
        return with_objects(record, split, position, family, classes)

    records, skipped = _records(sources, keep)
    unlabelled = {} if segmentation else _unlabelled(records)
    unused = {name for names in unlabelled.values() for name in names}
    records = [each for each in records if _id(each) not in unused]
    if not any(each.split == 'train' for each in records):
        raise UserError(f'tfds:{name} has no split named train with annotations, but {", ".join(builder.info.splits)}')
    sizes = [each.size for each in records]
    size = stored_size_of(sizes, options.stored_size)
    values = MASKS[family][1] if segmentation else None

    def read(index: int) -> np.ndarray:
        record = records[index]
        return _pixels(sources[record.split][record.position], size, values)

    shape = (len(records), *(size or sizes[0]), 4 if segmentation else 3)
    content = content_digest([each.digest for each in records], size=shape[1:], masks=segmentation)
    images = DecodedImages(read, shape, content)
    if images.fits_in_memory:
        images, errors = images.decode_all()
        if errors:
            skipped += [(_id(records[index]), unreadable.reason(error)) for index, error in errors.items()]
            good = np.delete(np.arange(len(records)), list(errors))
            images, records = images[good], [records[index] for index in good]
    total = sum(map(len, sources.values()))
    unreadable.check_limit(skipped, f'of {total} records of tfds:{name}', options.bad_files_limit)
    ids = tuple(map(_id, records))
    strata = np.zeros(len(ids), np.int32)
    splits, how = official_splits(strata, ids, np.array([each.split for each in records]))
    truth, bad, noticed = _masks(records) if segmentation else _boxes(f'tfds:{name}', records, classes, options)
    dataset = Dataset(
        name=f'tfds:{name}',
        images=images,
        targets=strata,
        ids=ids,
        classes=classes,
        splits=splits,
        provenance=f'TFDS {builder.info.full_name}; {how}{unreadable.skipped(skipped, "record")}',
        skipped=tuple(skipped),
        groups=strata,
        stored_size=size,
        truth=truth,
        annotation_digests=tuple(each.annotation for each in records),
    )
    met = account.Account(
        sizes=account.sizes_in_words(Counter(each.size[::-1] for each in records)),
        kinds={'RGB': len(records)},
        stored='at their own size' if size is None else f'at {size[1]}x{size[0]} (letterbox, bicubic)',
        left_out={**unreadable.by_reason(skipped), **unlabelled, **bad},
        noticed=(*noticed, *contents.noticed(dataset)),
    )
    return dataclasses.replace(dataset, account=met)


def _masks(records: Sequence[AnnotatedRecord]) -> tuple[Truth, Mapping[str, tuple[str, ...]], tuple[str, ...]]:
    """The pixels of each class; nothing is left out or to be noticed."""
    return Masks(np.concatenate([each.pixels for each in records if each.pixels is not None])), {}, ()


def _boxes(
    name: str, records: Sequence[AnnotatedRecord], classes: Sequence[str], options: ReadingOptions
) -> tuple[Truth, Mapping[str, tuple[str, ...]], tuple[str, ...]]:
    """The objects, which of them are left out, and what is to be noticed.

    Raises:
        UserError: too many make no sense, or none is left.
    """
    objects, ids = [each.objects for each in records], tuple(map(_id, records))
    found = object_checks.check_objects(objects, np.array([each.size for each in records], np.int32), ids, classes)
    object_checks.check_limit(found.bad, sum(map(len, objects)), name, options.bad_boxes_limit)
    object_checks.check_left(found.boxes, name)
    return found.boxes, found.bad, found.noticed


def _check(name: str, family: str, features: Any, segmentation: bool) -> None:
    if segmentation and (family not in MASKS or MASK not in features):
        raise UserError(f'tfds:{name} is no data set for segmentation; of TFDS, {", ".join(MASKS)} is known')
    fields = getattr(features[OBJECTS], 'feature', {}) if OBJECTS in features else {}
    if not segmentation and not {'bbox', 'label'} <= set(fields):
        raise UserError(
            f'tfds:{name} is no data set for detection: it has no feature objects with bbox and label, but '
            f'{", ".join(features)}'
        )
    if IMAGE not in features or features[IMAGE].np_dtype != np.uint8:
        raise UserError(f'tfds:{name} has no feature image of 8 bits')


def _records(
    sources: Mapping[str, Any], read: Callable[[str, int, Mapping[str, Any]], AnnotatedRecord]
) -> tuple[list[AnnotatedRecord], list[tuple[str, str]]]:
    """What is kept of every record, and the names of unreadable ones with the reason."""

    def checked(place: tuple[str, int]) -> AnnotatedRecord | Exception:
        split, position = place
        try:
            return read(split, position, sources[split][position])
        except Exception as error:  # readers raise all kinds of errors on damaged records
            return error

    places = [(split, position) for split, source in sources.items() for position in range(len(source))]
    with worker_threads() as pool:
        results = list(pool.map(checked, places))
    skipped = [
        (tfds.record_id(*place), unreadable.reason(each))
        for place, each in zip(places, results, strict=True)
        if isinstance(each, Exception)
    ]
    return [each for each in results if isinstance(each, AnnotatedRecord)], skipped


def _id(record: AnnotatedRecord) -> str:
    return tfds.record_id(record.split, record.position)


def _unlabelled(records: list[AnnotatedRecord]) -> dict[str, tuple[str, ...]]:
    without = {each.split for each in records} - {each.split for each in records if each.objects}
    return {
        f'image of the {split} split, which has no annotations': tuple(
            _id(each) for each in records if each.split == split
        )
        for split in sorted(without)
    }


def _pixels(
    record: Mapping[str, bytes], size: tuple[int, int] | None, values: Mapping[int, int] | None
) -> UInt8[np.ndarray, 'height width channels']:
    """An image, with its mask as a fourth channel if there is one, at the stored size.

    Orientation tags are of no account: TFDS, which checked masks and boxes against its images, does not read them.
    """
    with Image.open(io.BytesIO(record[IMAGE])) as opened:
        image = opened.convert('RGB')
    pixels = np.asarray(image) if size is None else image_files.to_stored(image, size, 'letterbox')
    if values is None:
        return pixels
    mask = mask_of(record, (image.height, image.width), values)
    return np.dstack([pixels, mask if size is None else stored_mask(mask, size)])
