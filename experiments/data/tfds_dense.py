"""``tfds:NAME`` with boxes or masks: prepared TensorFlow Datasets for dense tasks, read without TensorFlow.

Boxes are those of a feature ``objects``, as ``voc/2007`` and ``voc/2012`` have it. TFDS divides VOC's corners by the
image's size as they are; they count pixels from 1 and include the last one, so a box from 1 to 10 is one from 0 to 10
here. A split in which no image has an object is one whose annotations are not published (``voc/2012``'s test).

Masks are known of ``oxford_iiit_pet``: the trimap's 1 is the pet, 2 the background, and 3, which its authors call not
classified, is ignored.
"""

import dataclasses
import hashlib
import io
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from backbones import images as image_files
from backbones.errors import UserError
from experiments.data import account, tfds, unreadable
from experiments.data.dataset import Dataset
from experiments.data.decoding import DecodedImages, content_digest, stored_mask, stored_size_of
from experiments.data.options import ReadingOptions
from experiments.data.splits import official_splits
from experiments.data.truth import IGNORE, Boxes, Masks

# Name → classes, and value in the mask → class.
_MASKS: dict[str, tuple[tuple[str, ...], Mapping[int, int]]] = {
    'oxford_iiit_pet': (('background', 'pet'), {1: 1, 2: 0, 3: IGNORE})
}
_IMAGE, _OBJECTS, _MASK = 'image', 'objects', 'segmentation_mask'


@dataclasses.dataclass(frozen=True)
class _Record:
    """What is kept of a record: where it is, its image's height and width, its objects, and a digest."""

    split: str
    position: int
    size: tuple[int, int]
    objects: Mapping[str, np.ndarray]
    digest: bytes


def load(name: str, directory: Path, options: ReadingOptions, segmentation: bool) -> Dataset:
    """Read a prepared data set with boxes or masks.

    Args:
        name: TFDS's name, such as ``voc/2007``.
        directory: the directory of prepared data sets.
        options: how it is read; images keep their aspect ratio.
        segmentation: whether masks are read, not boxes.

    Raises:
        UserError: see ``tfds.load``; or the data set has no boxes, or no masks whose values are known.
    """
    import tensorflow_datasets  # imported late: only runs on TFDS data wait for it

    image_files.ignore_warnings_of_pillow()
    builder = tfds.prepared_builder(name, directory)
    features, family = builder.info.features, name.partition('/')[0].partition(':')[0]
    _check(name, family, features, segmentation)
    keys = (_IMAGE, _MASK) if segmentation else (_IMAGE,)
    skip = {key: tensorflow_datasets.decode.SkipDecoding() for key in keys}
    sources = {
        split: builder.as_data_source(split, decoders=skip)
        for split in ('train', 'validation', 'test')
        if split in builder.info.splits
    }
    records, skipped = _records(sources, keys)
    unlabelled = {} if segmentation else _unlabelled(records)
    unused = {name for names in unlabelled.values() for name in names}
    records = [each for each in records if _id(each) not in unused]
    if not any(each.split == 'train' for each in records):
        raise UserError(f'tfds:{name} has no split named train with annotations, but {", ".join(builder.info.splits)}')
    sizes = [each.size for each in records]
    size = stored_size_of(sizes, options.stored_size)
    values = _lookup(_MASKS[family][1]) if segmentation else None

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
    truth, senseless = (Masks(), {}) if segmentation else _boxes(records, family)
    classes = _MASKS[family][0] if segmentation else tuple(features[_OBJECTS].feature['label'].names)
    return Dataset(
        name=f'tfds:{name}',
        images=images,
        targets=strata,
        ids=ids,
        classes=classes,
        splits=splits,
        provenance=f'TFDS {builder.info.full_name}; {how}{unreadable.skipped(skipped, "record")}',
        skipped=tuple(skipped),
        groups=strata,
        account=account.Account(
            sizes=account.sizes_in_words(Counter(each.size[::-1] for each in records)),
            kinds={'RGB': len(records)},
            stored='at their own size' if size is None else f'at {size[1]}x{size[0]} (letterbox, bicubic)',
            left_out={**unreadable.by_reason(skipped), **unlabelled, **senseless},
        ),
        stored_size=size,
        truth=truth,
    )


def _check(name: str, family: str, features: Any, segmentation: bool) -> None:
    if segmentation and (family not in _MASKS or _MASK not in features):
        raise UserError(f'tfds:{name} is no data set for segmentation; of TFDS, {", ".join(_MASKS)} is known')
    fields = getattr(features[_OBJECTS], 'feature', {}) if _OBJECTS in features else {}
    if not segmentation and not {'bbox', 'label'} <= set(fields):
        raise UserError(
            f'tfds:{name} is no data set for detection: it has no feature objects with bbox and label, but '
            f'{", ".join(features)}'
        )
    if _IMAGE not in features or features[_IMAGE].np_dtype != np.uint8:
        raise UserError(f'tfds:{name} has no feature image of 8 bits')


