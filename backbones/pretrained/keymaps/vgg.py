"""VGG as torchvision and timm store it; the convolutions have the same keys, the fully connected layers do not."""

from backbones.cnn.vgg import VGG
from backbones.pretrained.keymaps.rules import (
    CONVOLUTION,
    Line,
    Rule,
    Transform,
    batch_norm_rules,
    convolution_rules,
    dense_rules,
    flattened,
)


def _sliding(side: int) -> Transform:
    """A convolution with a kernel of that many pixels a side, as a matrix."""
    return Transform(
        'OIHW to a matrix',
        lambda kernel: CONVOLUTION.forward(kernel).reshape(-1, len(kernel)),
        lambda matrix: CONVOLUTION.inverse(matrix.reshape(side, side, -1, matrix.shape[1])),
    )


def _convolutions(module: VGG) -> list[Line]:
    """Layers are numbered consecutively, activations and pools included: ``features.5`` is ``stage2/conv1``."""
    rules: list[Line] = []
    number = 0
    for stage, depth in enumerate(module.depths, start=1):
        for index in range(1, depth + 1):
            path = f'backbone/stage{stage}/'
            rules += convolution_rules(f'features.{number}', f'{path}conv{index}', bias=True)
            if module.batch_norm:
                rules += batch_norm_rules(f'features.{number + 1}', f'{path}norm{index}')
            number += 3 if module.batch_norm else 2
        number += 1
    return rules


def torchvision(module: VGG) -> list[Line]:
    """``classifier.0``, which sees its input flattened channels first, is ``backbone/pre_logits/dense1``."""
    path = 'backbone/pre_logits/dense'
    return [
        *_convolutions(module),
        Rule('classifier.0.weight', f'params/{path}1/kernel', flattened(7)),
        Rule('classifier.0.bias', f'params/{path}1/bias'),
        *dense_rules('classifier.3', f'{path}2'),
        *dense_rules('classifier.6', 'head'),
    ]


def timm(module: VGG) -> list[Line]:
    """The hidden layers are convolutions there: one of 7x7 and one of 1x1."""
    path = 'backbone/pre_logits/dense'
    return [
        *_convolutions(module),
        Rule('pre_logits.fc1.weight', f'params/{path}1/kernel', _sliding(7)),
        Rule('pre_logits.fc1.bias', f'params/{path}1/bias'),
        Rule('pre_logits.fc2.weight', f'params/{path}2/kernel', _sliding(1)),
        Rule('pre_logits.fc2.bias', f'params/{path}2/bias'),
        *dense_rules('head.fc', 'head'),
    ]
