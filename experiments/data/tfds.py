"""``tfds:NAME``: prepared TensorFlow Datasets, read without TensorFlow.

Reading needs the ``array_record`` format. If TensorFlow is installed, it prepares a missing data set in a separate
process; otherwise the error says what to install or run.
"""

import hashlib
import importlib.util
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from backbones import images as image_files
from backbones.errors import UserError, unknown
from backbones.images import ImageReading
from experiments.data import account, unreadable
from experiments.data.dataset import Dataset
from experiments.data.decoding import DecodedImages, content_digest, fits_in_memory
from experiments.data.options import ReadingOptions
from experiments.data.splits import official_splits
from experiments.data.texts import OtherInputs

_PREPARE = (
    'import sys, tensorflow_datasets as tfds; '
    "tfds.builder(sys.argv[1], data_dir=sys.argv[2], file_format='array_record').download_and_prepare()"
)
_CHUNK = 4096
_Read = TypeVar('_Read')
_WITH_ALPHA = 4  # channels


def default_directory() -> Path:
    """The directory that TFDS uses by default."""
    return Path(os.environ.get('TFDS_DATA_DIR') or Path.home() / 'tensorflow_datasets').expanduser()


def load(name: str, directory: Path, options: ReadingOptions) -> Dataset:
    """Read a prepared image-classification data set.

    Args:
        name: TFDS's name, such as ``cifar10``, with an optional ``/config``.
        directory: the directory of prepared data sets.
        options: how it is read; images of several sizes become squares, and pixels are checked only if all of them
            fit into memory.

    Raises:
        OtherInputs: it has texts.
        UserError: no such data set, it is not prepared and cannot be prepared here, it is not an image classification
            data set, or too many records are unreadable (named).
    """
    import tensorflow_datasets as tfds  # imported late: only runs on TFDS data wait for it

    image_files.ignore_warnings_of_pillow()
    builder = prepared_builder(name, directory)
    features, keys = builder.info.features, builder.info.supervised_keys
    if 'train' not in builder.info.splits:
        raise UserError(f'tfds:{name} has no split named train but {", ".join(builder.info.splits)}')
    if (
        not keys
        or not isinstance(features[keys[0]], tfds.features.Image)
        or not isinstance(features[keys[1]], tfds.features.ClassLabel)
    ):
        if features_of(features, 'Text') and not features_of(features, 'Image'):
            raise OtherInputs(f'tfds:{name} has texts')
        raise UserError(f'tfds:{name} is not an image-classification data set: its supervised keys are {keys}')
    image_key, label_key = keys
    sources = {
        split: builder.as_data_source(split, decoders={image_key: tfds.decode.SkipDecoding()})
        for split in ('train', 'validation', 'test')
        if split in builder.info.splits
    }
    total = sum(map(len, sources.values()))
    shape = features[image_key].shape
    if features[image_key].np_dtype != np.uint8:
        raise UserError(
            f'tfds:{name} has images of {np.dtype(features[image_key].np_dtype).name}; only 8 bits are read from TFDS: '
            'write them as PNG files and read these with folder:PATH, which scales deep images'
        )
    uniform = None not in shape and max(shape[:2]) <= options.stored_size
    side, fit = options.stored_size, options.fit
    stored = (*shape[:2], 3 if shape[-1] == _WITH_ALPHA else shape[-1]) if uniform else (side, side, 3)
    reading = ImageReading(background=options.colour)
    # Pixels in memory are hashed themselves; otherwise the records are, while their labels are read.
    hashed = None if fits_in_memory((total, *stored)) else image_key

    def read_label(record: Any) -> tuple[int, bytes]:
        return record[label_key], hashlib.sha256(record[hashed]).digest() if hashed else b''

    labels, records, skipped, digests = [], [], [], []
    for split, source in sources.items():
        for position, record in enumerate(read_all(source, read_label)):
            if isinstance(record, Exception):
                skipped.append((record_id(split, position), unreadable.reason(record)))
            else:
                label, digest = record
                labels.append(label)
                digests.append(digest)
                records.append((split, position))
    labels = np.asarray(labels, np.int32)

    def read(index: int) -> np.ndarray:
        split, position = records[index]
        content = sources[split][position][image_key]
        if uniform and shape[-1] != _WITH_ALPHA:
            return np.asarray(Image.open(io.BytesIO(content))).reshape(shape)
        image = image_files.decode(content, reading)
        return np.asarray(image) if uniform else image_files.to_stored(image, side, fit)

    content = content_digest(digests, size=stored, fit=None if uniform else fit) if hashed else None
    images = DecodedImages(read, (len(labels), *stored), content)
    if images.fits_in_memory:
        images, errors = images.decode_all()
        if errors:
            skipped += [(record_id(*records[index]), unreadable.reason(error)) for index, error in errors.items()]
            good = np.delete(np.arange(len(labels)), list(errors))
            images, labels, records = images[good], labels[good], [records[index] for index in good]
    unreadable.check_limit(skipped, f'of {total} records of tfds:{name}', options.bad_files_limit)
    ids = tuple(record_id(split, position) for split, position in records)
    splits, how = official_splits(labels, ids, np.array([split for split, _ in records]))
    provenance = f'TFDS {builder.info.full_name}; {how}{unreadable.skipped(skipped, "record")}'
    return Dataset(
        name=f'tfds:{name}',
        images=images,
        targets=labels,
        ids=ids,
        classes=tuple(features[label_key].names),
        splits=splits,
        provenance=provenance,
        skipped=tuple(skipped),
        account=account.Account(
            sizes=f'all {shape[1]}x{shape[0]}' if None not in shape else 'several sizes',
            kinds={'8-bit grey' if shape[-1] == 1 else 'RGB': len(labels)},
            stored='at their own size' if uniform else f'as squares of {side}x{side} ({fit}, bicubic)',
            left_out=unreadable.by_reason(skipped),
        ),
        stored_size=None if uniform else (side, side),
        reading=reading,
    )


