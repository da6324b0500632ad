"""MobileNetV3 as torchvision and timm store it."""

from backbones.cnn.mobilenet import MobileNetV3
from backbones.pretrained.keymaps.inverted_residual import located_blocks, timm_block_rules, torchvision_block_rules
from backbones.pretrained.keymaps.rules import (
    POINTWISE,
    Ignored,
    Line,
    Rule,
    batch_norm_rules,
    convolution_rules,
    dense_rules,
)


def torchvision(module: MobileNetV3) -> list[Line]:
    """``features.4.block.1.0.weight`` is ``backbone/stage3/block1/depthwise_conv/kernel`` in the large one."""
    head = f'features.{len(module.rows) + 1}'
    rules = [
        *convolution_rules('features.0.0', 'backbone/stem_conv'),
        *batch_norm_rules('features.0.1', 'backbone/stem_norm'),
        *convolution_rules(f'{head}.0', 'backbone/head_conv'),
        *batch_norm_rules(f'{head}.1', 'backbone/head_norm'),
        *_classifier(module),
    ]
    for number, (path, _, _, block) in enumerate(located_blocks(module), start=1):
        rules += torchvision_block_rules(f'features.{number}', path, block)
    return rules


def _classifier(module: MobileNetV3) -> list[Line]:
    if module.for_detection:
        return [Ignored(r'classifier\..*')]
    return [*dense_rules('classifier.0', 'backbone/head_dense'), *dense_rules('classifier.3', 'head')]


def timm(module: MobileNetV3) -> list[Line]:
    """``blocks.2.0.conv_dw.weight`` is ``backbone/stage3/block1/depthwise_conv/kernel`` in the large one."""
    head = f'blocks.{len(module.groups())}.0'
    hidden: list[Line] = [
        Rule('conv_head.weight', 'params/backbone/head_dense/kernel', POINTWISE),
        Rule('conv_head.bias', 'params/backbone/head_dense/bias'),
        *dense_rules('classifier', 'head'),
    ]
    if module.for_detection:
        hidden = [Ignored(r'(conv_head|classifier)\..*')]
    return [
        *convolution_rules('conv_stem', 'backbone/stem_conv'),
        *batch_norm_rules('bn1', 'backbone/stem_norm'),
        *convolution_rules(f'{head}.conv', 'backbone/head_conv'),
        *batch_norm_rules(f'{head}.bn1', 'backbone/head_norm'),
        *hidden,
        *timm_block_rules(module),
    ]
