"""The annotation files of a data set in the layout of COCO, the split of each, and where its images lie."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from backbones.errors import UserError, listed
from experiments.data.dense.folder_files import Files
from experiments.data.folder_tree import SPLITS

_JSON = frozenset({'.json'})
_ROBOFLOW = '_annotations.coco.json'
_LAYOUT = 'annotations/instances_train.json beside train/, or train/_annotations.coco.json among the images'


class AnnotationFile(NamedTuple):
    """An annotation file.

    Attributes:
        name: its path below the root.
        split: ``'train'``, ``'validation'``, ``'test'``, or empty for the only file whose name says none.
        images, annotations, categories: as the file has them, each with its ``id``.
        folders: where its images may lie, the most likely first.
    """

    name: str
    split: str
    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    folders: tuple[Path, ...]

    def find(self, image: str) -> Path:
        """The file of an image; where it is not there, where it should be."""
        for folder in self.folders:
            for name in (image, Path(image).name):
                if _is_file(folder / name):
                    return folder / name
        return self.folders[0] / image


def _is_file(path: Path) -> bool:
    """Whether a file is there; a name that is too long for one is not."""
    try:
        return path.is_file()
    except OSError:
        return False


def one_file(path: str) -> Path | None:
    """The annotation file that a user names in place of a folder, if it is one.

    Raises:
        UserError: it is a file of another kind.
    """
    given = Path(path).expanduser()
    if not _is_file(given):
        return None
    if given.suffix.lower() not in _JSON:
        raise UserError(f'{path!r} is no JSON file; expected an annotation file, or a folder with {_LAYOUT}')
    return given


def root_of(path: str) -> Path:
    """The folder of a data set, which may be named by one of its annotation files."""
    given = Path(path).expanduser()
    if not _is_file(given):
        return given
    folder = given.absolute().parent
    return folder.parent if folder.name == 'annotations' else folder


def annotation_files(path: str, files: Files) -> tuple[list[AnnotationFile], tuple[str, ...]]:
    """Read the annotation files of a data set, and name those that are none.

    Args:
        path: of the data set, as given by the user. Where it is a file, that is all, and of no split, whatever its
            name.
        files: its files.

    Raises:
        UserError: there are none, one is damaged, or their names do not tell which split each is of.
    """
    alone = one_file(path)
    found, others = ([alone], []) if alone else _candidates(files)
    if not found:
        there = listed(sorted(each.name for each in files.root.iterdir()), 6)
        if not there:
            raise UserError(f'{path!r} is an empty folder; expected {_LAYOUT}')
        raise UserError(f'there are no annotation files in {path!r}, but {there}; expected {_LAYOUT}')
    read: list[AnnotationFile] = []
    for file in found:
        document = _document(file, files.name(file))
        if document is None:
            others.append(file)
            continue
        split = _split(file, files, alone=len(found) == 1)
        same = [each.name for each in read if each.split == split]
        if same:
            raise UserError(
                f'both {same[0]} and {files.name(file)} in {path!r} are of the {split} split; leave one out with '
                f'--config.exclude={files.name(file)!r}'
            )
        parts = (document[key] for key in ('images', 'annotations', 'categories'))
        folders = _folders(file, files, split)
        read.append(AnnotationFile(files.name(file), '' if alone else split, *parts, folders))
    if not read:
        raise UserError(
            f'no file of {path!r} annotates objects ({listed(map(files.name, others))}); expected {_LAYOUT}'
        )
    return read, tuple(map(files.name, others))


def _candidates(files: Files) -> tuple[list[Path], list[Path]]:
    """The files that should hold objects, and others beside them."""
    folder = files.root / 'annotations'
    found = files.below(folder, _JSON) if folder.is_dir() else []
    if not found:
        found = [each / _ROBOFLOW for each in (files.root, *files.folders(files.root)) if (each / _ROBOFLOW).is_file()]
    if not found:
        found = [each for each in sorted(files.root.glob('*.json')) if files.is_used(each)]
    # COCO describes the same images in files of captions and keypoints.
    objects = [each for each in found if each.name.startswith('instances')]
    return objects or found, [each for each in found if objects and each not in objects]


def _document(file: Path, name: str) -> dict[str, Any] | None:
    """The content of a file, or ``None`` if it annotates no objects.

    Raises:
        UserError: it is damaged, or an entry lacks what each needs.
    """
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f'{str(file)!r} cannot be read: {error}') from None
    if not isinstance(found, dict) or not all(
        isinstance(found.get(key), list) for key in ('images', 'annotations', 'categories')
    ):
        return None
    first = [each for each in found['annotations'][:100] if isinstance(each, dict)]
    if first and not any('category_id' in each for each in first):
        return None
    for key, needed in (
        ('images', ('id', 'file_name')),
        ('annotations', ('id', 'image_id', 'category_id')),
        ('categories', ('id', 'name')),
    ):
        for place, each in enumerate(found[key]):
            for field in needed:
                value = each.get(field) if isinstance(each, dict) else None
                if not isinstance(value, int | str):
                    told = 'has no' if value is None else f'has {value!r} as'
                    raise UserError(f'{name}: entry {place} of {key} {told} {field!r}; expected a number or text')
    return found


def _split(file: Path, files: Files, alone: bool) -> str:
    stem = file.parent.name if file.name == _ROBOFLOW else file.stem
    words = {SPLITS[word] for word in re.findall('[a-z]+', stem.lower()) if word in SPLITS}
    if len(words) == 1:
        return words.pop()
    if alone:
        return ''
    raise UserError(
        f'the name of {files.name(file)!r} does not tell which split it annotates; it should contain one of '
        f'{", ".join(SPLITS)}, or be left out with --config.exclude={files.name(file)!r}'
    )


def _folders(file: Path, files: Files, split: str) -> tuple[Path, ...]:
    bases = dict.fromkeys((file.parent, files.root, files.root / 'images'))
    name = file.stem.removeprefix('instances_')
    found = [base / name for base in bases]
    for base in bases:
        if base.is_dir() and split:
            found += [each for each in files.folders(base) if SPLITS.get(each.name.lower()) == split]
    found += [base / 'images' for base in bases] + [*bases]
    return tuple(folder for folder in dict.fromkeys(found) if folder.is_dir())


def strangers(read: Sequence[AnnotationFile], used: Sequence[Path], files: Files) -> tuple[str, ...]:
    """Images that lie among those that are listed, and are not listed themselves."""
    known = set(used)
    folders = {path.parent for path in used if _is_file(path)}
    tops = {folder for folder in folders if not any(other in folder.parents for other in folders)}
    found = {path for folder in tops for path in files.images(folder)}
    return tuple(sorted(files.name(path) for path in found - known))
