"""Detectors, images and objects that torchvision and our tests both make from a seed; what torchvision answers is kept.

Only numpy, and of it only ``RandomState``, whose stream of numbers is frozen for good.
"""

import dataclasses
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

DIRECTORY = Path(__file__).parent

# A ResNet with basic blocks, narrow enough to run in a test. Torchvision's p6 is made of p5 if C5 is as wide as that.
NARROW = {'depths': (1, 1, 1, 1), 'channels': (12, 24, 48, 96), 'stem_channels': 8}
# Options beyond those of the head, as ``create_detector`` takes them.
_V2 = {'neck_options': {'extra_from_stage': True}, 'head_options': {'norm': 'group', 'box_loss': 'giou'}}


@dataclasses.dataclass(frozen=True)
class Case:
    """A detector and what it is asked.

    Attributes:
        kind: a row of ``published_models.TABLE``.
        sizes: height and width of each image; one image has no objects if there are more than two.
        min_size, max_size: to which they are resized.
        classes: number of classes.
        seed: of weights, images and objects.
        narrow: whether the backbone is ``NARROW`` and the neck has 64 channels; otherwise it is the published model.
    """

    kind: str
    sizes: tuple[tuple[int, int], ...] = ((75, 101), (120, 64), (64, 64))
    min_size: int = 96
    max_size: int = 141
    classes: int = 5
    seed: int = 0
    narrow: bool = True

    @property
    def path(self) -> Path:
        """Where torchvision's answers are kept."""
        return DIRECTORY / f'{self.kind}.npz'

    @property
    def frozen(self) -> bool:
        """Whether the backbone has FrozenBatchNorm2d."""
        return not self.kind.endswith('v2')

    @property
    def epsilon(self) -> float:
        """Epsilon of the backbone's BatchNorms."""
        return 0.0 if self.kind == 'retinanet_resnet50_fpn' else 1e-5

    def arguments(self) -> dict[str, Any]:
        """What ``create_published`` is called with, without the backbone's own options."""
        if not self.narrow:
            return {'num_classes': self.classes}
        neck = {'channels': 64, **(_V2['neck_options'] if self.kind.endswith('v2') else {})}
        return {'num_classes': self.classes, 'neck_options': neck}


CASES = tuple(Case(kind) for kind in ('fcos_resnet50_fpn', 'retinanet_resnet50_fpn', 'retinanet_resnet50_fpn_v2'))


def _random(case: Case, what: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(f'{case.kind}/{what}'.encode()) ^ case.seed)


