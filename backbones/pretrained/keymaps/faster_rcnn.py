"""A whole Faster R-CNN as torchvision stores it: ``backbone.body``, ``backbone.fpn``, ``rpn`` and ``roi_heads``."""

import dataclasses
import itertools

from backbones.heads.faster_rcnn import FasterRCNN
from backbones.model import Model
from backbones.necks.fpn import FPN
from backbones.pretrained.keymaps import detection
from backbones.pretrained.keymaps.rules import (
    Foreign,
    Line,
    Rule,
    batch_norm_rules,
    convolution_rules,
    dense_rules,
    flattened,
)


def torchvision(model: Model) -> list[Line]:
    """The lines of a detector; none for one that torchvision does not have."""
    head = model.head
    if not isinstance(head, FasterRCNN) or not isinstance(model.neck, FPN) or model.neck.extra == 'p6p7':
        return []
    parts = [detection.body(model.backbone), detection.fpn(model.neck), [*_proposals(head), *_boxes(head)]]
    return list(itertools.chain(*parts)) if all(parts) else []


def _proposals(head: FasterRCNN) -> list[Line]:
    """``rpn.head.conv.0.0`` is the first convolution; in older files it is the only one, ``rpn.head.conv``."""
    lines: list[Line] = [
        Foreign(
            r'head\.classification_head\..*',
            "belongs to a one-stage detector; make the model with head='fcos' or head='retinanet'",
        )
    ]
    for index in range(head.depth):
        lines += convolution_rules(f'rpn.head.conv.{index}.0', f'head/rpn/tower/conv{index + 1}', bias=True)
    if head.depth == 1:
        older = convolution_rules('rpn.head.conv', 'head/rpn/tower/conv1', bias=True)
        lines += [dataclasses.replace(line, alias=True) for line in older if isinstance(line, Rule)]
    lines += convolution_rules('rpn.head.cls_logits', 'head/rpn/objectness', bias=True)
    return lines + convolution_rules('rpn.head.bbox_pred', 'head/rpn/box_deltas', bias=True)


def _boxes(head: FasterRCNN) -> list[Line]:
    """``fc6`` and ``fc7``, or in version 2 a sequence of convolutions with BatchNorm, a flattening and a ``Linear``.

    The first layer after the flattening sees channels, rows and columns in another order than ours.
    """
    ours, theirs = 'head/box_head', 'roi_heads.box_head'
    lines: list[Line] = []
    if head.convolutions:
        lines.append(
            Foreign(
                rf'{theirs}\.fc6\.weight',
                'belongs to a Faster R-CNN without convolutions in its second stage (v1); make the model with '
                "head_options={'depth': 1, 'convolutions': 0, 'layers': 2}",
            )
        )
        for index in range(head.convolutions):
            lines += convolution_rules(f'{theirs}.{index}.0', f'{ours}/conv{index + 1}')
            lines += batch_norm_rules(f'{theirs}.{index}.1', f'{ours}/norm{index + 1}')
        names = [f'{head.convolutions + 1 + 2 * index}' for index in range(head.layers)]
    else:
        lines.append(
            Foreign(
                rf'{theirs}\.\d+\.0\.weight',
                'belongs to a Faster R-CNN with convolutions in its second stage (v2); make the model with '
                "neck_options={'norm': True} and head_options={'depth': 2, 'convolutions': 4, 'layers': 1}",
            )
        )
        names = [f'fc{6 + index}' for index in range(head.layers)]
    for index, name in enumerate(names):
        kernel, bias = dense_rules(f'{theirs}.{name}', f'{ours}/dense{index + 1}')
        assert isinstance(kernel, Rule)
        lines += [kernel if index else dataclasses.replace(kernel, transform=flattened(head.resolution)), bias]
    predictor = 'roi_heads.box_predictor'
    lines += dense_rules(f'{predictor}.cls_score', f'{ours}/class_logits')
    return lines + dense_rules(f'{predictor}.bbox_pred', f'{ours}/box_deltas')
