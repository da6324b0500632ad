"""``folder:PATH``: the user's own images, one folder per class.

Either ``PATH/train/CLASS/*`` with ``PATH/test/CLASS/*`` and ``PATH/validation/CLASS/*`` (``folder_tree`` says which
other names are understood; a missing split is taken from the training images), or just ``PATH/CLASS/*``, split by a
hash of the file's path below ``PATH``.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from backbones import images
from backbones.errors import UserError, unknown
from backbones.images import ImageReading, Inspection
from experiments.cli import display
from experiments.data import account, duplicates, folder_tree, unreadable
from experiments.data.dataset import Dataset
from experiments.data.decoding import DecodedImages, FileReader, KnownFile, content_digest, worker_threads
from experiments.data.folder_tree import ImageFile, Tree
from experiments.data.options import ReadingOptions
from experiments.data.splits import official_splits, split_by_hash


def load(path: str, options: ReadingOptions) -> Dataset:
    """Read a folder of images.

    Images that all have the same size, of at most ``stored_size`` pixels on each side, keep it; otherwise all become
    squares of that side.

    Raises:
        UserError: no such folder, no images in it, folders that can be understood in two ways, fewer than two classes,
            a class without a readable image, a class of the test images that has no training images, too many
            unreadable files (named), or images whose values have no common scale.
    """
    images.ignore_warnings_of_pillow()
    root = _existing(path)
    tree = folder_tree.read(root, options.layout, options.excluded)
    _check_not_empty(path, tree)
    checked, bad = _check_all(tree.files)
    skipped = tuple(bad.items())
    unreadable.check_limit(skipped, f'of {len(tree.files)} files in {path!r}', options.bad_files_limit)
    files = [file for file in tree.files if file.name not in bad]
    _check_every_class(path, tree, files, bad)

    number = {name: index for index, name in enumerate(tree.classes)}
    labels = np.array([number[file.label] for file in files], np.int32)
    ids = tuple(file.name for file in files)
    digests = tuple(checked[name].digest for name in ids)
    guessed = list(tree.guessed)
    groups = _groups(options.group, ids)
    if any(file.split for file in files):
        splits, how = official_splits(labels, ids, np.array([file.split for file in files]), groups=groups)
        if {file.split for file in files} == {'train', 'validation'}:
            guessed.append('there is no test split, so the validation folder serves as one')
    else:
        splits, how = split_by_hash(labels, ids, groups=groups)
    if groups is not None:
        duplicates.check_groups(groups, splits, options.group)
        _check_enough_groups(options.group, groups, splits)
    splits, noticed = duplicates.across_splits(splits, digests, labels, ids, tree.classes, options.drop_duplicates)

    inspections = [checked[name].inspection for name in ids]
    reading, rules = _reading(inspections, ids, options)
    sizes = Counter(each.size for each in inspections)
    side = options.stored_size
    uniform = len(sizes) == 1 and max(next(iter(sizes))) <= side
    width, height = next(iter(sizes)) if uniform else (side, side)
    read = FileReader([checked[name].known for name in ids], reading, None if uniform else side, options.fit)
    how_decoded = {'size': (height, width), 'fit': None if uniform else options.fit}
    if rules:  # left out where nothing depends on it, so that the digests of earlier versions hold
        how_decoded['reading'] = reading.as_json()
    content = content_digest((bytes.fromhex(digest) for digest in digests), **how_decoded)
    stored = DecodedImages(read, (len(files), height, width, 3), content).in_memory_if_small('reading images')

    return Dataset(
        name=f'folder:{path}',
        images=stored,
        targets=labels,
        ids=ids,
        classes=tree.classes,
        splits=splits,
        provenance=f'folder {folder_tree.printable(root.name)}; {how}{unreadable.skipped(skipped, "file")}',
        skipped=skipped,
        account=account.Account(
            sizes=account.sizes_in_words(sizes),
            kinds=Counter(each.kind for each in inspections),
            stored='at their own size' if uniform else f'as squares of {side}x{side} ({options.fit}, bicubic)',
            rules=tuple(rules),
            left_out={**unreadable.by_reason(skipped), **tree.left_out},
            guessed=tuple(guessed),
            noticed=(*noticed, *_noticed(inspections, ids)),
        ),
        stored_size=None if uniform else (side, side),
        reading=reading,
        digests=digests,
        file_sizes=tuple(checked[name].known.stamp[0] for name in ids),
    )


def _existing(path: str) -> Path:
    root = Path(path).expanduser()
    if root.is_dir():
        return root
    siblings = [each.name for each in root.parent.iterdir() if each.is_dir()] if root.parent.is_dir() else []
    if root.exists():
        raise UserError(f'{path!r} is a file; expected a folder with one folder per class')
    if siblings:
        raise unknown(f'folder in {root.parent}', root.name, siblings)
    raise UserError(f'there is no folder {path!r}')


def _check_not_empty(path: str, tree: Tree) -> None:
    if tree.files:
        return
    found = '; '.join(f'{kind}: {len(names):,} ({names[0]})' for kind, names in tree.left_out.items())
    raise UserError(
        f'there are no images in {path!r}; expected {path}/CLASS/*.jpg or {path}/train/CLASS/*.jpg '
        f'(any format that Pillow reads){f"; it holds {found}" if found else ""}'
    )


def _check_every_class(path: str, tree: Tree, files: Sequence[ImageFile], bad: Mapping[str, str]) -> None:
    """Refuse a class without a readable image: it would vanish, and the others would be trained without it.

    Raises:
        UserError: names the class and what lies in its folder.
    """
    split = 'train' if any(file.split for file in tree.files) else ''
    readable = {file.label for file in files if file.split == split}
    for name in tree.classes:
        if name in readable:
            continue
        unread = [bad[file.name] for file in tree.files if file.label == name and file.name in bad]
        folder = f'{split}/{name}/' if split else f'{name}/'
        others = [
            f'{kind}: {len(inside)}'
            for kind, names in tree.left_out.items()
            if (inside := [each for each in names if f'/{name}/' in f'/{each}'])
        ]
        why = [f'{count} cannot be read: {reason}' for reason, count in Counter(unread).items()] + others
        raise UserError(
            f'the class {name!r} of {path!r} has no image that can be read ({"; ".join(why) or f"{folder} is empty"}); '
            f'add images, remove the folder, or leave it out with --config.exclude={folder.rstrip("/")!r}'
        )


def _groups(pattern: str, ids: Sequence[str]) -> list[str] | None:
    """The group of each image: what the pattern finds in its path (its first group in parentheses if it has one).

    Raises:
        UserError: there are images in whose path it finds nothing.
    """
    if not pattern:
        return None
    found = [re.search(pattern, each) for each in ids]
    without = [each for each, match in zip(ids, found, strict=True) if match is None]
    if without:
        raise UserError(
            f"the pattern '{pattern}' of config key group finds nothing in {len(without):,} of {len(ids):,} paths, "
            f'such as {without[0]!r}; every image must have a group'
        )
    return [match.group(1 if match.re.groups else 0) or '' for match in found if match]


def _check_enough_groups(pattern: str, groups: Sequence[str], splits: Mapping[str, np.ndarray]) -> None:
    empty = [name for name, indices in splits.items() if len(indices) == 0]
    if empty:
        raise UserError(
            f"the pattern '{pattern}' of config key group finds {account.number_of(len(set(groups)), 'group')} in "
            f'{account.number_of(len(groups))}, too few for the {empty[0]} split; a class needs three groups for one '
            'in each split'
        )


def _reading(
    inspections: Sequence[Inspection], ids: Sequence[str], options: ReadingOptions
) -> tuple[ImageReading, list[str]]:
    """The rules for files that leave a choice, and those that apply to these images in words.

    Raises:
        UserError: some deep images hold whole and some floating-point numbers, or colours of 16 bits are too dark.
    """
    deep = [(each, name) for each, name in zip(inspections, ids, strict=True) if each.deep_range]
    rules: list[str] = []
    grey_range = None
    if deep:
        kinds = {each.deep_is_float: name for each, name in reversed(deep)}
        if len(kinds) == 2:
            raise UserError(
                f'grey images of whole numbers ({kinds[False]}) and of floating-point numbers ({kinds[True]}) have no '
                'common scale; convert them to one type'
            )
        ranges = [each.deep_range for each, _ in deep if each.deep_range]
        grey_range, rule = images.grey_range(
            min(low for low, _ in ranges), max(high for _, high in ranges), deep[0][0].deep_is_float
        )
        rules.append(f'{account.number_of(len(deep), "deep grey image")}: {rule}')
    upper = [each.upper_bits for each in inspections if each.upper_bits is not None]
    if upper:
        if max(upper) < 64:
            first = next(name for each, name in zip(inspections, ids, strict=True) if each.upper_bits is not None)
            raise UserError(
                f'{len(upper):,} images have colours of 16 bits (such as {first}), of which only the upper 8 are read; '
                f'their largest value there is {max(upper)}, so they hold fewer bits and would be nearly black; '
                'convert them to 8 bits'
            )
        rules.append(f'{account.number_of(len(upper))} with colours of 16 bits: the upper 8 bits are read')
    transparent = sum('transparency' in each.kind for each in inspections)
    if transparent:
        rules.append(f'{account.number_of(transparent)} with transparency: put on {options.background}')
    return ImageReading(grey_range, options.colour), rules


def _noticed(inspections: Sequence[Inspection], ids: Sequence[str]) -> list[str]:
    found = []
    for what, which in (
        ('with several frames or pages, of which the first is read', [each.frames for each in inspections]),
        ('with values that are NaN (read as the lowest value) or infinite', [each.not_finite for each in inspections]),
        ('of a single colour', [each.plain for each in inspections]),
    ):
        names = [name for name, holds in zip(ids, which, strict=True) if holds]
        if names:
            found.append(f'{account.number_of(len(names))} {what} (such as {names[0]})')
    return found


# --- Files. ---------------------------------------------------------------------------------------------------------


class _Checked(NamedTuple):
    """A readable file: what it holds, the digest of its bytes, and a stamp that changes with them."""

    inspection: Inspection
    known: KnownFile

    @property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return self.known.digest


def _check_all(files: Sequence[ImageFile]) -> tuple[dict[str, _Checked], dict[str, str]]:
    """Decode every file once; returns the readable files, and the reason for each unreadable one, by name."""
    good, bad = {}, {}
    with worker_threads() as pool, display.progress() as bar:
        task = bar.add_task('checking images', total=len(files), note='')
        for file, outcome in zip(files, pool.map(_check, files), strict=True):
            if isinstance(outcome, str):
                bad[file.name] = outcome
            else:
                good[file.name] = outcome
            bar.advance(task)
    return good, bad


def _check(file: ImageFile) -> _Checked | str:
    """Do what reading does."""
    if file.problem is not None:
        return file.problem
    content = b'?'
    try:
        known, content = KnownFile.read(file.path)
        return _Checked(images.inspect(content), known) if content else 'empty file'
    except Exception as error:  # decoders raise all kinds of errors on damaged files
        return images.why_unreadable(content, error)
