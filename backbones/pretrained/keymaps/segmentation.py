"""Torchvision's FCN and DeepLabv3: a backbone, a head and an auxiliary head in one file."""

import dataclasses

from backbones.cnn.resnet import ResNet
from backbones.heads.deeplabv3 import DeepLabV3Head
from backbones.heads.segmentation import FCNHead
from backbones.model import Model
from backbones.pretrained.keymaps import resnet
from backbones.pretrained.keymaps.rules import Foreign, Ignored, Line, Made, Rule, batch_norm_rules, convolution_rules

# Keys that tell the two heads apart; others are the same in both, and stand for other layers.
_FCN = Foreign(r'classifier\.0\.weight', "belongs to an FCN; make the model with head='fcn'")
_DEEPLABV3 = Foreign(r'classifier\.0\.convs\..*', "belongs to a DeepLabv3; make the model with head='deeplabv3'")


def torchvision(model: Model) -> list[Line]:
    """``backbone.layer1.0.conv1.weight``, ``classifier.4.weight``, ``aux_classifier.4.weight``.

    A model has this layout if it is an FCN or a DeepLabv3 on a ResNet, without a neck.
    """
    if model.neck is not None or not isinstance(model.backbone, ResNet):
        return []
    if isinstance(model.head, FCNHead):
        head = [*_fcn('classifier', 'head'), _DEEPLABV3]
    elif isinstance(model.head, DeepLabV3Head):
        head = [*_deeplabv3(len(model.head.rates)), _FCN]
    else:
        return []
    auxiliary = _fcn('aux_classifier', 'head/auxiliary') if model.head.auxiliary else [Ignored(r'aux_classifier\..*')]
    return [*_in_front('backbone.', resnet.torchvision(model.backbone)), *head, *auxiliary]


def _in_front(prefix: str, lines: list[Line]) -> list[Line]:
    """The lines of a backbone alone, without those of its classifier, with ``prefix`` in front of their keys."""
    own = [line for line in lines if isinstance(line, Rule | Made) and line.path.split('/')[1] == 'backbone']
    return [dataclasses.replace(line, key=prefix + line.key) for line in own]


def _fcn(key: str, path: str) -> list[Line]:
    return [
        *convolution_rules(f'{key}.0', f'{path}/conv/conv'),
        *batch_norm_rules(f'{key}.1', f'{path}/conv/norm'),
        *convolution_rules(f'{key}.4', f'{path}/classifier', bias=True),
    ]


def _deeplabv3(rates: int) -> list[Line]:
    aspp, path = 'classifier.0', 'head/aspp'
    lines = [
        *convolution_rules(f'{aspp}.convs.{rates + 1}.1', f'{path}/pooling/conv'),
        *batch_norm_rules(f'{aspp}.convs.{rates + 1}.2', f'{path}/pooling/norm'),
        *convolution_rules(f'{aspp}.project.0', f'{path}/project/conv'),
        *batch_norm_rules(f'{aspp}.project.1', f'{path}/project/norm'),
        *convolution_rules('classifier.1', 'head/conv/conv'),
        *batch_norm_rules('classifier.2', 'head/conv/norm'),
        *convolution_rules('classifier.4', 'head/classifier', bias=True),
    ]
    for branch in range(rates + 1):
        lines += convolution_rules(f'{aspp}.convs.{branch}.0', f'{path}/branch{branch + 1}/conv')
        lines += batch_norm_rules(f'{aspp}.convs.{branch}.1', f'{path}/branch{branch + 1}/norm')
    return lines
