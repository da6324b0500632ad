"""Names of the classes of the data sets on which published models were trained, in the order of their outputs."""

from collections.abc import Sequence
from pathlib import Path

from backbones.errors import UserError

_DIRECTORY = Path(__file__).parent / 'class_names'
# COCO counts its categories from 1 to 90, and ten of these numbers have no category.
_NO_CATEGORY = ('__background__', 'N/A')


def imagenet() -> tuple[str, ...]:
    """The 1,000 classes of ILSVRC 2012, in the order of their WordNet ids, with the usual short names."""
    return tuple((_DIRECTORY / 'imagenet.txt').read_text().splitlines())


def imagenet_wordnet_ids() -> tuple[str, ...]:
    """The WordNet ids of the 1,000 classes of ILSVRC 2012, in their order."""
    return tuple((_DIRECTORY / 'imagenet_wordnet_ids.txt').read_text().splitlines())


def coco(numbers: int) -> tuple[str, ...]:
    """The categories of COCO, by their numbers or without gaps.

    Args:
        numbers: 91: number 0 is the background, and ten others are of no category; 90: without the background; 80: the
            categories that there are.

    Raises:
        UserError: any other count.
    """
    names = tuple((_DIRECTORY / 'coco.txt').read_text().splitlines())
    if numbers in (len(names), len(names) - 1):
        return names[-numbers:]
    real = tuple(name for name in names if name not in _NO_CATEGORY)
    if numbers == len(real):
        return real
    raise UserError(
        f'COCO has {len(names)} numbers with that of the background, and {len(real)} categories, not {numbers}'
    )


def coco_ids(names: Sequence[str]) -> tuple[int | None, ...] | None:
    """COCO's numbers of classes, ``None`` for those that are no category; ``None`` if they are not COCO's classes."""
    numbered = coco(91)
    ids = [None if name in _NO_CATEGORY else index for index, name in enumerate(numbered)]
    for found in (ids, ids[1:], [each for each in ids if each is not None]):
        if tuple(names) == coco(len(found)):
            return tuple(found)
    return None


def voc() -> tuple[str, ...]:
    """Background and the 20 classes of Pascal VOC."""
    return (
        '__background__', 'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow',
        'diningtable', 'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor',
    )  # fmt: skip


def of_published(task: str, count: int) -> tuple[str, ...]:
    """The names of the outputs of a published model, by task and number of classes; numbers where these say nothing."""
    if task == 'classification' and count == 1000:
        return imagenet()
    if task == 'segmentation' and count == 21:
        return voc()
    if task == 'detection' and count in (80, 90, 91):
        return coco(count)
    return tuple(map(str, range(count)))
