"""Faster R-CNNs, images and objects that torchvision and our tests both make from a seed; what it answers is kept.

Only numpy, and of it only ``RandomState``, whose stream of numbers is frozen for good.
"""

import dataclasses
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.parity.detection import cases as one_stage

DIRECTORY = Path(__file__).parent

# A MobileNetV3 with few blocks, narrow enough to run in a test.
NARROW_ROWS = (
    (16, 16, 3, 1, False, 'relu'),
    (32, 16, 3, 2, False, 'relu'),
    (32, 24, 5, 2, True, 'relu'),
    (48, 24, 3, 2, False, 'hard_swish'),
    (48, 32, 5, 2, True, 'hard_swish'),
    (64, 32, 5, 1, True, 'hard_swish'),
)
CHANNELS = 64
_BACKGROUND = {
    'fasterrcnn_resnet50_fpn': 5,
    'fasterrcnn_resnet50_fpn_v2': 7.5,
    'fasterrcnn_mobilenet_v3_large_fpn': 7.2,
    'fasterrcnn_mobilenet_v3_large_320_fpn': 7,
}
# Larger than the number of anchors, so that all of them are drawn.
ALL = 10**6


@dataclasses.dataclass(frozen=True)
class Case(one_stage.Case):
    """A detector and what it is asked; ``classes`` are those of objects, without the background.

    Where ``narrow``, the backbone has few channels and the neck ``CHANNELS``.

    Attributes:
        background: bias of the background; ``None``: one with which there are boxes, but fewer than an image may have.
    """

    kind: str = 'fasterrcnn_resnet50_fpn'
    background: float | None = None

    @property
    def path(self) -> Path:
        """Where torchvision's answers are kept."""
        return DIRECTORY / f'{self.kind}.npz'

    @property
    def epsilon(self) -> float:
        """Epsilon of the backbone's BatchNorms."""
        return 0.0 if self.kind == 'fasterrcnn_resnet50_fpn' else 1e-5

    @property
    def mobile(self) -> bool:
        """Whether the backbone is a MobileNetV3."""
        return 'mobilenet' in self.kind

    def arguments(self, published: Mapping[str, Any]) -> dict[str, Any]:
        """What differs from the options of the published model."""
        if not self.narrow:
            return {'num_classes': self.classes}
        narrow = {'rows': NARROW_ROWS} if self.mobile else one_stage.NARROW
        neck = {**published.get('neck_options', {}), 'channels': CHANNELS}
        return {'num_classes': self.classes, 'neck_options': neck, **narrow}


CASES = tuple(
    Case(kind)
    for kind in (
        'fasterrcnn_resnet50_fpn',
        'fasterrcnn_resnet50_fpn_v2',
        'fasterrcnn_mobilenet_v3_large_fpn',
        'fasterrcnn_mobilenet_v3_large_320_fpn',
    )
)


def array(case: Case, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """One entry of the state dictionary: statistics, biases and scales that all matter."""
    if key.endswith('num_batches_tracked'):
        return np.zeros(shape, np.int64)
    random = np.random.RandomState(zlib.crc32(f'{case.kind}/{key}'.encode()) ^ case.seed)
    noise = random.uniform(-(3**0.5), 3**0.5, shape)
    fan = np.prod(shape[1:]) ** 0.5
    # What a ResNet's normalisation first sees is small, for a wrong epsilon to show.
    small = 0.1 if key.startswith('backbone.body') and not case.mobile else 0.7
    if key.endswith('running_var'):
        values = (1.0 if key.startswith('roi_heads') else small) ** 2 * random.uniform(0.5, 1.5, shape)
    elif key.endswith('running_mean'):
        values = 0.2 * small * noise
    elif len(shape) == 1 and key.endswith('weight'):  # of a normalisation
        values = random.uniform(0.5, 1.0, shape)
    elif 'cls_score' in key or 'cls_logits' in key:
        gain = 12 if 'score' in key and not case.frozen else 3
        values = noise * gain / fan if len(shape) > 1 else 0.3 * noise
        if len(shape) == 1 and 'cls_score' in key:
            values[0] += _BACKGROUND[case.kind] if case.background is None else case.background
    elif 'bbox_pred' in key:
        # Deltas of the second stage are ten times, or five times, as large.
        spread = 0.3 if key.startswith('rpn') else 1.5
        values = noise * spread / fan if len(shape) > 1 else 0.1 * noise
    elif len(shape) > 1:
        values = noise * 2**0.5 / fan * (small if key.startswith('backbone') else 1)
    else:
        values = 0.2 * noise
    # Logits of which hardly any rounds to a probability of one, whose order would be that of rounding errors.
    if key.startswith('backbone.fpn.layer_blocks') and (case.frozen or '.1.' in key) and 'running' not in key:
        values *= 1.2 if case.mobile else 0.2 if case.narrow else 0.06
    return values.astype(np.float32)


def state_dict(case: Case, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """All entries, by torchvision's keys."""
    return {key: array(case, key, tuple(shape)) for key, shape in shapes.items()}