def features_of(features: Mapping[str, Any], kind: str) -> list[str]:
    """Names of the features of a kind, a class of ``tfds.features`` such as ``'Text'``."""
    import tensorflow_datasets as tfds

    return [name for name, feature in features.items() if isinstance(feature, getattr(tfds.features, kind))]


def record_id(split: str, position: int) -> str:
    """The name of an example."""
    return f'{split}/{position:07d}'


def read_all(source: Any, read: Callable[[Any], _Read]) -> Iterator[_Read | Exception]:
    """For each record in order: what ``read`` makes of it, or the error raised by reading it."""
    for start in range(0, len(source), _CHUNK):
        positions = list(range(start, min(start + _CHUNK, len(source))))
        try:
            found = [read(record) for record in source.__getitems__(positions)]
        except Exception:  # one damaged record spoils its whole chunk
            found = [_read_one(source, position, read) for position in positions]
        yield from found


def _read_one(source: Any, position: int, read: Callable[[Any], _Read]) -> _Read | Exception:
    try:
        return read(source[position])
    except Exception as error:  # readers raise all kinds of errors on damaged records
        return error


def prepared_builder(name: str, directory: Path):
    """TFDS's builder of a data set, which is prepared if it is not and TensorFlow is there.

    Raises:
        UserError: no such data set, it cannot be prepared here, or only TensorFlow reads its format.
    """
    import tensorflow_datasets as tfds

    prepared = sorted(path.name for path in directory.iterdir() if path.is_dir()) if directory.is_dir() else []
    try:
        builder = tfds.builder(name, data_dir=str(directory))
    except (tfds.core.DatasetNotFoundError, ValueError):
        raise unknown('TFDS data set', name, {*tfds.list_builders(with_community_datasets=False), *prepared}) from None
    if not builder.is_prepared():
        _prepare(name, directory, prepared)
        builder = tfds.builder(name, data_dir=str(directory))
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        stored = getattr(builder.info.file_format, 'value', 'nothing known')
        raise UserError(
            f'tfds:{name} in {directory} is stored as {stored}, which only TensorFlow reads; '
            f'prepare it as array_record: {_by_hand(name, directory)}'
        )
    return builder


def tensorflow_is_installed() -> bool:
    """True if data sets can be prepared here; TensorFlow is looked for, not imported."""
    return importlib.util.find_spec('tensorflow') is not None


def _by_hand(name: str, directory: Path) -> str:
    return f'pip install tensorflow-cpu && tfds build {name} --file_format=array_record --data_dir={directory}'


def _prepare(name: str, directory: Path, prepared: list[str]) -> None:
    """Download and convert in another process, so that TensorFlow is never imported into this one."""
    if not tensorflow_is_installed():
        raise UserError(
            f'tfds:{name} is not prepared in {directory} (there: {", ".join(prepared) or "nothing"}). Name the '
            f'folder that has it with --data_dir or TFDS_DATA_DIR, or prepare it: {_by_hand(name, directory)}'
        )
    print(f'preparing tfds:{name} in {directory} with TensorFlow …', file=sys.stderr)
    command = [sys.executable, '-c', _PREPARE, name, str(directory)]
    result = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ['no message'])[-1]
        raise UserError(f'preparing tfds:{name} failed: {reason}; by hand: {_by_hand(name, directory)}')
