"""Whole one-stage detectors as torchvision stores them: ``backbone.body``, ``backbone.fpn`` and ``head``."""

import dataclasses
import itertools

import flax.linen as nn

from backbones.cnn.mobilenet import MobileNetV3
from backbones.cnn.resnet import ResNet
from backbones.heads.fcos import FCOS
from backbones.heads.retinanet import RetinaNet
from backbones.model import Model
from backbones.necks.fpn import FPN
from backbones.pretrained.keymaps import mobilenet, resnet
from backbones.pretrained.keymaps.native import part_of
from backbones.pretrained.keymaps.rules import (
    Foreign,
    Line,
    Made,
    Rule,
    batch_norm_rules,
    convolution_rules,
    layer_norm_rules,
)

# Our towers → their heads.
_TOWERS = {'class_tower': 'head.classification_head', 'box_tower': 'head.regression_head'}


def torchvision(model: Model) -> list[Line]:
    """The lines of a detector; none for one that torchvision does not have."""
    if not isinstance(model.neck, FPN):
        return []
    parts = [body(model.backbone), fpn(model.neck), _head(model.head)]
    return list(itertools.chain(*parts)) if all(parts) else []


_TWO_STAGES = Foreign(r'rpn\.head\..*', "belongs to a Faster R-CNN; make the model with head='faster_rcnn'")


def _head(head: nn.Module) -> list[Line]:
    if isinstance(head, FCOS):
        return _fcos(head)
    return _retinanet(head) if isinstance(head, RetinaNet) else []


def body(backbone: nn.Module) -> list[Line]:
    """``backbone.body.layer1.0.conv1.weight``, ``backbone.body.0.0.weight`` of a MobileNet, without the classifier."""
    if isinstance(backbone, ResNet):
        lines = resnet.torchvision(backbone)
    elif isinstance(backbone, MobileNetV3) and backbone.for_detection:
        lines = mobilenet.torchvision(backbone)
    else:
        return []
    return [
        dataclasses.replace(line, key=f'backbone.body.{line.key.removeprefix("features.")}')
        for line in lines
        if isinstance(line, Rule | Made) and part_of(line.path) == 'backbone'
    ]


def fpn(neck: FPN) -> list[Line]:
    """``backbone.fpn.inner_blocks.0.0.weight`` is the lateral convolution of the finest level; older files lack ``.0``.

    Torchvision numbers the levels from the finest, and has no neck that resamples the maps of the backbone.
    """
    lines: list[Line] = []
    for index, level in enumerate(neck.levels):
        if level.halvings:
            return []
        for theirs, ours in (('inner_blocks', 'lateral'), ('layer_blocks', 'output')):
            key, path = f'backbone.fpn.{theirs}.{index}', f'neck/{ours}{level.exponent}'
            if neck.norm:
                lines += convolution_rules(f'{key}.0', f'{path}/conv') + batch_norm_rules(f'{key}.1', f'{path}/norm')
            else:
                lines += convolution_rules(f'{key}[.0]', path, bias=True)
    for number, level in enumerate(('p6', 'p7'), start=1):
        if neck.extra == 'p6p7':
            lines += convolution_rules(f'backbone.fpn.extra_blocks.{level}', f'neck/extra{number}', bias=True)
    return lines


def _fcos(head: FCOS) -> list[Line]:
    """``conv`` is a sequence of convolution, GroupNorm and ReLU."""
    if head.norm != 'group':
        return []
    lines: list[Line] = [
        _TWO_STAGES,
        Foreign(
            r'head\.\w+_head\.conv\.\d+\.\d+\.weight', "belongs to a RetinaNet; make the model with head='retinanet'"
        ),
        *_predictions(),
        *convolution_rules('head.regression_head.bbox_ctrness', 'head/centerness', bias=True),
    ]
    for path, key in _TOWERS.items():
        for index in range(head.depth):
            lines += convolution_rules(f'{key}.conv.{3 * index}', f'head/{path}/conv{index + 1}', bias=True)
            lines += layer_norm_rules(f'{key}.conv.{3 * index + 1}', f'head/{path}/norm{index + 1}')
    return lines


def _retinanet(head: RetinaNet) -> list[Line]:
    """``conv.{i}`` is a convolution and, in version 2, a GroupNorm; in older files ``conv.{2i}`` is the convolution."""
    grouped = head.norm == 'group'
    other = (
        Foreign(
            r'head\.\w+_head\.conv\.(\d+\.0\.bias|\d+\.bias)',
            "belongs to a RetinaNet without normalisation; make the model with head_options={'norm': 'none'}",
        )
        if grouped
        else Foreign(
            r'head\.\w+_head\.conv\.\d+\.1\.weight',
            "belongs to a RetinaNet with GroupNorm (v2); make the model with head_options={'norm': 'group'}",
        )
    )
    lines: list[Line] = [
        _TWO_STAGES,
        Foreign(r'head\.regression_head\.bbox_ctrness\..*', "belongs to an FCOS; make the model with head='fcos'"),
        other,
        *_predictions(),
    ]
    for path, key in _TOWERS.items():
        for index in range(head.depth):
            ours = f'head/{path}/conv{index + 1}'
            lines += convolution_rules(f'{key}.conv.{index}.0', ours, bias=not grouped)
            if grouped:
                lines += layer_norm_rules(f'{key}.conv.{index}.1', f'head/{path}/norm{index + 1}')
            else:
                older = convolution_rules(f'{key}.conv.{2 * index}', ours, bias=True)
                lines += [dataclasses.replace(line, alias=True) for line in older if isinstance(line, Rule)]
    return lines


def _predictions() -> list[Line]:
    return [
        *convolution_rules('head.classification_head.cls_logits', 'head/class_logits', bias=True),
        *convolution_rules('head.regression_head.bbox_reg', 'head/box_deltas', bias=True),
    ]