def array(case: Case, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """One entry of the state dictionary: statistics, biases and scales that all matter."""
    if key.endswith('num_batches_tracked'):
        return np.zeros(shape, np.int64)
    random = _random(case, key)
    noise = random.uniform(-(3**0.5), 3**0.5, shape)
    body = key.startswith('backbone.body')
    if key.endswith('running_var'):
        values = 0.01 * random.uniform(0.5, 1.5, shape)
    elif key.endswith('running_mean'):
        values = 0.02 * noise
    elif len(shape) == 1 and key.endswith('weight'):  # of a normalisation
        values = random.uniform(0.5, 1.0, shape)
    elif 'cls_logits' in key:
        # What comes out of a tower is between 0.5 and 1 with a normalisation, and smaller without one.
        gain, prior = {'fcos_resnet50_fpn': (1.5, -3.2), 'retinanet_resnet50_fpn': (1.5, -4)}.get(
            case.kind, (1.5, -5.6)
        )
        values = noise * gain / np.prod(shape[1:]) ** 0.5 if len(shape) > 1 else 0.3 * noise + prior
    elif 'bbox_reg' in key:
        # Distances in FCOS, deltas in RetinaNet.
        centre, spread = (2, 1.0) if case.kind.startswith('fcos') else (0, 0.2)
        values = noise * spread / np.prod(shape[1:]) ** 0.5 if len(shape) > 1 else 0.1 * noise + centre
    elif len(shape) > 1:
        # What a normalisation of the backbone first sees is small, for a wrong epsilon to show.
        values = noise * (2 / np.prod(shape[1:])) ** 0.5 * (0.1 if body else 0.7)
    else:
        values = 0.2 * noise
    return values.astype(np.float32)


def state_dict(case: Case, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """All entries, by torchvision's keys."""
    return {key: array(case, key, tuple(shape)) for key, shape in shapes.items()}


def images(case: Case) -> list[np.ndarray]:
    """``uint8[height, width, 3]`` each: blobs of colour with noise."""
    made = []
    for index, (height, width) in enumerate(case.sizes):
        random = _random(case, f'image{index}')
        coarse = random.randint(0, 256, (height // 12 + 1, width // 12 + 1, 3))
        fine = np.repeat(np.repeat(coarse, 12, 0), 12, 1)[:height, :width]
        made.append(np.clip(fine + random.randint(-20, 21, fine.shape), 0, 255).astype(np.uint8))
    return made


def objects(case: Case) -> list[tuple[np.ndarray, np.ndarray]]:
    """Boxes in pixels of the images, and their classes; the second of three images has none."""
    made = []
    for index, (height, width) in enumerate(case.sizes):
        random = _random(case, f'objects{index}')
        count = 0 if index == 1 and len(case.sizes) > 2 else 6
        corners = random.uniform(0, 0.8, (count, 2))
        far = np.minimum(corners + random.uniform(0.05, 0.6, (count, 2)) ** 1.5, 1)
        boxes = np.concatenate([corners, far], 1) * [width, height, width, height]
        made.append((boxes.astype(np.float32), random.randint(0, case.classes, count)))
    return made


# Raw outputs of all levels for images of this size, without a network: strides that are no powers of two, and enough
# candidates to overflow what a level may contribute.
RAW_SIZE = (200, 264)
RAW_EXTENTS = ((200, 251), (177, 264))
RAW_CLASSES = 7


def raw_grids() -> dict[str, tuple[int, int]]:
    """Rows and columns of p3 to p7 for ``RAW_SIZE``."""
    return {f'p{k}': tuple(-(-side // 2**k) for side in RAW_SIZE) for k in range(3, 8)}


def raw(kind: str, seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """Outputs of a head for two images."""
    random = np.random.RandomState(zlib.crc32(kind.encode()) ^ seed)
    fcos = kind.startswith('fcos')
    count = 1 if fcos else 9
    outputs = {}
    for level, (rows, columns) in raw_grids().items():
        shape = (2, rows, columns, count)
        logits = random.normal(-3.0 if fcos else -4.0, 2.0, (*shape, RAW_CLASSES))
        boxes = np.maximum(random.normal(1.5, 1.5, (*shape, 4)), 0) if fcos else random.normal(0, 0.4, (*shape, 4))
        outputs[level] = {'classes': logits, 'boxes': boxes}
        if fcos:
            outputs[level]['centerness'] = random.normal(0.5, 1.5, shape)
    return {level: {key: each.astype(np.float32) for key, each in level_.items()} for level, level_ in outputs.items()}


def raw_objects(kind: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Objects of the two images: tiny to large, some on whole pixels so that anchors tie, some one in another."""
    random = np.random.RandomState(zlib.crc32(f'{kind}/objects'.encode()) ^ seed)
    height, width = RAW_SIZE
    boxes = []
    for _ in range(2):
        sides = np.exp(random.uniform(np.log(4), np.log(190), (12, 2)))
        corners = random.uniform(0, 1, (12, 2)) * np.maximum([width, height] - sides, 1)
        each = np.concatenate([corners, np.minimum(corners + sides, [width, height])], 1)
        each[:6] = np.round(each[:6] / 4) * 4
        each[:6, 2:] = np.maximum(each[:6, 2:], each[:6, :2] + 4)
        each[11] = each[10] + [0, 0, 1, 0]
        boxes.append(each)
    return np.array(boxes, np.float32), random.randint(0, RAW_CLASSES, (2, 12))


def sample(values: np.ndarray) -> np.ndarray:
    """Up to 400 of the values, evenly spread."""
    flat = values.reshape(-1)
    return flat[:: max(len(flat) // 400, 1)]
