"""ResNet as torchvision and timm store it: the same keys."""

from backbones.cnn.resnet import ResNet
from backbones.pretrained.keymaps.rules import Rule, batch_norm_rules, convolution_rule, dense_rules


def torchvision(module: ResNet) -> list[Rule]:
    """``layer1.0.conv1.weight`` → ``backbone/stage1/block1/conv1/kernel``."""
    block, path = r'layer(\d)\.(\d+)\.', 'backbone/stage{0}/block{1:+1}/'
    return [
        *convolution_rule('conv1', 'backbone/stem_conv'),
        *batch_norm_rules('bn1', 'backbone/stem_norm'),
        *convolution_rule(rf'{block}conv(\d)', path + 'conv{2}'),
        *batch_norm_rules(rf'{block}bn(\d)', path + 'norm{2}'),
        *convolution_rule(rf'{block}downsample\.0', path + 'shortcut_conv'),
        *batch_norm_rules(rf'{block}downsample\.1', path + 'shortcut_norm'),
        *dense_rules('fc', 'head'),
    ]
