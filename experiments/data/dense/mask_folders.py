"""``masks:PATH``: folders of images and folders of masks, for segmentation.

One of these layouts, where the folders may have any of the names in ``_IMAGES`` and ``_MASKS``, and ``train`` any name
of a split::

    PATH/train/images/a.jpg    PATH/train/masks/a.png
    PATH/images/train/a.jpg    PATH/masks/train/a.png
    PATH/images/a.jpg          PATH/masks/a.png           split by a hash of the name
    PATH/train/a.png           PATH/trainannot/a.png      CamVid as SegNet has it
    PATH/imagesTr/a.png        PATH/labelsTr/a.png        and imagesTs, labelsTs, as in the medical decathlon

A mask is found by the name of its image without the suffix; it may end in ``_mask`` or the like.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from backbones.errors import UserError, listed
from experiments.data import image_files
from experiments.data.dataset import Dataset
from experiments.data.dense import assemble
from experiments.data.dense.annotations import AnnotatedImage, Annotations
from experiments.data.dense.folder_files import Files
from experiments.data.dense.label_tables import class_names, label_table
from experiments.data.dense.mask_files import MaskFile
from experiments.data.folder_tree import SPLITS
from experiments.data.options import ReadingOptions

_IMAGES = ('images', 'image', 'imgs', 'img', 'jpegimages', 'inputs', 'rgb')
_MASKS = (
    'masks', 'mask', 'labels', 'label', 'annotations', 'annotation', 'annot', 'segmentationclass', 'segmentation', 'gt',
    'ground_truth', 'groundtruth', 'targets',
)  # fmt: skip
_MASK_ENDINGS = ('_mask', '_masks', '_label', '_labels', '_seg', '_gt', '_L', '-mask', '_annotation')
_IMAGE_ENDINGS = ('_image', '_img', '_0000')
_DECATHLON = {'tr': 'train', 'ts': 'test'}
_LAYOUT = 'PATH/train/images and PATH/train/masks, or PATH/images and PATH/masks'


class _Pair(NamedTuple):
    """A folder of images and the folder of their masks."""

    split: str
    images: Path
    masks: Path


def load(path: str, options: ReadingOptions) -> Dataset:
    """Read images and their masks from folders.

    Args:
        path: the folder that holds them.
        options: how they are read.

    Raises:
        UserError: no such folder, another layout, colours that no file explains, or see ``assemble``.
    """
    root = image_files.existing(path, 'a folder with folders of images and of masks')
    files = Files(root, options.excluded)
    names = class_names(root, options.class_names)
    pairs, guessed = _pairs(path, files)
    found: list[AnnotatedImage] = []
    left_out: dict[str, tuple[str, ...]] = {}
    for pair in pairs:
        masks = _by_name(pair.masks, files)
        used = set()
        for name, image in _by_name(pair.images, files).items():
            mask = _mask_of(name, masks)
            used.add(mask)
            source = None if mask is None else MaskFile(mask, names.by_colour)
            problem = None if mask else f'it has no mask in {files.name(pair.masks)}/'
            found.append(AnnotatedImage(files.name(image), image, pair.split, mask=source, problem=problem))
        alone = tuple(files.name(each) for each in masks.values() if each not in used)
        if alone:
            left_out['mask without an image'] = (*left_out.get('mask without an image', ()), *alone)
    if names.source:
        guessed.append(f'the classes of masks are those of {names.source}')
    annotations = Annotations(tuple(found), (), 'masks', left_out=left_out, guessed=tuple(guessed))
    return assemble.with_masks(
        f'masks:{path}',
        files,
        annotations,
        options,
        lambda counts, first: label_table(counts, first, names, options.ignore_label, path),
    )


def _by_name(folder: Path, files: Files) -> dict[str, Path]:
    """The images below a folder by their path there without the suffix.

    Raises:
        UserError: two have the same, so that nothing tells which mask is of which image.
    """
    found: dict[str, Path] = {}
    for image in files.images(folder):
        name = image.relative_to(folder).with_suffix('').as_posix()
        other = found.setdefault(name, image)
        if other is not image:
            raise UserError(
                f'{files.name(other)!r} and {files.name(image)!r} have the same name, so that nothing tells which mask '
                f'is of which image; leave one out with --config.exclude={files.name(image)!r}'
            )
    return found


def _mask_of(name: str, masks: dict[str, Path]) -> Path | None:
    shorter = [name.removesuffix(ending) for ending in _IMAGE_ENDINGS if name.endswith(ending)]
    for stem in (name, *shorter):
        for ending in ('', *_MASK_ENDINGS):
            if stem + ending in masks:
                return masks[stem + ending]
    return None


def _pairs(path: str, files: Files) -> tuple[list[_Pair], list[str]]:
    """The folders of images and masks.

    Raises:
        UserError: there are none, two of the same split, or none for training.
    """
    tops = {each.name.lower(): each for each in files.folders(files.root)}
    found = [*_in_splits(tops, files), *_annot(tops), *_of_kinds(tops, files), *_decathlon(tops)]
    if not found:
        there = listed((f'{each.name}/' for each in tops.values()), 6) or 'no folders'
        raise UserError(
            f'there are no folders of images and masks in {path!r}, but {there}; expected {_LAYOUT} (masks may also be '
            f'called {", ".join(_MASKS[2:6])})'
        )
    for pair in found:
        same = [other for other in found if other.split == pair.split and other is not pair]
        if same:
            raise UserError(
                f'both {files.name(pair.images)}/ and {files.name(same[0].images)}/ in {path!r} are '
                f'{pair.split or "images"}; leave one out with --config.exclude'
            )
    guessed = [
        f'{files.name(pair.images)}/ is the {pair.split} split'
        for pair in found
        if pair.split and not {'train', 'val', 'validation', 'test'} & {*pair.images.relative_to(files.root).parts}
    ]
    return found, guessed


def _child(folder: Path, names: Sequence[str], files: Files) -> Path | None:
    inside = {each.name.lower(): each for each in files.folders(folder)}
    return next((inside[name] for name in names if name in inside), None)


def _in_splits(tops: dict[str, Path], files: Files) -> list[_Pair]:
    found = []
    for name, folder in tops.items():
        if name in SPLITS:
            images, masks = _child(folder, _IMAGES, files), _child(folder, _MASKS, files)
            if images and masks:
                found.append(_Pair(SPLITS[name], images, masks))
    return found


def _annot(tops: dict[str, Path]) -> list[_Pair]:
    return [
        _Pair(SPLITS[name], folder, tops[f'{name}annot'])
        for name, folder in tops.items()
        if name in SPLITS and f'{name}annot' in tops
    ]


def _of_kinds(tops: dict[str, Path], files: Files) -> list[_Pair]:
    images = next((tops[name] for name in _IMAGES if name in tops), None)
    masks = next((tops[name] for name in _MASKS if name in tops), None)
    if images is None or masks is None:
        return []
    splits = {each.name.lower(): each for each in files.folders(images) if each.name.lower() in SPLITS}
    of_masks = {each.name.lower(): each for each in files.folders(masks)}
    if not splits:
        return [_Pair('', images, masks)]
    return [_Pair(SPLITS[name], folder, of_masks[name]) for name, folder in splits.items() if name in of_masks]


def _decathlon(tops: dict[str, Path]) -> list[_Pair]:
    return [
        _Pair(split, tops[f'images{ending}'], tops[f'labels{ending}'])
        for ending, split in _DECATHLON.items()
        if f'images{ending}' in tops and f'labels{ending}' in tops
    ]
