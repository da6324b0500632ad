"""Which kind of data set a folder seems to be, to help whoever named another one."""

import contextlib
from pathlib import Path
from typing import NamedTuple

from backbones.errors import UserError
from experiments.data import text_files
from experiments.data.truth import IN_WORDS, TruthKind

# Where labels of YOLO lie, for folders whose ``data.yaml`` is missing.
_YOLO_LABELS = ('labels/*.txt', 'labels/*/*.txt', '*/labels/*.txt')
# Folders that are a part of such a data set.
_PARTS = ('JPEGImages', 'Annotations', 'SegmentationClass', 'annotations', 'images', 'labels', 'masks')
_COCO = ('annotations/*.json', '*/_annotations.coco.json')


class LikelyKind(NamedTuple):
    """What a folder seems to be.

    Attributes:
        kind: what precedes the colon in the name of such a data set.
        what: what it holds, in words.
    """

    kind: str
    what: str


def recognise(root: Path) -> list[LikelyKind]:
    """The kinds of data sets but ``folder`` that the names of folders and files go with, the most likely first."""

    def holds(*patterns: str) -> bool:
        return any(next(root.glob(pattern), None) for pattern in patterns)

    found = []
    if (root / 'JPEGImages').is_dir():
        found.append(LikelyKind('voc', "images in Pascal VOC's layout"))
    if holds(*_COCO):
        found.append(LikelyKind('coco', "images in COCO's layout"))
    if holds('data.yaml', *_YOLO_LABELS):
        found.append(LikelyKind('yolo', "images in YOLO's layout"))
    # A folder of masks alone may be a class of people who wear them.
    if any(holds(f'{place}masks/') and holds(f'{place}images/') for place in ('', 'train/')) or holds('trainannot/'):
        found.append(LikelyKind('masks', 'images and masks'))
    with contextlib.suppress(OSError):  # a folder that cannot be listed goes with nothing, as for a pattern
        # Beside folders, a train.csv may list the images in them.
        if not any(each.is_dir() for each in root.iterdir()):
            found += [LikelyKind(kind, 'texts') for kind in text_files.SUFFIXES if text_files.is_folder_of(kind, root)]
    return found


def with_hint(
    error: UserError, kind: str, path: str, truths: dict[str, tuple[TruthKind, ...]], truth: TruthKind
) -> UserError:
    """The error of reading a folder as one kind, with the kind that it seems to be where that is another one.

    Args:
        error: what is wrong with it.
        kind: the kind that it was read as.
        path: the folder.
        truths: kind → what such data sets say about images.
        truth: what it was to say.
    """
    root = Path(path).expanduser()
    if root.is_file() and (of_texts := text_files.kind_of(root)):
        return UserError(f"{error}; a file of texts is named '{of_texts}:{path}'")
    likely = recognise(root) if root.is_dir() else []
    if not likely and root.name in _PARTS:
        path, likely = str(root.parent), recognise(root.parent)
    elif kind in [each.kind for each in likely]:
        return error
    if not likely:
        return error
    named, what = likely[0]
    there = truths[named]
    which = '' if truth in there else f' and has {" and ".join(IN_WORDS[each] for each in there)} (config key task)'
    return UserError(f"{error}; {path!r} looks like a folder of {what}, which is named '{named}:{path}'{which}")
