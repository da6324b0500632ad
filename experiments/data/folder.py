"""``folder:PATH``: the user's own images, one folder per class.

Either ``PATH/train/CLASS/*`` with ``PATH/test/CLASS/*`` and ``PATH/validation/CLASS/*`` (or ``val``; a missing split is
taken from the training images), or just ``PATH/CLASS/*``, split by a hash of the file's path below ``PATH``.
"""

import hashlib
import io
import os
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from backbones.errors import UserError, unknown
from experiments.cli import display
from experiments.data import unreadable
from experiments.data.dataset import Dataset, official_splits, split_by_hash
from experiments.data.decoding import DecodedImages, content_digest, fit_to_square, worker_threads

SPLIT_FOLDERS = {'train': 'train', 'validation': 'validation', 'val': 'validation', 'test': 'test'}
IMAGE_SUFFIXES = frozenset(Image.registered_extensions())
_TURNED = (-1, -1)  # in place of the size of an image with a camera's orientation tag


def load(path: str, image_size: int, bad_files_limit: int, fit: str = 'crop') -> Dataset:
    """Read a folder of images.

    Images that all have the same size keep it; otherwise all become squares of ``image_size`` pixels.

    Args:
        path: the folder.
        image_size: side of the squares in pixels.
        bad_files_limit: unreadable files are named, counted and skipped up to this number.
        fit: how images become square (``decoding.fit_to_square``).

    Raises:
        UserError: no such folder, no images in it, fewer than two classes, a class of the test images that has no
            training images, or too many unreadable files (named).
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        siblings = [each.name for each in root.parent.iterdir() if each.is_dir()] if root.parent.is_dir() else []
        if siblings:
            raise unknown(f'folder in {root.parent}', root.name, siblings)
        raise UserError(f'there is no folder {path!r}')
    files = _list_images(root)
    if not files:
        raise UserError(
            f'there are no images in {path!r}; expected {path}/CLASS/*.jpg or {path}/train/CLASS/*.jpg '
            '(any format that Pillow reads)'
        )

    checked, bad = _check_all([file for *_, file in files])
    skipped = tuple((str(file.relative_to(root)), reason) for file, reason in bad.items())
    unreadable.report(skipped, f'of {len(files)} files in {path!r}', bad_files_limit)
    files = [(split, name, file) for split, name, file in files if file not in bad]

    classes = tuple(sorted({name for split, name, _ in files if split in ('', 'train')}))
    strangers = sorted({name for _, name, _ in files} - set(classes))
    if strangers and classes:
        raise unknown(
            f'class (in a test or validation folder of {path!r}, without training images)', strangers[0], classes
        )
    labels = np.array([classes.index(name) for _, name, _ in files], np.int32)
    ids = tuple(file.relative_to(root).as_posix() for *_, file in files)
    if any(split for split, *_ in files):
        splits, how = official_splits(labels, ids, np.array([split for split, *_ in files]))
    else:
        splits, how = split_by_hash(labels, ids)

    sizes = {each.size for each in checked.values()}
    uniform = len(sizes) == 1 and _TURNED not in sizes
    width, height = next(iter(sizes)) if uniform else (image_size, image_size)

    def read(index: int) -> np.ndarray:
        file = files[index][2]
        known, content = checked[file], file.read_bytes()
        # The stamp is cheap to compare; a file that was only copied back has a new stamp but the same digest.
        if _stamp(file) != known.stamp and hashlib.sha256(content).digest() != known.digest:
            raise UserError('the file has changed since the data set was loaded; start again')
        with Image.open(io.BytesIO(content)) as image:
            return np.asarray(image.convert('RGB')) if uniform else fit_to_square(image, image_size, fit)

    how_decoded = {'size': (height, width), 'fit': None if uniform else fit}
    content = content_digest((checked[file].digest for *_, file in files), **how_decoded)
    images = DecodedImages(read, (len(files), height, width, 3), content).in_memory_if_small()
    provenance = f'folder {root.name}; {how}; {len(skipped)} unreadable files skipped'
    return Dataset(f'folder:{path}', images, labels, ids, classes, splits, provenance, skipped)


def _list_images(root: Path) -> list[tuple[str, str, Path]]:
    """``(split, class, file)`` of every image, sorted; the split is empty if no folder names one."""
    tops = {each.name for each in root.iterdir() if each.is_dir() and not each.name.startswith('.')}
    prefixes = [(split, root / name) for name, split in SPLIT_FOLDERS.items() if name in tops]
    if 'train' not in tops:
        prefixes = [('', root)]
    found = []
    for split, folder in prefixes:
        for class_folder in sorted(
            each for each in folder.iterdir() if each.is_dir() and not each.name.startswith('.')
        ):
            for directory, folders, names in os.walk(class_folder):
                folders.sort()
                for name in sorted(names):
                    if not name.startswith('.') and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                        found.append((split, class_folder.name, Path(directory) / name))
    return found


class _Checked(NamedTuple):
    """A readable file: the size of its image, the digest of its bytes, and a stamp that changes with them."""

    size: tuple[int, int]
    digest: bytes
    stamp: tuple[int, ...]


def _stamp(file: Path) -> tuple[int, ...]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _check_all(files: list[Path]) -> tuple[dict[Path, _Checked], dict[Path, str]]:
    """Decode every file once; returns the readable files, and the reason for each unreadable one."""
    good, bad = {}, {}
    with worker_threads() as pool, display.progress() as bar:
        task = bar.add_task('checking images', total=len(files), note='')
        for file, outcome in zip(files, pool.map(_check, files), strict=True):
            if isinstance(outcome, str):
                bad[file] = outcome
            else:
                good[file] = outcome
            bar.advance(task)
    return good, bad


def _check(file: Path) -> _Checked | str:
    try:
        stamp = _stamp(file)
        content = file.read_bytes()
        if not content:
            return 'empty file'
        digest = hashlib.sha256(content).digest()
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # odd metadata and large images are no reason to skip a file
            with Image.open(io.BytesIO(content)) as image:
                turned = image.getexif().get(0x0112, 1) > 1
                image.convert('RGB')
                # Only fit_to_square applies the tag, so such an image must not be stored at its own size.
                return _Checked(_TURNED if turned else image.size, digest, stamp)
    except Exception as error:  # decoders raise all kinds of errors on damaged files
        return unreadable.reason(error, str(file))
