"""Published dense models by name: which backbone, neck and head they are, and with which options.

A row is what ``create_detector`` or ``create_segmenter`` is called with, and nothing more: a published model is one of
ours with other options. Its weights: ``load_weights('resnet50', file, model=create_published('fcos_resnet50_fpn'))``.

Source: torchvision/models/detection and torchvision/models/segmentation; ultralytics/cfg/models/{11,26}.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from backbones import registry
from backbones.assembly import create_detector, create_segmenter
from backbones.detection_input import DetectionInput
from backbones.errors import UserError, unknown
from backbones.model import Model
from backbones.preprocessing import TORCHVISION_SEGMENTER, YOLO, Preprocessing


@dataclasses.dataclass(frozen=True)
class PublishedModel:
    """One row.

    Attributes:
        create: ``create_detector`` or ``create_segmenter``.
        backbone: a registered name.
        params: number of parameters, as torchvision and ultralytics count them.
        options: what ``create`` is called with beside the name of the backbone.
        input: what it expects of images; ``None`` where it is not said.
        evaluation: options of the head with which its average precision was published, where they are not its usual
            ones.
        frozen_norm: whether the backbone's BatchNorms were frozen while it was trained. Their scales and biases are
            then no parameters to torchvision; to us they are.
    """

    create: Callable[..., Model]
    backbone: str
    params: int
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    input: DetectionInput | Preprocessing | None = None
    evaluation: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    frozen_norm: bool = False


def _segmenter(backbone: str, head: str, params: int) -> PublishedModel:
    """Trained on those images of COCO that have the 20 classes of Pascal VOC, and a background."""
    return PublishedModel(create_segmenter, backbone, params, {'head': head}, TORCHVISION_SEGMENTER)


_DETECTION_INPUT = DetectionInput()
# The classes are COCO's ids less one: the background is an output of its own.
_FASTER_RCNN = {'head': 'faster_rcnn', 'num_classes': 90}
# Two maps of stride 32, of which boxes are pooled from the first alone, and anchors of all sizes on both.
_ON_MOBILENET = {
    **_FASTER_RCNN,
    'neck_options': {'stages': ('stage5', 'stage6')},
    'head_options': {
        'anchor_sizes': (32.0, 64.0, 128.0, 256.0, 512.0),
        'pooled': ('p5',),
        'proposal_threshold': 0.05,
    },
    'epsilon': 1e-5,
    'for_detection': True,
}

# Per size: channels of the finest and of the coarsest level, blocks per C3k2, and whether all of them are nested.
_YOLO_NECKS = {
    'n': (64, 256, 1, False),
    's': (128, 512, 1, False),
    'm': (256, 512, 1, True),
    'l': (256, 512, 2, True),
    'x': (384, 768, 2, True),
}


def _yolo(version: int, size: str, params: int) -> PublishedModel:
    """Trained on the 80 classes of COCO, which are numbered without gaps."""
    channels, most, depth, nested = _YOLO_NECKS[size]
    neck = {'channels': channels, 'max_channels': most, 'depth': depth, 'nested': nested, 'attention': False}
    head: dict[str, Any] = {'bins': 16, 'branches': 'one_to_many'}
    if version == 26:
        neck |= {'nested': True, 'attention': True}
        head = {'bins': 1, 'branches': 'both'}
    options = {'head': 'yolo', 'num_classes': 80, 'neck': 'yolo_pan', 'neck_options': neck, 'head_options': head}
    # As ultralytics validates; one-to-one has several classes at a point anyway.
    evaluation = {'score_threshold': 0.001} | ({'multi_label': True} if version == 11 else {})
    return PublishedModel(create_detector, f'yolo{version}{size}', params, options, YOLO, evaluation)


TABLE: dict[str, PublishedModel] = {
    'fcn_resnet50': _segmenter('resnet50', 'fcn', 35_322_218),
    'fcn_resnet101': _segmenter('resnet101', 'fcn', 54_314_346),
    'deeplabv3_resnet50': _segmenter('resnet50', 'deeplabv3', 42_004_074),
    'deeplabv3_resnet101': _segmenter('resnet101', 'deeplabv3', 60_996_202),
    'fcos_resnet50_fpn': PublishedModel(
        create_detector, 'resnet50', 32_269_600, {'head': 'fcos'}, _DETECTION_INPUT, frozen_norm=True
    ),
    # Its weights are older than the epsilon of torchvision's FrozenBatchNorm2d.
    'retinanet_resnet50_fpn': PublishedModel(
        create_detector,
        'resnet50',
        34_014_999,
        {'head': 'retinanet', 'epsilon': 0.0},
        _DETECTION_INPUT,
        frozen_norm=True,
    ),
    'retinanet_resnet50_fpn_v2': PublishedModel(
        create_detector,
        'resnet50',
        38_198_935,
        {
            'head': 'retinanet',
            'neck_options': {'extra_from_stage': True},
            'head_options': {'norm': 'group', 'box_loss': 'giou'},
        },
        _DETECTION_INPUT,
    ),
    # Of the parameters of a YOLO11, 16 are the numbers from 0 to 15, which are no parameters here.
    'yolo11n': _yolo(11, 'n', 2_624_080),
    'yolo11s': _yolo(11, 's', 9_458_752),
    'yolo11m': _yolo(11, 'm', 20_114_688),
    'yolo11l': _yolo(11, 'l', 25_372_160),
    'yolo11x': _yolo(11, 'x', 56_966_176),
    'yolo26n': _yolo(26, 'n', 2_572_280),
    'yolo26s': _yolo(26, 's', 10_009_784),
    'yolo26m': _yolo(26, 'm', 21_896_248),
    'yolo26l': _yolo(26, 'l', 26_299_704),
    'yolo26x': _yolo(26, 'x', 58_993_368),
    'fasterrcnn_resnet50_fpn': PublishedModel(
        create_detector, 'resnet50', 41_755_286, {**_FASTER_RCNN, 'epsilon': 0.0}, _DETECTION_INPUT, frozen_norm=True
    ),
    'fasterrcnn_resnet50_fpn_v2': PublishedModel(
        create_detector,
        'resnet50',
        43_712_278,
        {
            **_FASTER_RCNN,
            'neck_options': {'norm': True},
            'head_options': {'depth': 2, 'convolutions': 4, 'layers': 1},
        },
        _DETECTION_INPUT,
    ),
    'fasterrcnn_mobilenet_v3_large_fpn': PublishedModel(
        create_detector, 'mobilenet_v3_large', 19_386_354, _ON_MOBILENET, _DETECTION_INPUT, frozen_norm=True
    ),
    'fasterrcnn_mobilenet_v3_large_320_fpn': PublishedModel(
        create_detector,
        'mobilenet_v3_large',
        19_386_354,
        {
            **_ON_MOBILENET,
            'head_options': {
                **_ON_MOBILENET['head_options'],
                'candidates': (2000, 150),
                'proposals': (2000, 150),
            },
        },
        DetectionInput(320, 640),
        frozen_norm=True,
    ),
}


# The files of torchvision's models, below download.pytorch.org/models.
_FILES = {
    'fcn_resnet50': 'fcn_resnet50_coco-1167a1af.pth',
    'fcn_resnet101': 'fcn_resnet101_coco-7ecb50ca.pth',
    'deeplabv3_resnet50': 'deeplabv3_resnet50_coco-cd0a2569.pth',
    'deeplabv3_resnet101': 'deeplabv3_resnet101_coco-586e9e4e.pth',
    'fcos_resnet50_fpn': 'fcos_resnet50_fpn_coco-99b0c9b7.pth',
    'retinanet_resnet50_fpn': 'retinanet_resnet50_fpn_coco-eeacb38b.pth',
    'retinanet_resnet50_fpn_v2': 'retinanet_resnet50_fpn_v2_coco-5905b1c5.pth',
    'fasterrcnn_resnet50_fpn': 'fasterrcnn_resnet50_fpn_coco-258fb6c6.pth',
    'fasterrcnn_resnet50_fpn_v2': 'fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth',
    'fasterrcnn_mobilenet_v3_large_fpn': 'fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7.pth',
    'fasterrcnn_mobilenet_v3_large_320_fpn': 'fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth',
}


def address(name: str) -> str:
    """Where the weights of a published model can be downloaded."""
    if name in _FILES:
        return f'https://download.pytorch.org/models/{_FILES[name]}'
    return f'{name}.pt of https://github.com/ultralytics/assets/releases'


def create_published(name: str, **changes) -> Model:
    """A published model: ``create_published('fcos_resnet50_fpn', num_classes=20)``.

    Args:
        name: a row of ``TABLE``.
        **changes: arguments of ``create_detector`` or ``create_segmenter`` that differ from the published ones; of
            ``neck_options`` and ``head_options``, the options that differ.

    Raises:
        UserError: no such model, or see ``create_detector``.
    """
    if name not in TABLE:
        raise unknown('published model', name, TABLE)
    row = TABLE[name]
    for key, options in row.options.items():
        if isinstance(options, Mapping) and isinstance(changes.get(key), Mapping):
            changes[key] = {**options, **changes[key]}
    return row.create(row.backbone, **{**row.options, **changes})


def published_on(name: str, **overrides) -> list[Model]:
    """The published models with this backbone, or else all with one of its kind, and this one in its place.

    Args:
        name: a registered backbone.
        **overrides: options of the backbone.
    """
    kind = type(registry.create(name))
    rows = [row for row in TABLE.values() if row.backbone == name]
    if rows:
        return [row.create(name, **{**row.options, **overrides}) for row in rows]
    found = []
    for row in TABLE.values():
        if type(registry.create(row.backbone)) is kind:
            # A smaller variant may lack a stage that the published model takes.
            with contextlib.suppress(UserError):
                found.append(row.create(name, **{**row.options, **overrides}))
    return found


def preprocessing_of(model: Model) -> Preprocessing | None:
    """What published weights of a segmenter with this kind of head expect of images; ``None`` where no row says it."""
    kind = type(model.head)
    for row in TABLE.values():
        if isinstance(row.input, Preprocessing) and type(row.create(row.backbone, **row.options).head) is kind:
            return row.input
    return None
