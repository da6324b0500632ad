"""``folder:PATH``: the user's own images, one folder per class.

Either ``PATH/train/CLASS/*`` with ``PATH/test/CLASS/*`` and ``PATH/validation/CLASS/*`` (``folder_tree`` says which
other names are understood; a missing split is taken from the training images), or just ``PATH/CLASS/*``, split by a
hash of the file's path below ``PATH``.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from backbones import images
from backbones.errors import UserError
from experiments.data import account, folder_tree, image_files, unreadable
from experiments.data.dataset import Dataset
from experiments.data.decoding import DecodedImages, FileReader, content_digest
from experiments.data.file_splits import split_files
from experiments.data.folder_tree import ImageFile, Tree
from experiments.data.options import ReadingOptions


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
    root = image_files.existing(path, 'a folder with one folder per class')
    tree = folder_tree.read(root, options.layout, options.excluded)
    _check_not_empty(path, tree)
    checked, bad = image_files.check_all(
        {file.name: file for file in tree.files}, lambda file: image_files.check(file.path, file.problem)
    )
    skipped = tuple(bad.items())
    unreadable.check_limit(skipped, f'of {len(tree.files)} files in {path!r}', options.bad_files_limit)
    files = [file for file in tree.files if file.name not in bad]
    _check_every_class(path, tree, files, bad)

    number = {name: index for index, name in enumerate(tree.classes)}
    labels = np.array([number[file.label] for file in files], np.int32)
    ids = tuple(file.name for file in files)
    digests = tuple(checked[name].digest for name in ids)
    splits = split_files(labels, ids, [file.split for file in files], digests, tree.classes, options)

    inspections = [checked[name].inspection for name in ids]
    reading, rules = image_files.reading_of(inspections, ids, options)
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
        splits=splits.indices,
        provenance=f'folder {folder_tree.printable(root.name)}; {splits.how}{unreadable.skipped(skipped, "file")}',
        skipped=skipped,
        account=account.Account(
            sizes=account.sizes_in_words(sizes),
            kinds=Counter(each.kind for each in inspections),
            stored='at their own size' if uniform else f'as squares of {side}x{side} ({options.fit}, bicubic)',
            rules=tuple(rules),
            left_out={**unreadable.by_reason(skipped), **tree.left_out},
            guessed=(*tree.guessed, *splits.guessed),
            noticed=(*splits.noticed, *image_files.noticed(inspections, ids)),
        ),
        stored_size=None if uniform else (side, side),
        reading=reading,
        digests=digests,
        file_sizes=tuple(checked[name].known.stamp[0] for name in ids),
        files=tuple(checked[name].known.path for name in ids),
    )


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
