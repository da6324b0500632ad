"""Backbone, neck and head put together: segmenters and detectors on any backbone of the registry."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn

from backbones import inputs, registry
from backbones.errors import UserError, unknown
from backbones.heads.deeplabv3 import DeepLabV3Head
from backbones.heads.faster_rcnn import FasterRCNN
from backbones.heads.fcos import FCOS
from backbones.heads.retinanet import RetinaNet
from backbones.heads.segmentation import FCNHead, LinearSegmentationHead
from backbones.heads.upernet import UPerNetHead
from backbones.heads.yolo import YOLOHead
from backbones.model import Model
from backbones.necks import TABLE as NECKS
from backbones.necks import levels

# Heads by name, the usual one first; each takes ``num_classes``, ``dtype`` and options of its own, and some ``levels``
# (``necks.levels``).
SEGMENTATION_HEADS: dict[str, Callable[..., nn.Module]] = {
    'fcn': FCNHead,
    'linear': LinearSegmentationHead,
    'deeplabv3': DeepLabV3Head,
    'upernet': UPerNetHead,
}
DETECTION_HEADS: dict[str, Callable[..., nn.Module]] = {
    'fcos': FCOS,
    'retinanet': RetinaNet,
    'faster_rcnn': FasterRCNN,
    'yolo': YOLOHead,
    'yolo11': partial(YOLOHead, bins=16, branches='one_to_many'),
}

# Strides of the levels of a neck, where none are asked for.
SEGMENTER_STRIDES = (4, 8, 16, 32)
DETECTOR_STRIDES = (8, 16, 32)
# Where the neck of a detector's head is another one: these, and what is beyond them.
_PYRAMIDS = {'faster_rcnn': ((4, 8, 16, 32), 'pool')}
# Stride of the one map that a segmenter's head without levels sees where a backbone has the choice.
_SEGMENTER_STRIDE = 8
# Stride of the one map that a detector's head sees without a neck, of those that can do without one.
NECKLESS_STRIDES = {'faster_rcnn': 16}
# Heads that see several levels of the backbone, whose strides are therefore left as they are.
_OF_LEVELS = ('upernet',)


def create_segmenter(
    name: str,
    head: str = 'fcn',
    num_classes: int = 21,
    neck: str | None = None,
    neck_options: Mapping[str, Any] | None = None,
    head_options: Mapping[str, Any] | None = None,
    **overrides,
) -> Model:
    """The backbone with a head for every pixel: output ``float32[batch, height, width, classes]``, like the images.

    Args:
        name: a registered backbone.
        head: a row of ``SEGMENTATION_HEADS``.
        num_classes: number of logits of each pixel.
        neck: a row of ``necks.TABLE``, or ``None``: the head sees the backbone's own maps.
        neck_options: options of the neck, and ``strides``, those of its levels.
        head_options: options of the head.
        **overrides: options of the backbone, as ``create`` takes them. Where there is no neck and the head sees one
            map, a backbone that has an ``output_stride`` gets 8, or the nearest larger one that it can have.

    Raises:
        UserError: no such backbone, head, neck or option, a backbone of texts, or fewer than one class.
    """
    backbone = _with_maps(name, overrides)
    if neck is None and head not in _OF_LEVELS and hasattr(backbone, 'output_strides'):
        finest = min(stride for stride in backbone.output_strides() if stride >= _SEGMENTER_STRIDE)
        backbone = registry.create(name, **{'output_stride': finest, **overrides})
    given = {'num_classes': num_classes}
    if head in _OF_LEVELS:
        given['levels'] = levels.choose(backbone, SEGMENTER_STRIDES)
    made = _head('segmentation', SEGMENTATION_HEADS, head, given, head_options, backbone)
    return Model(backbone, _neck(neck, backbone, neck_options, SEGMENTER_STRIDES), made)


def create_detector(
    name: str,
    head: str = 'fcos',
    num_classes: int = 91,
    neck: str | None = 'fpn',
    neck_options: Mapping[str, Any] | None = None,
    head_options: Mapping[str, Any] | None = None,
    **overrides,
) -> Model:
    """The backbone with a detector: raw outputs, of which ``head.detections`` makes boxes.

    Args:
        name: a registered backbone.
        head: a row of ``DETECTION_HEADS``.
        num_classes: number of classes of objects.
        neck: a row of ``necks.TABLE``, with the levels p3 to p7, p2 to p6 for Faster R-CNN, p3 to p5 for
            ``'yolo_pan'``; ``None``: the map of stride 16, for Faster R-CNN.
        neck_options: options of the neck, and ``strides``, those of its levels, or ``stages``, those that its levels
            are; ``extra='none'`` leaves out levels beyond these.
        head_options: options of the head.
        **overrides: options of the backbone, as ``create`` takes them.

    Raises:
        UserError: no such backbone, head, neck or option, a backbone of texts, or fewer than one class.
    """
    backbone = _with_maps(name, overrides)
    strides, extra = _PYRAMIDS.get(head, (DETECTOR_STRIDES, 'p6p7'))
    if hasattr(NECKS.get(neck), 'extra'):
        neck_options = {'extra': extra, **(neck_options or {})}
    given: dict[str, Any] = {'num_classes': num_classes}
    if neck is None and head in NECKLESS_STRIDES:
        given['levels'] = levels.choose(backbone, (NECKLESS_STRIDES[head],))
    made = _head('detection', DETECTION_HEADS, head, given, head_options, backbone)
    return Model(backbone, _neck(neck, backbone, neck_options, strides), made)


def detector_strides(head: str) -> tuple[int, ...]:
    """Strides of the levels of a detector's neck, where none are asked for."""
    return _PYRAMIDS.get(head, (DETECTOR_STRIDES, ''))[0]


def _with_maps(name: str, overrides: Mapping[str, Any]) -> nn.Module:
    backbone = registry.create(name, **overrides)
    if inputs.reads_texts(backbone):
        raise UserError(f'{name} reads texts, and segmenters and detectors need maps of images: choose a CNN or a ViT')
    return backbone


def _head(
    task: str,
    table: Mapping[str, Callable],
    name: str,
    given: Mapping[str, Any],
    options: Mapping | None,
    backbone: nn.Module,
) -> nn.Module:
    if name not in table:
        raise unknown(f'{task} head', name, table)
    if given['num_classes'] < 1:
        raise UserError(f'num_classes must be at least 1, not {given["num_classes"]}')
    options = {'dtype': backbone.dtype, **(options or {})}
    return _made(f'head {name}', table[name], given, options)


def _neck(
    name: str | None, backbone: nn.Module, options: Mapping[str, Any] | None, strides: Sequence[int]
) -> nn.Module | None:
    if name is None:
        if options:
            raise UserError(f'there is no neck for the options {dict(options)}')
        return None
    if name not in NECKS:
        raise unknown('neck', name, NECKS)
    options = {'dtype': backbone.dtype, **(options or {})}
    deepest = getattr(NECKS[name], 'of_deepest', False)
    if 'stages' in options:
        chosen = levels.of_stages(backbone, options.pop('stages'))
    else:
        chosen = levels.choose(backbone, options.pop('strides', strides), deepest)
    return _made(f'neck {name}', NECKS[name], {'levels': chosen}, options)


def _made(what: str, constructor: Callable, given: Mapping[str, Any], options: Mapping[str, Any]) -> nn.Module:
    module = constructor(**given)
    fields = {field.name for field in dataclasses.fields(module)} - {'parent', 'name', *given}
    for option in options:
        if option not in fields:
            raise unknown(f'option of the {what}', option, fields)
    return module.clone(**options)
