"""``yolo:PATH``: the layout of Ultralytics' YOLO, for detection: a ``data.yaml``, images, and one text file for each.

``PATH`` is the YAML file or its folder. ``train``, ``val`` and ``test`` name folders of images, or files that list
them, or several of these, relative to ``path`` or to the YAML file. The labels of ``…/images/a.jpg`` are in
``…/labels/a.txt``, one object a line: number of its class, centre, width and height as shares of the image's; or the
corners of a polygon, of which the box is used. An image without a label file has no objects.

Source of the format: ultralytics ``data/utils.py``, ``check_det_dataset``, ``img2label_paths``, ``verify_image_label``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from backbones import images
from backbones.errors import UserError, listed
from experiments.data import image_files
from experiments.data.account import number_of
from experiments.data.dataset import Dataset
from experiments.data.dense import assemble
from experiments.data.dense.annotations import AnnotatedImage, Annotations, digest_of
from experiments.data.dense.folder_files import Files
from experiments.data.dense.yolo_labels import parse
from experiments.data.folder_tree import SPLITS
from experiments.data.options import ReadingOptions

_SPLITS = ('train', 'val', 'test')
_YAML = ('data.yaml', 'data.yml', 'dataset.yaml')


class _Description(NamedTuple):
    """What a YAML file says.

    Attributes:
        file: where it is.
        root: the folder that paths are relative to.
        splits: ``'train'``, ``'val'``, ``'test'`` → folders of images or files that list them.
        names: number of a class → its name.
        keypoints: whether labels hold keypoints after the box.
        guessed: for the account.
    """

    file: Path
    root: Path
    splits: Mapping[str, tuple[Path, ...]]
    names: Mapping[int, str]
    keypoints: bool
    guessed: tuple[str, ...]


def load(path: str, options: ReadingOptions) -> Dataset:
    """Read a data set in the layout of YOLO.

    Args:
        path: the YAML file, or its folder.
        options: how it is read.

    Raises:
        UserError: no such file, one that does not describe a data set, images that are not there, or see ``assemble``.
    """
    described = _described(path)
    files = Files(described.root, options.excluded)
    found: list[AnnotatedImage] = []
    unlabelled: list[str] = []
    doubles: list[str] = []
    for split, places in described.splits.items():
        for image in (each for place in places for each in _images(place, described, files)):
            label = _label_file(image)
            name = files.name(image)
            try:
                text = label.read_text(encoding='utf-8-sig', errors='replace')
            except FileNotFoundError:
                unlabelled.append(name)
                text = ''
            except OSError as error:
                problem = f'its labels cannot be read ({error.strerror})'
                found.append(AnnotatedImage(name, image, SPLITS[split], problem=problem))
                continue
            objects, twice = parse(text, described.names, described.keypoints)
            doubles += [f'{name} line {number}' for number in twice]
            digest = digest_of(text)
            found.append(AnnotatedImage(name, image, SPLITS[split], objects, digest=digest))
    if found and len(unlabelled) == len(found):
        raise UserError(
            f'none of the {len(found):,} images of yolo:{path} has a label file; the labels of {found[0].name!r} are '
            f'expected in {str(_label_file(found[0].path))!r}'
        )
    annotations = Annotations(
        images=tuple(found),
        classes=tuple(described.names.values()),
        format='YOLO',
        normalised=True,
        upright=True,  # OpenCV, with which YOLO's images are read, turns them
        left_out={'label given twice': tuple(doubles)} if doubles else {},
        guessed=described.guessed,
        noticed=(f'{number_of(len(unlabelled))} without a label file, so without objects ({listed(unlabelled)})',)
        if unlabelled
        else (),
    )
    return assemble.with_boxes(f'yolo:{path}', files, annotations, options)


def folders(path: str) -> list[Path]:
    """All folders that a data set is read from; empty if it cannot be read."""
    try:
        described = _described(path)
    except UserError:
        return []
    places = [place if place.is_dir() else place.parent for each in described.splits.values() for place in each]
    labels = [_label_file(place / 'a.jpg').parent for place in places]
    tops = sorted({each.resolve() for each in (described.file.parent, *places, *labels) if each.is_dir()})
    # Files that list images may name any others.
    if any(place.is_file() for each in described.splits.values() for place in each):
        tops.append(described.root.resolve())
    return [each for each in dict.fromkeys(tops) if not any(other in each.parents for other in tops)]


# --- The YAML file. ---------------------------------------------------------------------------------------------------


def _described(path: str) -> _Description:
    file = _yaml_file(path)
    try:
        # As text alone: YAML takes a class called 'no' for a truth value.
        document = yaml.load(file.read_text(encoding='utf-8-sig'), yaml.BaseLoader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f'{str(file)!r} cannot be read: {" ".join(str(error).split())}') from None
    if not isinstance(document, dict) or not document.get('train'):
        keys = listed(document, 6) if isinstance(document, dict) else 'no keys'
        raise UserError(f'{str(file)!r} names no images for training: it needs the key train, and has {keys}')
    guessed: list[str] = []
    root = file.parent
    if given := document.get('path'):
        stated = (root / Path(str(given)).expanduser()).resolve()
        if stated.is_dir():
            root = stated
        else:
            guessed.append(f'{given!r}, the path in {file.name}, is not there, so the folder of that file is meant')
    splits = {}
    for split in _SPLITS:
        places = document.get(split) or []
        places = [places] if isinstance(places, str) else places
        if places:
            splits[split] = tuple(_place(each, root, file, split, guessed) for each in places)
    names = _names(document, file)
    return _Description(file, root, splits, names, 'kpt_shape' in document, tuple(guessed))


def _yaml_file(path: str) -> Path:
    given = Path(path).expanduser()
    if given.is_file():
        if given.suffix.lower() in ('.yaml', '.yml'):
            return given
        raise UserError(f'{path!r} is no YAML file; expected a data.yaml, or the folder that holds it')
    root = image_files.existing(path, 'a folder with a data.yaml')
    for name in _YAML:
        if (root / name).is_file():
            return root / name
    others = sorted((*root.glob('*.yaml'), *root.glob('*.yml')))
    if len(others) == 1:
        return others[0]
    if others:
        raise UserError(f'{path!r} has several YAML files; name one of them, such as yolo:{others[0]}')
    raise UserError(f'there is no data.yaml in {path!r}; it names the folders of images and the classes')


def _place(given: str, root: Path, file: Path, split: str, guessed: list[str]) -> Path:
    """A folder of images or a file that lists them.

    Raises:
        UserError: it is not there.
    """
    given = str(given)
    stated = root / Path(given).expanduser()
    if stated.exists():
        return stated
    # Roboflow writes '../train/images' where 'train/images' is meant.
    if given.startswith('../') and (root / given[3:]).exists():
        guessed.append(f'{given!r} in {file.name} is not there, so {given[3:]!r} is meant')
        return root / given[3:]
    raise UserError(
        f'{str(file)!r} names {given!r} for {split}, but {str(stated)!r} is not there; correct the key, or path'
    )


def _names(document: Mapping, file: Path) -> dict[int, str]:
    names = document.get('names')
    try:
        if isinstance(names, dict):
            found = {int(number): str(name) for number, name in names.items()}
        elif isinstance(names, list):
            found = {number: str(name) for number, name in enumerate(names)}
        else:
            found = {number: f'class {number}' for number in range(int(document['nc']))}
        given = names.values() if isinstance(names, dict) else names if isinstance(names, list) else ()
        if not found or min(found) < 0 or not all(isinstance(name, str) for name in given):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f'{str(file)!r} does not name the classes: it needs the key names, a list or numbers with names'
        ) from None
    twice = [name for name in found.values() if list(found.values()).count(name) > 1]
    if twice:
        raise UserError(f'{str(file)!r} names the class {twice[0]!r} twice')
    return dict(sorted(found.items()))


# --- Images. ----------------------------------------------------------------------------------------------------------


def _images(place: Path, described: _Description, files: Files) -> Sequence[Path]:
    if place.is_dir():
        found = files.images(place)
        if not found:
            raise UserError(f'there are no images in {str(place)!r}, which {described.file.name} names')
        return found
    if place.suffix.lower() in images.suffixes():
        return [place]
    text = place.read_text(encoding='utf-8-sig', errors='surrogateescape')
    if '\0' in text:  # no path holds one
        raise UserError(f'{str(place)!r}, which {described.file.name} names, is no text file that lists images')
    lines = [line.strip() for line in text.splitlines()]
    return [_listed_image(line, place, described.root) for line in lines if line]


def _listed_image(line: str, place: Path, root: Path) -> Path:
    """An image that a file lists: relative to that file where it begins with a dot, else to the root or that file."""
    beside = place.parent / line
    try:
        there = line.startswith('.') or beside.exists()
    except OSError:  # no path, but a text of another kind
        there = True
    return beside if there else root / line


def _label_file(image: Path) -> Path:
    """The label file of an image: the last folder ``images`` in its path becomes ``labels``."""
    parts = list(image.parts)
    places = [place for place, part in enumerate(parts[:-1]) if part == 'images']
    if places:
        parts[places[-1]] = 'labels'
    return Path(*parts).with_suffix('.txt')