def _records(sources: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[list[_Record], list[tuple[str, str]]]:
    """What is kept of every record, and the names of unreadable ones with the reason."""
    found, skipped = [], []
    for split, source in sources.items():
        for position in range(len(source)):
            try:
                record = source[position]
                with Image.open(io.BytesIO(record[_IMAGE])) as image:
                    size = image.height, image.width
            except Exception as error:  # readers raise all kinds of errors on damaged records
                skipped.append((tfds.record_id(split, position), unreadable.reason(error)))
                continue
            digest = hashlib.sha256(b''.join(hashlib.sha256(record[key]).digest() for key in keys)).digest()
            found.append(_Record(split, position, size, record.get(_OBJECTS, {}), digest))
    return found, skipped


def _id(record: _Record) -> str:
    return tfds.record_id(record.split, record.position)


def _unlabelled(records: list[_Record]) -> dict[str, tuple[str, ...]]:
    with_objects = {each.split for each in records if len(each.objects['label'])}
    without = {each.split for each in records} - with_objects
    return {
        f'image of the {split} split, which has no annotations': tuple(
            _id(each) for each in records if each.split == split
        )
        for split in sorted(without)
    }


def _lookup(values: Mapping[int, int]) -> np.ndarray:
    """Class of each of the 256 values of a mask; a value that has none is marked by one that no class has."""
    return np.array([values.get(value, IGNORE - 1) for value in range(256)], np.uint8)


def _pixels(record: Mapping[str, bytes], size: tuple[int, int] | None, values: np.ndarray | None) -> np.ndarray:
    """An image, with its mask as a fourth channel if there is one, at the stored size.

    Orientation tags are of no account: TFDS, which checked masks and boxes against its images, does not read them.
    """
    with Image.open(io.BytesIO(record[_IMAGE])) as opened:
        image = opened.convert('RGB')
    pixels = np.asarray(image) if size is None else image_files.to_stored(image, size, 'letterbox')
    if values is None:
        return pixels
    with Image.open(io.BytesIO(record[_MASK])) as opened:
        mask = np.asarray(opened)
    if mask.shape != (image.height, image.width):
        raise UserError(f'its mask is {mask.shape[1]}x{mask.shape[0]}, its image {image.width}x{image.height}')
    classes = values[mask]
    if (classes == IGNORE - 1).any():
        raise UserError(f'its mask holds {mask[classes == IGNORE - 1][0]}, which is no class')
    return np.dstack([pixels, classes if size is None else stored_mask(classes, size)])


def _boxes(records: list[_Record], family: str) -> tuple[Boxes, dict[str, tuple[str, ...]]]:
    """The objects of all images, and the images that have one without any area, which is left out."""
    kept, senseless = [], []
    for record in records:
        height, width = record.size
        top, left, bottom, right = np.asarray(record.objects['bbox'], np.float64).reshape(-1, 4).T
        # Single precision loses the digits after the third.
        corners = np.round(np.stack([left * width, top * height, right * width, bottom * height], -1), 3)
        if family == 'voc':
            corners[:, :2] = np.maximum(corners[:, :2] - 1, 0)
        good = (corners[:, 2:] > corners[:, :2]).all(1)
        if not good.all():
            senseless.append(_id(record))
        fields = {'label': np.asarray(record.objects['label']), 'bbox': corners}
        for field in ('is_crowd', 'is_difficult'):
            fields[field] = np.asarray(record.objects.get(field, np.zeros(len(corners))), bool)
        fields['area'] = np.asarray(record.objects.get('area', (corners[:, 2:] - corners[:, :2]).prod(1)))
        kept.append({field: value[good] for field, value in fields.items()})
    most = max(1, *(len(each['label']) for each in kept))

    def padded(field: str, fill: float, dtype: type, *shape: int) -> np.ndarray:
        result = np.full((len(kept), most, *shape), fill, dtype)
        for row, each in zip(result, kept, strict=True):
            row[: len(each[field])] = each[field]
        return result

    boxes = Boxes(
        boxes=padded('bbox', 0, np.float32, 4),
        classes=padded('label', -1, np.int32),
        crowd=padded('is_crowd', False, bool),
        difficult=padded('is_difficult', False, bool),
        area=padded('area', 0, np.float32),
        sizes=np.array([each.size for each in records], np.int32),
    )
    return boxes, {'image with an object without area, which is left out': tuple(senseless)} if senseless else {}
